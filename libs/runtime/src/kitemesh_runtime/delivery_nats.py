"""One delivery from JetStream: its facts are in the reply subject, read when asked for; answers are publications."""

from typing import Final, NamedTuple

from kitemesh_contracts.errors import ContractViolation
from kitemesh_runtime.client_nats import GuardedClient

_NS: Final = 1_000_000_000
_PLAIN_TOKENS: Final = 9
_DOMAIN_TOKENS: Final = (11, 12)


class AckAddress(NamedTuple):
    """What an ack subject says."""

    stream: str
    consumer: str
    deliveries: int
    sequence: int
    published_at_ns: int
    pending: int


def parse_ack(reply: bytes) -> AckAddress:
    """Read `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<deliveries>.<sequence>.<…>.<time>.<pending>[.<random>]`.

    Raises:
        ContractViolation: It is no ack subject.

    """
    tokens = reply.split(b".")
    count = len(tokens)
    if tokens[:2] != [b"$JS", b"ACK"] or (count != _PLAIN_TOKENS and count not in _DOMAIN_TOKENS):
        raise ContractViolation("not an ack subject")
    stream, consumer, deliveries, sequence, _, time_ns, pending = (
        tokens[2:9] if count == _PLAIN_TOKENS else tokens[4:11]
    )
    try:
        return AckAddress(
            stream.decode(), consumer.decode(), int(deliveries), int(sequence), int(time_ns), int(pending)
        )
    except ValueError as exc:
        raise ContractViolation("not an ack subject") from exc


class NatsDelivery:
    """A message from a work queue. An answer given while disconnected is lost, and the message delivered again."""

    __slots__ = ("_address", "_answered", "_client", "_reply", "data", "subject")

    def __init__(self, client: GuardedClient, subject: bytes, reply: bytes, data: bytes) -> None:
        self.subject = subject.decode()
        self.data = data
        self._client = client
        self._reply = reply
        self._answered = False
        self._address: AckAddress | None = None

    @property
    def address(self) -> AckAddress:
        """What the ack subject says; read once."""
        if self._address is None:
            self._address = parse_ack(self._reply)
        return self._address

    @property
    def deliveries(self) -> int:
        """How often the message was delivered, this time included."""
        return self.address.deliveries

    @property
    def sequence(self) -> int:
        """Where the message stands in its stream."""
        return self.address.sequence

    @property
    def published_at_s(self) -> float:
        """When the stream stored the message, epoch seconds of the server's clock."""
        return self.address.published_at_ns / _NS

    @property
    def pending(self) -> int:
        """How many messages were left for its consumer that had not been delivered to anybody."""
        return self.address.pending

    def ack(self) -> None:
        """Remove the message from the queue."""
        if not self._answered:
            self._answered = True
            self._client.offer(b"PUB %b 4\r\n+ACK\r\n" % self._reply)

    def in_progress(self) -> None:
        """Put off redelivery by one more ack wait."""
        if not self._answered:
            self._client.offer(b"PUB %b 4\r\n+WPI\r\n" % self._reply)

    def nak(self, delay_s: float = 0.0) -> None:
        """Ask for redelivery; counts as a delivery."""
        self._finish(b'-NAK {"delay": %d}' % int(delay_s * _NS) if delay_s > 0 else b"-NAK")

    def term(self, reason: str) -> None:
        """Give the message up; the reason travels in the server's advisory."""
        self._finish(b"+TERM " + reason.encode())

    def _finish(self, answer: bytes) -> None:
        if not self._answered:
            self._answered = True
            self._client.offer(b"PUB %b %d\r\n%b\r\n" % (self._reply, len(answer), answer))
