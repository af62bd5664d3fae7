"""One choice of an OpenAI-compatible answer, folded chunk by chunk: its deltas, its calls, how it ended.

Tolerant where servers differ: missing fields, null content, two names for reasoning, tool calls without an index.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Raw, Struct

from kitemesh_contracts.content import Alternative, FinishReason, ToolCall
from kitemesh_contracts.deltas import CallDelta, Delta, ReasoningDelta, TextDelta
from kitemesh_contracts.ids import call_id
from kitemesh_model_runner.openai_errors import Fault
from kitemesh_model_runner.openai_logprobs import ChunkRefused, read_logprobs

MAX_CALLS: Final = 128
MAX_NAME: Final = 256

NO_ARGUMENTS: Final = "{}"
"""What some servers leave out for a call that needs none."""

_FINISH: Final[dict[str, FinishReason]] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "safety": "content_filter",
}


class ErrorReported(Exception):
    """The upstream ended its answer with an error of its own.

    Attributes:
        fault: What it says is wrong with the request, in words that are known.

    """

    def __init__(self, fault: Fault | None = None) -> None:
        super().__init__(fault)
        self.fault: Final = fault


_NO_LOGPROBS: Final = Raw(b"null")


class Function(Struct, frozen=True, kw_only=True, gc=False):
    """A piece of a call's function."""

    name: str | None = None
    arguments: str | None = None


class CallPiece(Struct, frozen=True, kw_only=True, gc=False):
    """A piece of a call."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class DeltaPart(Struct, frozen=True, kw_only=True, gc=False):
    """What a chunk adds to a choice."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[CallPiece] | None = None


class ChoicePart(Struct, frozen=True, kw_only=True, gc=False):
    """A choice of a chunk. Servers differ in what they put into `logprobs`: it is read where it was asked for."""

    index: int | None = None
    delta: DeltaPart | None = None
    finish_reason: str | None = None
    logprobs: Raw = _NO_LOGPROBS


class _OpenCall:
    """A call whose arguments still come."""

    def __init__(self, upstream_id: str, name: str) -> None:
        self.upstream_id = upstream_id
        self.name = name
        self.arguments: list[str] = []


class ChoiceReader:
    """One choice.

    Calls get the ids that their turn, step and place derive; the upstream's own ids only tell one call from the next.

    Args:
        turn: Turn id.
        step: Step number.
        index: Of the choice.
        logprobs: They were asked for.

    Attributes:
        finish: Why the model stopped; `None` while it has not.

    """

    def __init__(self, turn: str, step: int, index: int = 0, *, logprobs: bool = False) -> None:
        self.finish: FinishReason | None = None
        self._turn: Final = turn
        self._step: Final = step
        self._index: Final = index
        self._logprobs: Final = logprobs
        self._calls: list[_OpenCall] = []
        self._places: dict[int, int] = {}

    def read(self, choice: ChoicePart, deltas: list[Delta]) -> None:
        """Append what a chunk adds.

        Raises:
            ChunkRefused: It is none.
            ErrorReported: The model broke.

        """
        delta = choice.delta
        logprobs = read_logprobs(choice.logprobs) if self._logprobs else ()
        if delta is not None:
            reasoning = delta.reasoning_content or delta.reasoning
            if reasoning:
                deltas.append(ReasoningDelta(text=reasoning))
            for text in (delta.content, delta.refusal):
                if text:
                    deltas.append(TextDelta(text=text, logprobs=logprobs))
                    logprobs = ()
            if delta.tool_calls:
                deltas.extend(map(self._read_call, delta.tool_calls))
        if logprobs:
            deltas.append(TextDelta(text="", logprobs=logprobs))
        if choice.finish_reason and self.finish is None:
            if choice.finish_reason == "error":
                raise ErrorReported
            self.finish = _FINISH.get(choice.finish_reason, "stop")

    def complete(self) -> list[CallDelta]:
        """Give each call that came without arguments an empty object, and return what that adds to the answer."""
        missing = []
        for place, call in enumerate(self._calls):
            if not "".join(call.arguments).strip():
                call.arguments.append(NO_ARGUMENTS)
                missing.append(CallDelta(index=place, arguments=NO_ARGUMENTS))
        return missing

    def result(self) -> tuple[FinishReason | None, tuple[ToolCall, ...]]:
        """Return why the model stopped, and its calls: servers differ in what they call a stop for calls."""
        calls = tuple(
            ToolCall(id=self._call_id(place), name=call.name, arguments="".join(call.arguments))
            for place, call in enumerate(self._calls)
        )
        if self.finish == "stop" and calls:
            return "tool_calls", calls
        if self.finish == "tool_calls" and not calls:
            return "stop", calls
        return self.finish, calls

    def _read_call(self, piece: CallPiece) -> CallDelta:
        function = piece.function or Function()
        arguments = function.arguments or ""
        place = self._place(piece, function)
        if place is not None:
            self._calls[place].arguments.append(arguments)
            return CallDelta(index=place, arguments=arguments)
        place = len(self._calls)
        if place >= MAX_CALLS:
            raise ChunkRefused
        call = _OpenCall(piece.id or "", function.name or "")
        if len(call.name) > MAX_NAME:
            raise ChunkRefused
        call.arguments.append(arguments)
        self._calls.append(call)
        if piece.index is not None:
            self._places[piece.index] = place
        return CallDelta(index=place, id=self._call_id(place), name=call.name, arguments=arguments)

    def _place(self, piece: CallPiece, function: Function) -> int | None:
        """Find the call that a piece continues; `None` when it begins one."""
        if piece.index is not None:
            place = self._places.get(piece.index)
        elif self._calls and (not function.name or piece.id):
            place = len(self._calls) - 1
        else:
            place = None
        # Some servers number every parallel call 0, or none, and tell them apart by id alone.
        if place is not None and piece.id and self._calls[place].upstream_id != piece.id:
            return None
        return place

    def _call_id(self, place: int) -> str:
        return call_id(self._turn, self._step, self._index * MAX_CALLS + place)


def alternative(index: int, reader: ChoiceReader, said: Sequence[Delta]) -> Alternative:
    """Put a further choice together that has ended, given everything that it said."""
    reader.complete()
    finish, calls = reader.result()
    texts = [delta for delta in said if isinstance(delta, TextDelta)]
    return Alternative(
        index=index,
        finish=finish or "stop",
        text="".join(delta.text for delta in texts),
        reasoning="".join(delta.text for delta in said if isinstance(delta, ReasoningDelta)),
        calls=calls,
        logprobs=tuple(each for delta in texts for each in delta.logprobs),
    )
