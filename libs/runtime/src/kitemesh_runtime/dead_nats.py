"""The dead-letter mover: a message that nobody could handle becomes a reference in `KM_DEAD` and a failed turn.

It reads the server's advisories. A message delivered too often is still in its stream and is deleted last, so a mover
that dies half-way is repeated; a terminated one is gone from its work queue, and its subject leads the reason.
It does not know how a turn is failed: that is injected.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from kitemesh_contracts import headers, subjects, topology
from kitemesh_contracts.codec import decode, encode
from kitemesh_contracts.errors import ContractViolation, Unavailable
from kitemesh_contracts.ids import is_id
from kitemesh_runtime.bus import Bus, Delivery
from kitemesh_runtime.jetstream_nats import NOT_FOUND, Refused, ask
from kitemesh_runtime.metrics import DEAD_LETTERS
from kitemesh_runtime.wire_nats import header_of
from kitemesh_runtime.worker import Done, Gate, Observe, Outcome, Worker

WORK_STREAMS: Final = frozenset({topology.TURN, topology.CONTROL, topology.EVENT, topology.MODEL, topology.TOOL})
SLOTS: Final = 8
HEARTBEAT_S: Final = topology.ORCHESTRATOR_ACK_WAIT_S / 3
FAIL_TRIES: Final = 5
"""Deliveries of one advisory that may fail to fail its turn; then the message is buried without that."""

FailTurn = Callable[[str, str, bytes, str], Awaitable[None]]
"""Takes stream, subject, data (empty when the message is gone) and reason; may be called again for the same message."""

for _stream in WORK_STREAMS:
    for _how in ("terminated", "exhausted"):
        DEAD_LETTERS.labels(_stream, _how)

log = structlog.get_logger()


class DeadLetter(Struct, frozen=True, kw_only=True, tag="dead.letter"):
    """A reference to a message that was given up; never its content.

    Attributes:
        sequence: Where it stood in its stream.
        msg_id: Empty when it had none, or was gone already.
        deliveries: How often it was delivered.
        at: When the server gave it up, RFC 3339.

    """

    stream: str
    consumer: str
    sequence: int
    subject: str
    msg_id: str
    deliveries: int
    reason: str
    at: str


class _Advisory(Struct, frozen=True, kw_only=True):
    stream: str
    consumer: str
    stream_seq: int
    deliveries: int
    timestamp: str
    reason: str = ""


class _Message(Struct, frozen=True, kw_only=True):
    subject: str
    data: bytes = b""
    hdrs: bytes = b""


class _MessageAnswer(Struct, frozen=True, kw_only=True):
    message: _Message


class _Deleted(Struct, frozen=True, kw_only=True):
    success: bool


_ADVISORY: Final = msgspec.json.Decoder(_Advisory)
_MESSAGE: Final = msgspec.json.Decoder(_MessageAnswer)
_DELETED: Final = msgspec.json.Decoder(_Deleted)


class DeadLetterMover:
    """Handles one advisory at a time; every step may be repeated."""

    def __init__(self, bus: Bus, fail_turn: FailTurn, *, streams: Collection[str] = WORK_STREAMS) -> None:
        """Take where letters go, how turns are failed, and the streams to look after; others are left alone."""
        self._bus = bus
        self._fail_turn = fail_turn
        self._streams = frozenset(streams)

    async def on_advisory(self, delivery: Delivery) -> Outcome:
        """Store the reference, fail the turn, then delete the message.

        Raises:
            Unavailable: The bus, or whatever failing a turn needs, is down.

        """
        try:
            advisory = decode(_ADVISORY, delivery.data)
        except ContractViolation as exc:
            # Terminating it would only bring an advisory about an advisory.
            log.error("advisory.unreadable", subject=delivery.subject, reason=exc.message)  # noqa: TRY400
            return Done()
        if advisory.stream not in self._streams:
            return Done()
        message = await self._find(advisory)
        if message is None and not delivery.subject.startswith(topology.ADVISORY_TERMINATED):
            return Done()  # moved before, or finished late
        letter = _letter(advisory, message)
        await self._store(letter)
        try:
            await self._fail_turn(letter.stream, letter.subject, message.data if message else b"", letter.reason)
        except Unavailable:
            raise
        except ContractViolation as exc:
            log.error("delivery.unfailable", stream=letter.stream, subject=letter.subject, reason=exc.message)  # noqa: TRY400
        except Exception:
            if delivery.deliveries < FAIL_TRIES:
                raise
            # It comes back for ever, and a few like it would take every slot.
            log.exception("delivery.unfailable", stream=letter.stream, subject=letter.subject)
        terminated = delivery.subject.startswith(topology.ADVISORY_TERMINATED)
        DEAD_LETTERS.labels(letter.stream, "terminated" if terminated else "exhausted").inc()
        if message is not None:
            body = {"seq": letter.sequence, "no_erase": True}
            await ask(self._bus, f"STREAM.MSG.DELETE.{letter.stream}", body, _DELETED)
        log.error("delivery.buried", **msgspec.structs.asdict(letter))
        return Done()

    async def _find(self, advisory: _Advisory) -> _Message | None:
        try:
            body = {"seq": advisory.stream_seq}
            return (await ask(self._bus, f"STREAM.MSG.GET.{advisory.stream}", body, _MESSAGE)).message
        except Refused as exc:
            if exc.error.code == NOT_FOUND:
                return None
            raise

    async def _store(self, letter: DeadLetter) -> None:
        turn = subjects.last_token(letter.subject)
        address = subjects.dead(letter.stream, turn if is_id(turn) else "unknown")
        # The stream may have been made anew since, so the sequence alone is no name.
        msg_id = f"dead:{letter.stream}:{letter.sequence}:{letter.msg_id or letter.at}"
        await self._bus.send(address, encode(letter), msg_id=msg_id)


def dead_letter_workers(
    bus: Bus,
    fail_turn: FailTurn,
    *,
    streams: Collection[str] = WORK_STREAMS,
    gate: Gate | None = None,
    observe: Observe | None = None,
) -> list[Worker]:
    """Return the worker that moves dead letters, over both kinds of advisory."""
    mover = DeadLetterMover(bus, fail_turn, streams=streams)
    consumers = ["dead-exhausted", "dead-terminated"]
    return [
        Worker(
            bus,
            topology.DEAD,
            consumers,
            SLOTS,
            mover.on_advisory,
            name="dead-letters",
            heartbeat_s=HEARTBEAT_S,
            gate=gate,
            observe=observe,
        ),
    ]


def _letter(advisory: _Advisory, message: _Message | None) -> DeadLetter:
    reason = advisory.reason
    subject = message.subject if message else ""
    head, _, rest = reason.partition(" ")
    if head.startswith(f"{subjects.ROOT}."):
        subject, reason = subject or head, rest
    return DeadLetter(
        stream=advisory.stream,
        consumer=advisory.consumer,
        sequence=advisory.stream_seq,
        subject=subject,
        msg_id=(header_of(message.hdrs, headers.MSG_ID) or "") if message else "",
        deliveries=advisory.deliveries,
        reason=reason or f"delivered {advisory.deliveries} times without an answer",
        at=advisory.timestamp,
    )
