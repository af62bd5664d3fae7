"""The chunks of an OpenAI-compatible stream, folded into canonical deltas and a result: no network, no clock.

Tolerant where servers differ (missing fields, null content, two names for reasoning, tool calls without an index,
usage in any chunk), strict where tolerance would pass a broken answer off as a whole one.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import Struct

from kitemesh_contracts.content import FinishReason, ToolCall, Usage
from kitemesh_contracts.deltas import CallDelta, Delta, ReasoningDelta, TextDelta
from kitemesh_contracts.ids import call_id

MAX_CALLS: Final = 128
MAX_NAME: Final = 256
MAX_COUNT: Final = 2**53 - 1
"""Larger counts are nonsense, and could not be stored."""

NO_ARGUMENTS: Final = "{}"
"""What some servers leave out for a call that needs none."""

_DONE: Final = b"[DONE]"

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


class ChunkRefused(Exception):
    """A chunk that is no chunk, or calls that nobody makes."""


class ErrorReported(Exception):
    """The upstream ended its answer with an error of its own."""


class _Function(Struct, frozen=True, kw_only=True, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct, frozen=True, kw_only=True, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(Struct, frozen=True, kw_only=True, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(Struct, frozen=True, kw_only=True, gc=False):
    index: int | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _InputDetails(Struct, frozen=True, kw_only=True):
    cached_tokens: int | None = None


class _OutputDetails(Struct, frozen=True, kw_only=True):
    reasoning_tokens: int | None = None


class _Usage(Struct, frozen=True, kw_only=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class _Chunk(Struct, frozen=True, kw_only=True):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decode: Final = msgspec.json.Decoder(_Chunk).decode


class _OpenCall:
    """A call whose arguments still come."""

    def __init__(self, upstream_id: str, name: str) -> None:
        self.upstream_id = upstream_id
        self.name = name
        self.arguments: list[str] = []


class AnswerReader:
    """One answer, chunk by chunk.

    Calls get the ids that their turn, step and place derive; the upstream's own ids only tell one call from the next.

    Attributes:
        finish: Why the model stopped; `None` while it has not.
        usage: The last count that came, if any.

    """

    def __init__(self, turn: str, step: int) -> None:
        self.finish: FinishReason | None = None
        self.usage: Usage | None = None
        self._is_over = False
        self._turn: Final = turn
        self._step: Final = step
        self._calls: list[_OpenCall] = []
        self._places: dict[int, int] = {}

    def read(self, events: Iterable[bytes], deltas: list[Delta]) -> None:
        """Append what the events' data adds to the answer; what came before a failure is appended all the same.

        Raises:
            ChunkRefused: They are not chunks.
            ErrorReported: One is an error.

        """
        for data in events:
            if self._is_over or data.startswith(_DONE):
                self._is_over = True
                return
            try:
                chunk = _decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
                raise ChunkRefused from exc
            if chunk.error is not None:
                raise ErrorReported
            if chunk.usage is not None:
                self.usage = _usage(chunk.usage)
            for choice in chunk.choices or ():
                if not choice.index:
                    self._read_choice(choice, deltas)

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

    def _read_choice(self, choice: _Choice, deltas: list[Delta]) -> None:
        delta = choice.delta
        if delta is not None:
            reasoning = delta.reasoning_content or delta.reasoning
            if reasoning:
                deltas.append(ReasoningDelta(text=reasoning))
            if delta.content:
                deltas.append(TextDelta(text=delta.content))
            if delta.refusal:
                deltas.append(TextDelta(text=delta.refusal))
            if delta.tool_calls:
                deltas.extend(map(self._read_call, delta.tool_calls))
        if choice.finish_reason and self.finish is None:
            if choice.finish_reason == "error":
                raise ErrorReported
            self.finish = _FINISH.get(choice.finish_reason, "stop")

    def _read_call(self, piece: _Call) -> CallDelta:
        function = piece.function or _Function()
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

    def _place(self, piece: _Call, function: _Function) -> int | None:
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
        return call_id(self._turn, self._step, place)


def _usage(usage: _Usage) -> Usage:
    details_in, details_out = usage.prompt_tokens_details, usage.completion_tokens_details
    return Usage(
        input_tokens=_count(usage.prompt_tokens),
        output_tokens=_count(usage.completion_tokens),
        cached_tokens=_count(details_in.cached_tokens if details_in else None),
        reasoning_tokens=_count(details_out.reasoning_tokens if details_out else None),
    )


def _count(tokens: int | None) -> int:
    return min(max(0, tokens or 0), MAX_COUNT)
