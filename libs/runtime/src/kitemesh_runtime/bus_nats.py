"""The bus on NATS: one guarded connection with its calls, subscriptions and pulls.

It does not know what travels. Acknowledged publications and requests are in `calls_nats`, those that nobody waits for
in `posting_nats`, reads in `direct_nats`, deliveries in `pull_nats`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct
from nats.errors import Error

from kitemesh_contracts import headers
from kitemesh_contracts.errors import Bug, ErrorCode, Unavailable
from kitemesh_runtime import pull_nats
from kitemesh_runtime.bus import Delivery, Listener, Receipt, Responder, Stored
from kitemesh_runtime.calls_nats import Calls
from kitemesh_runtime.client_nats import PING_INTERVAL_S, RECONNECT_WAIT_S, GuardedClient
from kitemesh_runtime.connection_nats import end
from kitemesh_runtime.direct_nats import DirectReads
from kitemesh_runtime.jetstream_nats import NOT_FOUND, Refused, ask
from kitemesh_runtime.posting_nats import Posting
from kitemesh_runtime.pull_nats import NatsPull
from kitemesh_runtime.wire_nats import check_subject, pub

CONNECT_S: Final = 10.0
STOP_S: Final = 1.0
WAITING_S: Final = 1.0
_NO_STREAM: Final = "KM_NONE"
"""What no stream is called."""


class _State(Struct, frozen=True, kw_only=True):
    subjects: dict[str, int] | None = None


class _Info(Struct, frozen=True, kw_only=True):
    state: _State


_INFO: Final = msgspec.json.Decoder(_Info)


class _ConsumerInfo(Struct, frozen=True, kw_only=True):
    num_pending: int = 0


_WAITING: Final = msgspec.json.Decoder(_ConsumerInfo)


class NatsSubscription:
    """Interest in a core subject."""

    def __init__(self, client: GuardedClient, sid: bytes) -> None:
        self._client = client
        self._sid = sid

    async def stop(self) -> None:
        """End the interest; the listener is not called again."""
        self._client.mute(self._sid)
        self._client.forget(self._sid)


class NatsBus:
    """The `Bus` over one connection. Open it with `open_bus`."""

    def __init__(self, client: GuardedClient, *, inbox_prefix: str, pull_heartbeat_s: float) -> None:
        self._client = client
        self._inbox_prefix = inbox_prefix
        self._pull_heartbeat_s = pull_heartbeat_s
        self._calls = Calls(client, inbox_prefix)
        self._posting = Posting(client, inbox_prefix)
        self._reads = DirectReads(client, inbox_prefix)
        self._up = asyncio.Event()
        self._up.set()
        client.on_lost(self._up.clear)
        client.on_regained(self._up.set)

    @property
    def connected(self) -> bool:
        """Whether the connection stands at this moment."""
        return self._up.is_set()

    @property
    def max_payload_bytes(self) -> int:
        """Largest message that the server takes."""
        return int(self._client.max_payload)

    async def wait_connected(self, timeout_s: float) -> None:
        """Return once connected, or raise `Unavailable`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError as exc:
            raise Unavailable(ErrorCode.BUS_DOWN, "The message bus cannot be reached.") from exc

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call back after every reconnect."""
        self._client.on_regained(callback)

    def publish(self, subject: str, payload: bytes) -> None:
        """Send on core NATS.

        Raises:
            Unavailable: Disconnected, or more than 8 MiB are unsent; the message is lost.
            ContractViolation: It is larger than the server takes, or the subject may not travel.

        """
        self._client.send_now(pub(subject, payload))

    async def send(self, subject: str, payload: bytes, *, msg_id: str, timeout_s: float = 2.5) -> Receipt:
        """Store in the stream that listens on the subject, retrying under the same id until the time is up.

        Raises:
            Busy: The stream is full (`queue.full`).
            Unavailable: No acknowledgement in time; the message may or may not be stored.
            ContractViolation: It is larger than the server takes, or subject or id may not travel.

        """
        return await self._calls.publish(subject, payload, msg_id=msg_id, timeout_s=timeout_s)

    def post(self, subject: str, payload: bytes) -> None:
        """Store in the stream that listens on the subject, without waiting; kept while disconnected.

        Raises:
            Unavailable: Too much waits to be acknowledged.
            ContractViolation: It is larger than the server takes, or the subject may not travel.

        """
        self._posting.post(subject, payload)

    async def posted(self, *, timeout_s: float) -> bool:
        """Wait until all that was posted before is acknowledged or given up; tell whether it is."""
        return await self._posting.posted(timeout_s=timeout_s)

    async def last_of(self, stream: str, subject: str, *, timeout_s: float = 2.5) -> list[Stored]:
        """Return the last message of each subject that a wildcard covers, oldest first; 1,024 subjects at the most.

        Raises:
            Unavailable: No whole answer in time, or at once when there is no such stream.

        """
        return await self._reads.last_of(stream, subject, timeout_s=timeout_s)

    async def since(
        self, stream: str, subject: str, sequence: int, *, limit: int, timeout_s: float = 2.5
    ) -> list[Stored]:
        """Return the messages of subjects that a wildcard covers from a sequence on, oldest first.

        Raises:
            Unavailable: No whole answer in time, or at once when there is no such stream.

        """
        return await self._reads.since(stream, subject, sequence, limit=limit, timeout_s=timeout_s)

    async def schedule(
        self, subject: str, target: str, payload: bytes, *, at_s: float, msg_id: str, timeout_s: float = 2.5
    ) -> None:
        """Have the server send a message to another subject of the same stream at a time of its own clock.

        Raises:
            Unavailable: No acknowledgement in time; the message may or may not be stored.

        """
        check_subject(target)
        at = datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        more = f"{headers.SCHEDULE}: @at {at}\r\n{headers.SCHEDULE_TARGET}: {target}\r\n"
        await self._calls.publish(subject, payload, msg_id=msg_id, timeout_s=timeout_s, more=more)

    async def holds(self, stream: str, subject: str) -> bool:
        """Tell whether a stream has a message on a subject, which may have wildcards; its leader answers."""
        try:
            # It tells no content, so that whoever may look is not for that allowed to read.
            found = await ask(self, f"STREAM.INFO.{stream}", {"subjects_filter": subject}, _INFO)
        except Refused as exc:
            if exc.error.code == NOT_FOUND:
                return False
            raise
        return bool(found.state.subjects)

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Send on core NATS and return the first answer."""
        return await self._calls.ask(subject, payload, timeout_s=timeout_s)

    async def subscribe(self, subject: str, listener: Listener, *, queue: str = "") -> NatsSubscription:
        """Listen on a core subject; renewed by itself after a reconnect. `barrier` tells when it has taken effect."""

        def receive(on: bytes, _reply: bytes, _block: bytes | None, payload: bytes) -> None:
            listener(on.decode(), payload)

        return NatsSubscription(self._client, self._client.listen(subject, receive, queue=queue))

    async def answer(self, subject: str, responder: Responder) -> NatsSubscription:
        """Answer questions on a core subject; an answer is lost while disconnected, and whoever asked runs out of time.

        Raises:
            ContractViolation: The subject may not travel.

        """

        def receive(on: bytes, reply: bytes, _block: bytes | None, payload: bytes) -> None:
            answer = responder(on.decode(), payload)
            if answer is not None and reply:
                self._client.offer(pub(reply.decode(), answer))

        return NatsSubscription(self._client, self._client.listen(subject, receive))

    async def pull(self, stream: str, consumer: str, on_delivery: Callable[[Delivery], None]) -> NatsPull:
        """Start a continuous pull, without credit."""
        return NatsPull(
            self._client,
            self._stop_barrier,
            inbox_prefix=self._inbox_prefix,
            stream=stream,
            consumer=consumer,
            on_delivery=on_delivery,
            heartbeat_s=self._pull_heartbeat_s,
        )

    async def waiting(self, stream: str, consumer: str) -> int:
        """Return how many messages wait for a consumer that were not delivered to anybody.

        Raises:
            Unavailable: No answer in time, or there is no such consumer.

        """
        try:
            found = await ask(self, f"CONSUMER.INFO.{stream}.{consumer}", {}, _WAITING, timeout_s=WAITING_S)
        except Refused as exc:
            raise Unavailable(ErrorCode.BUS_DOWN, exc.message) from exc
        return found.num_pending

    async def may_ask(self, subject: str, *, timeout_s: float) -> bool:
        """Tell whether the server lets this user ask something that changes nothing; whatever the answer is.

        Raises:
            Unavailable: Disconnected.

        """
        try:
            await self._calls.ask(subject, b"", timeout_s=timeout_s)
        except Bug:
            return False
        except Unavailable:
            if not self.connected:
                raise
        return True

    async def may_store(self, subject: str, *, timeout_s: float) -> bool:
        """Tell whether the server lets this user publish to a stream's subject.

        Nothing is stored, because the message is for another stream than the one that gets it.

        Raises:
            Unavailable: Disconnected.

        """
        more = f"{headers.EXPECTED_STREAM}: {_NO_STREAM}\r\n"
        try:
            await self._calls.publish(subject, b"", msg_id=_NO_STREAM, timeout_s=timeout_s, more=more)
        except Bug:
            return False
        except Unavailable:
            if not self.connected:
                raise
        return True

    async def barrier(self, *, timeout_s: float = 2.5) -> None:
        """Return once the server has processed everything sent before, subscriptions included."""
        await self._calls.echo(timeout_s=timeout_s)

    async def close(self) -> None:
        """Send what is unsent, within a second, and end; whoever still waits for an answer gets `Unavailable`.

        What was posted and is not acknowledged is dropped.
        """
        self._up.clear()
        self._calls.close()
        self._posting.close()
        self._reads.close()
        await self._client.close()

    async def _stop_barrier(self) -> None:
        await self._calls.echo(timeout_s=STOP_S)


@asynccontextmanager
async def open_bus(
    url: str,
    *,
    name: str,
    inbox_prefix: str = "_INBOX",
    connect_timeout_s: float = CONNECT_S,
    on_error: Callable[[str], None] | None = None,
    reconnect_wait_s: float = RECONNECT_WAIT_S,
    ping_interval_s: float = PING_INTERVAL_S,
    pull_heartbeat_s: float = pull_nats.HEARTBEAT_S,
) -> AsyncIterator[NatsBus]:
    """Connect, and close at the end.

    Args:
        url: `nats://` or `tls://`, with user and password or a token if need be; several separated by commas.
        name: Shown by the server's monitoring.
        inbox_prefix: Where the answers arrive; private to a user whose permissions say so.
        connect_timeout_s: How long to try. Once connected, a lost connection is tried for ever.
        on_error: Counts errors, by a word of a closed set; see `GuardedConnection`.
        reconnect_wait_s: Pause between two attempts.
        ping_interval_s: A server that leaves two pings unanswered is given up on the third.
        pull_heartbeat_s: A pull that hears nothing for twice as long begins again.

    Raises:
        Unavailable: No server could be reached in time.

    """
    if "ws://" in url or "wss://" in url:
        raise Bug("the message bus is reached by nats:// or tls://, not by WebSocket")
    client = GuardedClient(on_error=on_error)
    first = urlsplit(url.split(",", 1)[0])
    user, password = (unquote(part) if part else None for part in (first.username, first.password))
    # A task of its own: the library loses a cancellation that comes as an attempt ends, and tries for ever.
    opening = asyncio.create_task(
        client.open(
            url.split(","),
            name=name,
            user=user if password else None,
            password=password,
            token=None if password else user,
            reconnect_wait_s=reconnect_wait_s,
            ping_interval_s=ping_interval_s,
        ),
        name="nats-open",
    )
    try:
        await asyncio.wait((opening,), timeout=connect_timeout_s)
    finally:
        if not opening.done():
            await end([opening])
            await client.close()
    if opening.cancelled():
        why = f" ({client.last_error})" if client.last_error else ""
        raise Unavailable(ErrorCode.BUS_DOWN, f"The message bus cannot be reached{why}.")
    try:
        await opening
    except Error as exc:
        raise Unavailable(ErrorCode.BUS_DOWN, f"The message bus cannot be reached ({exc}).") from exc
    bus = NatsBus(client, inbox_prefix=inbox_prefix, pull_heartbeat_s=pull_heartbeat_s)
    try:
        yield bus
    finally:
        await bus.close()
