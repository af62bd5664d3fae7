"""What a gateway relays while a turn runs: frames of visible changes, then one closing event.

Frames are lossy for a classic turn and numbered so that a loss is seen; a durable turn's are captured, to be read
again. Each attempt tells its step from the beginning, whatever an attempt before it has told. The closing event carries
the whole answer, so a caller that does not stream needs nothing else.
"""

from typing import Final, Literal

from msgspec import Struct

from kitemesh_contracts.commands import Mark
from kitemesh_contracts.content import Alternative, CallResult, FinishReason, Logprob, Step, ToolCall, Usage
from kitemesh_contracts.errors import ErrorInfo
from kitemesh_contracts.events import StepTimings

TurnOutcome = Literal["completed", "failed", "cancelled"]
"""How a turn ends."""

Closing = Literal["completed", "failed", "cancelled", "held"]
"""How a stream ends; a turn whose stream ended `held` goes on when its hold is answered."""


class TextDelta(Struct, frozen=True, kw_only=True, tag="text", omit_defaults=True):
    """More of the answer.

    Attributes:
        logprobs: Of its tokens, where they were asked for.

    """

    text: str
    logprobs: tuple[Logprob, ...] = ()


class ReasoningDelta(Struct, frozen=True, kw_only=True, tag="reasoning"):
    """More of the model's reasoning, where the provider shows it."""

    text: str


class CallDelta(Struct, frozen=True, kw_only=True, tag="call", omit_defaults=True):
    """More of a tool call.

    Attributes:
        index: The call's place among those of its step.
        id: Given with the first piece of the call only, as is `name`.
        arguments: The next piece of the JSON text.

    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class ResultDelta(Struct, frozen=True, kw_only=True, tag="result", omit_defaults=True):
    """What came of a call of the step before: told in front of everything that its step says.

    Attributes:
        text: As the model sees it, but cut at `RESULT_SHOWN_CHARS`.
        error: Why there is no result.

    """

    call: str
    text: str = ""
    error: ErrorInfo | None = None


Delta = TextDelta | ReasoningDelta | CallDelta | ResultDelta

RESULT_SHOWN_CHARS: Final = 32 * 1024
"""So much of a result is told in a stream; the whole is in the store."""


_CUT: Final = "\n(The rest of this result is not shown here.)"


def result_delta(result: CallResult) -> ResultDelta:
    """Return what a stream tells of a result."""
    text = result.text[:RESULT_SHOWN_CHARS]
    is_cut = result.blob is not None or len(text) < len(result.text)
    return ResultDelta(call=result.call, text=text + _CUT if is_cut else text, error=result.error)


class Frame(Struct, frozen=True, kw_only=True, tag="frame", omit_defaults=True):
    """Changes that go out together.

    Attributes:
        n: Its number within the attempt, from 1, without gaps.
        offset: Characters of answer text that the attempt had published before this frame.
        after: In a step's first frame: where the step before it ended.

    """

    n: int
    offset: int
    items: tuple[Delta, ...]
    after: Mark | None = None


class HoldRef(Struct, frozen=True, kw_only=True):
    """The hold that a stream ended with.

    Attributes:
        expires_at_ms: Epoch milliseconds of the store's clock.

    """

    id: str
    expires_at_ms: int


class TurnEnded(Struct, frozen=True, kw_only=True, tag="turn.ended", omit_defaults=True):
    """A turn is over, or held; published once that is stored or known not to be.

    Attributes:
        outcome: `error` is given for `failed` and `cancelled`, `hold` for `held`.
        attempt: The attempt whose answer counts; `last` is its last frame's number.
        text: The whole answer of the last step.
        calls: Calls that the caller is to run, or to decide when held.
        earlier: The steps before it, in order.
        step_calls: Every call of the last step, in the model's order, where `calls` does not have them all.
        results: What calls of the last step came to so far.
        alternatives: The further choices, where more than one was asked for.
        logprobs: Of the tokens of `text`.
        ended_at_ms: As it is stored, epoch milliseconds; 0 of a turn that is held, or of which nothing else is known.
        usage: Of the whole turn.
        stored: The conversation in the store has this turn.
        store_ms: How long the turn's write to the store took; 0 when nothing was written.

    """

    turn: str
    tenant: str
    outcome: Closing
    step: int
    attempt: int
    last: int = 0
    model: str = ""
    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    finish: FinishReason | None = None
    usage: Usage = Usage()
    error: ErrorInfo | None = None
    stored: bool = True
    timings: StepTimings = StepTimings()
    store_ms: float = 0.0
    earlier: tuple[Step, ...] = ()
    hold: HoldRef | None = None
    step_calls: tuple[ToolCall, ...] = ()
    results: tuple[CallResult, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    logprobs: tuple[Logprob, ...] = ()
    ended_at_ms: int = 0


Relayed = Frame | TurnEnded
