"""The chunks of an OpenAI-compatible stream, folded into canonical deltas and a result: no network, no clock.

The first choice is told as it comes, further ones are kept until the end. Tolerant where servers differ (usage in any
chunk, no end mark), strict where tolerance would pass a broken answer off as a whole one.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import Struct

from kitemesh_contracts.content import Alternative, FinishReason, ToolCall, Usage
from kitemesh_contracts.deltas import CallDelta, Delta
from kitemesh_model_runner.openai_choices import ChoicePart, ChoiceReader, ErrorReported, alternative
from kitemesh_model_runner.openai_errors import known_fault
from kitemesh_model_runner.openai_logprobs import ChunkRefused

MAX_COUNT: Final = 2**53 - 1
"""Larger counts are nonsense, and could not be stored."""

MAX_OTHERS: Final = 4 * 1024 * 1024
"""Bytes of the chunks that further choices came in; nobody says this much."""

_DONE: Final = b"[DONE]"


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
    choices: list[ChoicePart] | None = None
    usage: _Usage | None = None
    error: Any = None


_decode: Final = msgspec.json.Decoder(_Chunk).decode


class AnswerReader:
    """One answer, chunk by chunk.

    Args:
        turn: Turn id.
        step: Step number.
        choices: How many were asked for.
        logprobs: They were asked for.

    Attributes:
        usage: The last count that came, if any.
        others: Bytes of the chunks that had more of a further choice.

    """

    def __init__(self, turn: str, step: int, *, choices: int = 1, logprobs: bool = False) -> None:
        self.usage: Usage | None = None
        self.others = 0
        self._is_over = False
        self._first: Final = ChoiceReader(turn, step, logprobs=logprobs)
        self._others: Final[list[tuple[ChoiceReader, list[Delta]]]] = [
            (ChoiceReader(turn, step, index, logprobs=logprobs), []) for index in range(1, choices)
        ]

    @property
    def is_whole(self) -> bool:
        """Whether the model has said of every choice why it stopped."""
        return self._first.finish is not None and all(reader.finish is not None for reader, _ in self._others)

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
                raise ErrorReported(known_fault(chunk.error))
            if chunk.usage is not None:
                self.usage = _usage(chunk.usage)
            for choice in chunk.choices or ():
                if not choice.index:
                    self._first.read(choice, deltas)
                elif 0 < choice.index <= len(self._others):
                    reader, said = self._others[choice.index - 1]
                    reader.read(choice, said)
                    self.others += len(data)
                    if self.others > MAX_OTHERS:
                        raise ChunkRefused

    def complete(self) -> list[CallDelta]:
        """Give each call that came without arguments an empty object, and return what that adds to the answer."""
        return self._first.complete()

    def result(self) -> tuple[FinishReason | None, tuple[ToolCall, ...]]:
        """Return why the model stopped, and its calls: servers differ in what they call a stop for calls."""
        return self._first.result()

    def alternatives(self) -> tuple[Alternative, ...]:
        """Return the further choices of a whole answer."""
        return tuple(alternative(index, reader, said) for index, (reader, said) in enumerate(self._others, 1))


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
