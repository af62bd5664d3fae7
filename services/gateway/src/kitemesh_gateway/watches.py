"""One open turn as this gateway watches it: when it was last heard of, and when to look, give up, or settle. Pure.

Time is passed in. A watch says what is due; the relay does it.
"""

from typing import Final, Literal, Protocol

from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.content import AssistantMessage
from kitemesh_contracts.deltas import Delta, Frame, TurnEnded
from kitemesh_contracts.errors import ErrorCode, ErrorInfo, KitemeshError
from kitemesh_gateway.attempts import Shown
from kitemesh_gateway.dialects.base import Place
from kitemesh_runtime.stores import TurnRecord

SETTLE_S: Final = 1.0
"""How long the closing event waits for frames that it overtook."""
LOOK_S: Final = 15.0
"""Silence after which the stored turn is looked for."""
LOST_S: Final = 45.0
"""Silence after which a turn that somebody worked on, or whose closing event may be gone, is given up."""
BUDGET_MARGIN_S: Final = 5.0
"""The turn's own services end it by its budget; only when they did not, the gateway does."""

TIMED_OUT: Final = ErrorInfo(code=ErrorCode.TURN_TIMEOUT, message="The turn took longer than it may")
LOST: Final = ErrorInfo(code=ErrorCode.TURN_LOST, message="The turn was lost; its answer cannot be completed")

Due = Literal["settle", "look", "timed_out", "lost"]


class TurnFailed(KitemeshError):
    """A turn ended without a complete answer before anything of it was sent."""

    def __init__(self, error: ErrorInfo) -> None:
        super().__init__(error.code, error.message, retry_after_s=error.retry_after_s)


class Sink(Protocol):
    """Where a turn's answer goes. Called in the read loop: it neither blocks nor raises."""

    def show(self, place: Place, items: tuple[Delta, ...]) -> None:
        """Show more."""

    def end(self, ended: TurnEnded, rest: tuple[Delta, ...]) -> None:
        """Complete the answer; `rest` is what was not shown."""

    def fail(self, place: Place, error: ErrorInfo) -> None:
        """Say that there is no complete answer."""


class Watch:
    """An open turn.

    Attributes:
        deadline_s: When it is ended from here, whatever happens.
        looking: The stored turn is being looked for at this moment.
        renewed_s: When the lock of its conversation was last renewed, or taken.

    """

    __slots__ = (
        "_cut_off",
        "_heard",
        "_heard_at_s",
        "_looked_at_s",
        "_missed",
        "_settle_at_s",
        "_worked_on",
        "deadline_s",
        "ended",
        "looking",
        "renewed_s",
        "shown",
        "sink",
        "start",
    )

    def __init__(self, start: StartTurn, sink: Sink, now_s: float) -> None:
        self.start: Final = start
        self.sink: Final = sink
        self.shown: Final = Shown()
        self.ended: TurnEnded | None = None
        self.looking = False
        self.deadline_s: Final = now_s + start.budget_s + BUDGET_MARGIN_S
        self.renewed_s = now_s
        self._heard = self._worked_on = self._missed = self._cut_off = False
        self._heard_at_s = self._looked_at_s = now_s
        self._settle_at_s = 0.0

    def on_frame(self, step: int, attempt: int, frame: Frame) -> bool:
        """Take a frame; tell whether the turn can be settled now."""
        self._heard = self._worked_on = True
        items = self.shown.take(step, attempt, frame)
        if items:
            self.sink.show(Place(step, attempt, frame.n), items)
        return self.ended is not None and not self.shown.awaits(self.ended)

    def on_ended(self, ended: TurnEnded, now_s: float) -> bool:
        """Take the closing event; tell whether the turn can be settled now."""
        self.ended = ended
        self._settle_at_s = now_s + SETTLE_S
        return not (self.start.stream and self.shown.awaits(ended))

    def on_reconnect(self) -> None:
        """Note that something may have been missed."""
        self._missed = self._cut_off = True

    def due(self, now_s: float) -> Due | None:
        """Say what is to be done now; called at every tick."""
        if self.ended is not None:
            return "settle" if now_s >= self._settle_at_s else None
        if now_s >= self.deadline_s:
            return "timed_out"
        if self._heard:
            # Read at the tick rather than at each frame: the clock costs more than the flag.
            self._heard = False
            self._heard_at_s = now_s
        stored = self.start.conversation is not None
        if stored and not self.looking and (self._missed or now_s >= self._last_sign_s() + LOOK_S):
            self._missed = False
            self._looked_at_s = now_s
            return "look"
        mortal = self._worked_on or (self._cut_off and not stored)
        return "lost" if mortal and now_s >= self._heard_at_s + LOST_S else None

    def place_after(self) -> Place:
        """Return the place that follows what was shown."""
        return Place(self.shown.step, self.shown.attempt, self.shown.last + 1)

    def _last_sign_s(self) -> float:
        return max(self._heard_at_s, self._looked_at_s)


def ended_from(record: TurnRecord) -> TurnEnded:
    """Return the closing event of a stored turn; its attempt is not known any more."""
    answer = record.answer or AssistantMessage()
    return TurnEnded(
        turn=record.id,
        tenant=record.tenant,
        outcome=record.status,
        step=0,
        attempt=0,
        model=record.served_by,
        text=answer.text,
        reasoning=answer.reasoning,
        calls=answer.calls,
        finish=record.finish,
        usage=record.usage,
        error=record.error,
        timings=record.timings,
    )
