"""The further choices of an answer, and how likely its tokens were. Pure."""

from collections.abc import Sequence
from typing import Final

from kitemesh_contracts.codec import encode
from kitemesh_contracts.content import Alternative, FinishReason, Logprob
from kitemesh_contracts.deltas import TextDelta, TurnEnded
from kitemesh_gateway.dialects.completions_answers import (
    CallDeltaOut,
    ChoiceOut,
    DeltaOut,
    FunctionDeltaOut,
    MessageOut,
    call_out,
    logprobs_out,
)

_NONE: Final[tuple[int, tuple[Logprob, ...]]] = (0, ())


class TellingLogprobs:
    """How likely the tokens of a streamed answer were: what of that was told, and what the closing event adds."""

    __slots__ = ("_rest", "_step", "_told")

    def __init__(self) -> None:
        self._step = self._told = 0
        self._rest = _NONE

    def of(self, step: int, item: TextDelta) -> tuple[Logprob, ...]:
        """Return what is to be told beside a text."""
        if step == self._rest[0]:
            return self.left()
        if item.logprobs:
            self._told = len(item.logprobs) + (self._told if step == self._step else 0)
            self._step = step
        return item.logprobs

    def expect(self, ended: TurnEnded) -> None:
        """Take what is known at the end; what was not told of it goes with the first text that was not shown."""
        told = self._told if self._step == ended.step else 0
        self._rest = (ended.step, ended.logprobs[told:])

    def left(self) -> tuple[Logprob, ...]:
        """Return what was not told, once."""
        (_, rest), self._rest = self._rest, _NONE
        return rest


def logprobs_member(logprobs: Sequence[Logprob]) -> bytes:
    """Return the member of a chunk's choice; nothing where nothing is known."""
    return b',"logprobs":%b' % encode(logprobs_out(logprobs)) if logprobs else b""


def finish_of(choice: Alternative) -> FinishReason:
    """Say why a further choice ended."""
    return "tool_calls" if choice.calls else choice.finish


def choice_out(choice: Alternative) -> ChoiceOut:
    """Render a further choice of a whole answer."""
    return ChoiceOut(
        index=choice.index,
        message=MessageOut(
            role="assistant",
            content=None if choice.calls and not choice.text else choice.text,
            reasoning_content=choice.reasoning,
            tool_calls=tuple(call_out(call) for call in choice.calls),
        ),
        logprobs=logprobs_out(choice.logprobs),
        finish_reason=finish_of(choice),
    )


def delta_out(choice: Alternative) -> DeltaOut:
    """Render a further choice as one delta, which has it all."""
    return DeltaOut(
        role="assistant",
        content=choice.text,
        reasoning_content=choice.reasoning or None,
        tool_calls=tuple(
            CallDeltaOut(
                type="function",
                index=index,
                id=call.id,
                function=FunctionDeltaOut(name=call.name, arguments=call.arguments),
            )
            for index, call in enumerate(choice.calls)
        ),
    )
