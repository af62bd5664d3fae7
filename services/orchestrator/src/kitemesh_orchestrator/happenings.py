"""What can happen to a turn and what it may lead to, as `decide` takes and returns it. Pure.

Worker events are taken as they come from the wire; what needs the catalog, a store or a clock arrives here as a value.
"""

from typing import Literal

from msgspec import Struct

from kitemesh_contracts.content import Alternative, FinishReason, Logprob, Step, ToolCall, Usage
from kitemesh_contracts.deltas import TurnOutcome
from kitemesh_contracts.errors import ErrorInfo
from kitemesh_contracts.events import CallsReturned, StepCancelled, StepFailed, StepGenerated, StepTimings
from kitemesh_orchestrator.states import Asked, Limits
from kitemesh_runtime.live_turns import Job


class TurnSeated(Struct, frozen=True, kw_only=True):
    """The turn may run: it keeps no conversation, began one, or holds its lock."""

    ordinal: int


class TurnRefused(Struct, frozen=True, kw_only=True):
    """The turn may not run."""

    error: ErrorInfo


class TurnCancelled(Struct, frozen=True, kw_only=True):
    """Somebody asked for the turn to stop."""

    reason: str


class WorkLost(Struct, frozen=True, kw_only=True):
    """A job or an event of the turn was given up by the bus."""

    error: ErrorInfo


class Ruling(Struct, frozen=True, kw_only=True):
    """What is to become of one call of a step.

    Attributes:
        answer: For a call that is `done` without being run: what the model is told instead.

    """

    asked: Asked
    answer: ErrorInfo | None = None


class StepAnswered(Struct, frozen=True, kw_only=True):
    """A model answered, and its calls were judged.

    Attributes:
        rulings: One for each call, in order.
        hold: The id of the step's hold, should one be needed.
        offered: The model was given tools.

    """

    generated: StepGenerated
    rulings: tuple[Ruling, ...] = ()
    limits: Limits = Limits()
    hold: str = ""
    offered: bool = False


class JobReleased(Struct, frozen=True, kw_only=True):
    """A job was handed back, or its message is gone: it is to be published again."""

    kind: Literal["model", "tool"]
    step: int
    index: int
    attempt: int


class Answered(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one held call.

    Attributes:
        sha256: Of the arguments that were held; they must be the turn's.
        name: Of the tool that was held; it and its version must be the turn's as well.
        arguments: Canonical JSON text that takes their place; `None` keeps them.
        edited_sha256: Of `arguments`.

    """

    call: str
    approved: bool
    sha256: str
    name: str
    version: str
    reason: str = ""
    arguments: str | None = None
    edited_sha256: str = ""


class HoldAnswered(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A hold was decided, wholly or in part, or has run out.

    Attributes:
        answers: Everything decided so far.
        expired: What is not decided by now is denied.
        texts: What the answer adds behind the results.
        gateway: Who waits for what follows; empty when nobody new does.

    """

    hold: str
    answers: tuple[Answered, ...] = ()
    expired: bool = False
    texts: tuple[str, ...] = ()
    gateway: str = ""
    stream: bool = False


Event = (
    TurnSeated
    | TurnRefused
    | TurnCancelled
    | WorkLost
    | StepAnswered
    | StepFailed
    | StepCancelled
    | JobReleased
    | CallsReturned
    | HoldAnswered
)


class Publish(Struct, frozen=True, kw_only=True):
    """Publish a job."""

    job: Job


class OpenHold(Struct, frozen=True, kw_only=True):
    """Store the hold of the current step, before the turn is saved."""

    hold: str


class Pause(Struct, frozen=True, kw_only=True):
    """Close the stream as held."""


class Finish(Struct, frozen=True, kw_only=True):
    """Store the turn and close its stream.

    Attributes:
        attempt: Whose answer counts; 0 when there is none.
        calls: What the caller is to run.
        earlier: The steps before the one that the turn ends with.
        said: The step that it ends with, when it called tools.
        usage: Of the whole turn.
        alternatives: The further choices of the answer, and `logprobs` of its first one's tokens.

    """

    outcome: TurnOutcome
    step: int = 0
    attempt: int = 0
    last: int = 0
    model: str = ""
    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    finish: FinishReason | None = None
    usage: Usage = Usage()
    error: ErrorInfo | None = None
    timings: StepTimings = StepTimings()
    earlier: tuple[Step, ...] = ()
    said: Step | None = None
    alternatives: tuple[Alternative, ...] = ()
    logprobs: tuple[Logprob, ...] = ()


Command = Publish | OpenHold | Pause | Finish
