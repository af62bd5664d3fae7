"""The continuous pull: one subscription, and requests for as many deliveries as there is credit, before it runs dry.

The bound: never more deliveries than credit was given, a renewal included; credit taken back counts until the request
that asked for it has run out. Every delivery counts against the credit whichever request brought it; a request asks
only for credit that no other stands for; a renewal mutes the old inbox and waits for a message to itself, after which
nothing of an old request can arrive; and on a new connection old requests have no inbox. What the server had already
taken up for a muted inbox is delivered again after the ack wait.
"""

import asyncio
import itertools
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import structlog

from kitemesh_contracts.errors import Unavailable
from kitemesh_contracts.topology import ORCHESTRATOR_ACK_WAIT_S
from kitemesh_runtime.bus import Delivery
from kitemesh_runtime.client_nats import GuardedClient
from kitemesh_runtime.delivery_nats import NatsDelivery
from kitemesh_runtime.wire_nats import header_of, pub, status_of, status_text

EXPIRES_S: Final = ORCHESTRATOR_ACK_WAIT_S - 1.0
"""Shorter than every ack wait: what is delivered again does not go to a process that has stood still since."""
HEARTBEAT_S: Final = 1.5
QUIET_BEATS: Final = 2
BACKOFF_S: Final = 0.1
BACKOFF_MAX_S: Final = 2.0
_NS: Final = 1_000_000_000

_IDLE: Final = 100
_EXPIRED: Final = 408
_PENDING: Final = "Nats-Pending-Messages"

log = structlog.get_logger()

State = Literal["open", "waiting", "renewing", "paused", "stopped"]
"""Requests are sent only when `open`; `waiting` is a backoff, `renewing` waits for the message to oneself."""


class NatsPull:
    """A pull from one consumer."""

    def __init__(
        self,
        client: GuardedClient,
        barrier: Callable[[], Awaitable[None]],
        *,
        inbox_prefix: str,
        stream: str,
        consumer: str,
        on_delivery: Callable[[Delivery], None],
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        """Subscribe at once; the first request waits for credit.

        Args:
            client: The connection.
            barrier: Returns once the server has processed everything sent before.
            inbox_prefix: Where inboxes begin.
            stream: Stream name.
            consumer: Durable pull consumer of that stream.
            on_delivery: Called in the read loop; it must not block.
            heartbeat_s: How often the server says that it is still there when it has no message.

        """
        self._client = client
        self._barrier = barrier
        self._names = {"stream": stream, "consumer": consumer}
        self._on_delivery = on_delivery
        self._loop = asyncio.get_running_loop()
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        # The server wants a request to last for two heartbeats at the least.
        expires_s = max(EXPIRES_S, 2 * heartbeat_s)
        self._rest = {"expires": int(expires_s * _NS), "idle_heartbeat": int(heartbeat_s * _NS)}
        self._heartbeat_s = heartbeat_s
        self._inboxes = (f"{inbox_prefix}.{secrets.token_hex(8)}.{n}" for n in itertools.count(1))
        self._credit = 0
        self._outstanding = 0
        self._refill_due = False
        self._heard = False
        self._quiet = 0
        self._backoff_s = BACKOFF_S
        self._old: list[bytes] = []
        self._state: State = "open"
        self._listen()
        client.on_regained(self._regained)
        self._timer = self._loop.call_later(heartbeat_s, self._tick)
        self._backoff: asyncio.TimerHandle | None = None

    @property
    def credit(self) -> int:
        """Deliveries that are still allowed."""
        return self._credit

    def add_credit(self, n: int) -> None:
        """Allow `n` more deliveries. Requests go out at the end of this turn of the loop."""
        self.set_credit(self._credit + n)

    def set_credit(self, n: int) -> None:
        """Allow `n` deliveries from now on. What is asked for already may come until its request runs out."""
        self._credit = n
        if n > self._outstanding:
            self._refill_soon()

    def pause(self) -> None:
        """Leave further messages in the queue, the credit unspent. Deliveries already under way still arrive."""
        if self._state in ("stopped", "paused"):
            return
        self._state = "paused"
        self._end_backoff()
        self._client.mute(self._sid)

    def resume(self) -> None:
        """Pull again, with what credit there is."""
        if self._state == "paused":
            self._renew()

    async def stop(self) -> None:
        """Take the credit back, and return when no delivery can arrive any more."""
        if self._state == "stopped":
            return
        self._state = "stopped"
        self._client.off_regained(self._regained)
        self._timer.cancel()
        self._end_backoff()
        self._client.mute(self._sid)
        try:
            await self._barrier()
        except Unavailable:
            log.info("pull.stopped_unconfirmed", **self._names)
        for sid in (*self._old, self._sid):
            self._client.forget(sid)

    # Requests

    def _refill_soon(self) -> None:
        if not self._refill_due:
            self._refill_due = True
            self._loop.call_soon(self._refill)

    def _refill(self) -> None:
        """Ask for the credit that no request stands for, once that is at least half of it."""
        self._refill_due = False
        wanted = self._credit - self._outstanding
        if self._state != "open" or wanted <= 0 or 2 * self._outstanding > self._credit:
            return
        body = json.dumps({"batch": wanted, **self._rest}).encode()
        if self._client.offer(pub(self._subject, body, self._inbox)):
            self._outstanding += wanted

    def _listen(self) -> None:
        self._inbox = next(self._inboxes)
        self._own = self._inbox.encode()
        self._sid = self._client.listen(self._inbox, self._receive, renew=False)

    # What arrives

    def _receive(self, subject: bytes, reply: bytes, block: bytes | None, payload: bytes) -> None:
        self._heard = True
        if reply:
            self._credit = max(0, self._credit - 1)
            self._outstanding -= 1
            if self._backoff_s != BACKOFF_S:
                self._backoff_s = BACKOFF_S
            if 2 * self._outstanding <= self._credit:
                self._refill_soon()
            self._on_delivery(NatsDelivery(self._client, subject, reply, payload))
        elif block is not None:
            self._status(block)
        elif subject == self._own and self._state == "renewing":
            self._renewed()

    def _status(self, block: bytes) -> None:
        status = status_of(block)
        if status == _IDLE:
            self._backoff_s = BACKOFF_S
            return
        unspent = header_of(block, _PENDING)
        if status == _EXPIRED and unspent is not None:
            self._outstanding -= int(unspent)
            self._refill_soon()
        elif self._state == "open":
            self._state = "waiting"
            log.warning(
                "pull.interrupted", status=status, reason=status_text(block), retry_s=self._backoff_s, **self._names
            )
            self._backoff = self._loop.call_later(self._backoff_s, self._renew)
            self._backoff_s = min(2 * self._backoff_s, BACKOFF_MAX_S)

    # Renewal

    def _tick(self) -> None:
        expecting = self._state == "renewing" or (self._state == "open" and self._outstanding > 0)
        self._quiet = self._quiet + 1 if expecting and not self._heard else 0
        self._heard = False
        if self._quiet >= QUIET_BEATS:
            log.warning("pull.silent", outstanding=self._outstanding, **self._names)
            self._renew()
        else:
            self._refill_soon()
        self._timer = self._loop.call_later(self._heartbeat_s, self._tick)

    def _renew(self) -> None:
        """Replace the inbox, so that old requests die, and learn when nothing of theirs can arrive any more."""
        self._quiet = 0
        self._client.mute(self._sid)
        self._old.append(self._sid)
        self._listen()
        self._state = "renewing"
        self._client.offer(pub(self._inbox, b""))

    def _renewed(self) -> None:
        for sid in self._old:
            self._client.forget(sid)
        self._old.clear()
        self._outstanding = 0
        self._state = "open"
        self._refill_soon()

    def _regained(self) -> None:
        """Begin again on a new connection: what the old one had asked for cannot arrive here."""
        if self._state == "paused":
            return
        self._end_backoff()
        self._backoff_s = BACKOFF_S
        self._quiet = 0
        self._old.append(self._sid)
        self._listen()
        self._renewed()

    def _end_backoff(self) -> None:
        if self._backoff is not None:
            self._backoff.cancel()
            self._backoff = None
