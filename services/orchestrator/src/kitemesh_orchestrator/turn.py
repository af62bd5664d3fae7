"""What a turn does next: `decide(state, event)`, a pure function over values.

It never raises, reads no clock and makes no ids. A late, duplicate or foreign event returns the state unchanged and no
commands, so that every message may be delivered any number of times.
"""

from typing import Final, NamedTuple, assert_never

from msgspec import Struct

from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.content import FinishReason, Usage
from kitemesh_contracts.deltas import TurnOutcome
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_contracts.events import (
    CallsReturned,
    StepCancelled,
    StepFailed,
    StepGenerated,
    StepReleased,
    StepTimings,
)

MAX_ATTEMPTS: Final = 6
"""A step that was handed back or broke this often fails its turn."""


class Accepted(Struct, frozen=True, kw_only=True, tag="accepted"):
    """Nothing has been done yet."""

    start: StartTurn


class Generating(Struct, frozen=True, kw_only=True, tag="generating"):
    """A model is asked.

    Attributes:
        ordinal: The turn's number within its conversation; 0 when none is kept.
        attempt: The newest attempt that was published.

    """

    start: StartTurn
    ordinal: int
    step: int
    attempt: int


class Ended(Struct, frozen=True, kw_only=True, tag="ended"):
    """Nothing will be done any more."""

    start: StartTurn


State = Accepted | Generating | Ended


class TurnSeated(Struct, frozen=True, kw_only=True):
    """The turn may run: it keeps no conversation, began one, or holds its lock."""

    ordinal: int


class TurnRefused(Struct, frozen=True, kw_only=True):
    """The turn may not run."""

    error: ErrorInfo


class TurnCancelled(Struct, frozen=True, kw_only=True):
    """Somebody asked for the turn to stop before anything ran."""

    reason: str


class WorkLost(Struct, frozen=True, kw_only=True):
    """A job or an event of the turn was given up by the bus."""

    error: ErrorInfo


Event = (
    TurnSeated
    | TurnRefused
    | TurnCancelled
    | WorkLost
    | StepGenerated
    | StepFailed
    | StepCancelled
    | StepReleased
    | CallsReturned
)


class CallModel(Struct, frozen=True, kw_only=True):
    """Publish a model job."""

    step: int
    attempt: int


class Finish(Struct, frozen=True, kw_only=True):
    """Store the turn and close its stream.

    Attributes:
        attempt: Whose answer counts; 0 when there is none.

    """

    outcome: TurnOutcome
    step: int = 0
    attempt: int = 0
    last: int = 0
    model: str = ""
    text: str = ""
    reasoning: str = ""
    finish: FinishReason | None = None
    usage: Usage = Usage()
    error: ErrorInfo | None = None
    timings: StepTimings = StepTimings()


Command = CallModel | Finish


class Decision(NamedTuple):
    """The next state and what must be published because of it."""

    state: State
    commands: tuple[Command, ...] = ()


def decide(state: State, event: Event) -> Decision:
    """Return what follows from an event."""
    match state:
        case Accepted():
            return _decide_accepted(state, event)
        case Generating():
            return _decide_generating(state, event)
        case Ended():
            return Decision(state)
        case _:
            assert_never(state)


def _end(state: Accepted | Generating, finish: Finish) -> Decision:
    return Decision(Ended(start=state.start), (finish,))


def _cancelled(reason: str) -> ErrorInfo:
    return ErrorInfo(code=ErrorCode.TURN_CANCELLED, message=f"The turn was cancelled: {reason}")


def _decide_accepted(state: Accepted, event: Event) -> Decision:
    match event:
        case TurnSeated():
            running = Generating(start=state.start, ordinal=event.ordinal, step=1, attempt=1)
            return Decision(running, (CallModel(step=1, attempt=1),))
        case TurnRefused() | WorkLost():
            return _end(state, Finish(outcome="failed", error=event.error))
        case TurnCancelled():
            return _end(state, Finish(outcome="cancelled", error=_cancelled(event.reason)))
        case StepGenerated() | StepFailed() | StepCancelled() | StepReleased() | CallsReturned():
            return Decision(state)
        case _:
            assert_never(event)


def _decide_generating(state: Generating, event: Event) -> Decision:
    match event:
        case StepGenerated() | StepFailed() | StepCancelled() if event.step == state.step:
            return _end(state, _finish(event))
        case StepReleased() if event.step == state.step and event.attempt >= state.attempt:
            return _again(state, event)
        case WorkLost():
            return _end(state, Finish(outcome="failed", step=state.step, error=event.error))
        case TurnCancelled():
            return _end(state, Finish(outcome="cancelled", step=state.step, error=_cancelled(event.reason)))
        case (
            StepGenerated()
            | StepFailed()
            | StepCancelled()
            | StepReleased()
            | CallsReturned()
            | TurnSeated()
            | TurnRefused()
        ):
            return Decision(state)
        case _:
            assert_never(event)


def _again(state: Generating, event: StepReleased) -> Decision:
    attempt = event.attempt + 1
    if attempt > MAX_ATTEMPTS:
        error = ErrorInfo(code=ErrorCode.TURN_EXHAUSTED, message="The model call was handed back too often")
        return _end(state, Finish(outcome="failed", step=state.step, attempt=event.attempt, error=error))
    again = Generating(start=state.start, ordinal=state.ordinal, step=state.step, attempt=attempt)
    return Decision(again, (CallModel(step=state.step, attempt=attempt),))


def _finish(event: StepGenerated | StepFailed | StepCancelled) -> Finish:
    """Say how a turn of one step ends; a call of a tool that was never offered is the model's failure."""
    match event:
        case StepGenerated() if event.calls:
            return _close(
                event,
                "failed",
                ErrorInfo(code=ErrorCode.TOOL_UNKNOWN, message="The model called a tool it was not given"),
            )
        case StepGenerated():
            return _close(event, "completed", None)
        case StepFailed():
            return _close(event, "failed", event.error)
        case StepCancelled():
            return _close(event, "cancelled", _cancelled(event.reason))
        case _:
            assert_never(event)


def _close(event: StepGenerated | StepFailed | StepCancelled, outcome: TurnOutcome, error: ErrorInfo | None) -> Finish:
    return Finish(
        outcome=outcome,
        step=event.step,
        attempt=event.attempt,
        last=event.last,
        model=event.model,
        text=event.text,
        reasoning=event.reasoning if isinstance(event, StepGenerated) else "",
        finish=event.finish if isinstance(event, StepGenerated) and error is None else None,
        usage=event.usage,
        error=error,
        timings=event.timings,
    )
