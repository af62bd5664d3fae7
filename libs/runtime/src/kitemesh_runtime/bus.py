"""The bus as services see it. The one adapter is `bus_nats`; its tests run against the real server.

Delivery is at least once. A handler that must not run twice makes itself idempotent by the message id or by the
store, never by the acknowledgement.
"""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, Protocol


class Receipt(NamedTuple):
    """A stream's answer to a publication.

    Attributes:
        sequence: Where the message stands in the stream.
        duplicate: The message id was known; nothing was stored again.

    """

    sequence: int
    duplicate: bool


class Stored(NamedTuple):
    """A message as a stream keeps it."""

    sequence: int
    subject: str
    payload: bytes


class Delivery(Protocol):
    """One delivery of one message from a work queue. Every answer is fire-and-forget and at most the first counts."""

    subject: str
    data: bytes

    @property
    def deliveries(self) -> int:
        """How often the message was delivered, this time included."""

    @property
    def sequence(self) -> int:
        """Where the message stands in its stream."""

    @property
    def published_at_s(self) -> float:
        """When the stream stored the message, epoch seconds of the server's clock."""

    @property
    def pending(self) -> int:
        """How many messages were left for its consumer that had not been delivered to anybody."""

    def ack(self) -> None:
        """Remove the message from the queue."""

    def in_progress(self) -> None:
        """Put off redelivery by one more ack wait."""

    def nak(self, delay_s: float = 0.0) -> None:
        """Ask for redelivery; counts as a delivery."""

    def term(self, reason: str) -> None:
        """Give the message up: the server sends the advisory that the dead-letter mover reads."""


class Pull(Protocol):
    """A continuous pull from one consumer; deliveries arrive at the callback while there is credit."""

    def add_credit(self, n: int) -> None:
        """Allow `n` more deliveries; each delivery uses one."""

    def set_credit(self, n: int) -> None:
        """Allow `n` deliveries from now on; when that is fewer, those asked for already may come, for some seconds."""

    def pause(self) -> None:
        """Leave further messages in the queue, the credit unspent. Deliveries already under way still arrive."""

    def resume(self) -> None:
        """Pull again, with what credit there is."""

    async def stop(self) -> None:
        """Take the credit back. Deliveries already under way may still arrive, for a moment."""


class Subscription(Protocol):
    """Interest in a core subject."""

    async def stop(self) -> None:
        """End the interest."""


POST_S: Final = 30.0
"""How long a posted message is sent again."""

Listener = Callable[[str, bytes], None]
"""Called in the read loop with subject and payload: it must neither block nor raise."""

Responder = Callable[[str, bytes], bytes | None]
"""Called in the read loop with subject and question, it returns the answer, or `None` to stay silent."""

Waker = Callable[[], Awaitable[None]]


class Bus(Protocol):
    """Publish, subscribe and pull. Every method raises `Unavailable` (`bus.down`) when the server does not answer."""

    @property
    def connected(self) -> bool:
        """Whether the connection stands at this moment."""

    async def wait_connected(self, timeout_s: float) -> None:
        """Return once connected, or raise `Unavailable`."""

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call back after every reconnect."""

    def publish(self, subject: str, payload: bytes) -> None:
        """Send on core NATS: no acknowledgement, lost while disconnected."""

    async def send(self, subject: str, payload: bytes, *, msg_id: str, timeout_s: float = 2.5) -> Receipt:
        """Store in the stream that listens on the subject, retrying under the same id until the time is up.

        Raises:
            Busy: The stream is full (`queue.full`).
            Unavailable: No acknowledgement in time; the message may or may not be stored.

        """

    def post(self, subject: str, payload: bytes) -> None:
        """Store in the stream that listens on the subject, without waiting.

        It goes out at once, for who listens as well, and again until it is acknowledged or `POST_S` have passed; so a
        stream may hold it twice, and what was posted after it may come before it. Made for frames, whose subjects and
        numbers tell them apart.

        Raises:
            Unavailable: Too much waits to be acknowledged.

        """

    async def posted(self, *, timeout_s: float) -> bool:
        """Wait until everything posted is acknowledged or given up; tell whether it is."""

    async def last_of(self, stream: str, subject: str, *, timeout_s: float = 2.5) -> list[Stored]:
        """Return the last message of each subject that a wildcard covers, oldest first; 1,024 subjects at the most."""

    async def since(
        self, stream: str, subject: str, sequence: int, *, limit: int, timeout_s: float = 2.5
    ) -> list[Stored]:
        """Return the messages of subjects that a wildcard covers from a sequence on, oldest first."""

    async def schedule(
        self, subject: str, target: str, payload: bytes, *, at_s: float, msg_id: str, timeout_s: float = 2.5
    ) -> None:
        """Have a message sent to another subject of the same stream at a time, epoch seconds of the server's clock.

        It is kept on `subject` until then, where a later one replaces it. A hint: it may be lost, or come late.
        """

    async def holds(self, stream: str, subject: str) -> bool:
        """Tell whether a stream has a message on a subject, which may have wildcards."""

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Send on core NATS and return the first answer."""

    async def subscribe(self, subject: str, listener: Listener, *, queue: str = "") -> Subscription:
        """Listen on a core subject; renewed by itself after a reconnect."""

    async def answer(self, subject: str, responder: Responder) -> Subscription:
        """Answer questions on a core subject; renewed by itself after a reconnect.

        Everybody who answers a subject hears every question, and whoever asks takes the first answer.
        """

    async def pull(self, stream: str, consumer: str, on_delivery: Callable[[Delivery], None]) -> Pull:
        """Start a continuous pull, without credit."""

    async def waiting(self, stream: str, consumer: str) -> int:
        """Return how many messages wait for a consumer that were not delivered to anybody."""

    async def barrier(self, *, timeout_s: float = 2.5) -> None:
        """Return once the server has processed everything sent before, subscriptions included."""
