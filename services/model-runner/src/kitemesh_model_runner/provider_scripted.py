"""A model that needs no network: it performs a script, for the first start, tests and benchmarks.

What it says, and the small language that prescribes it, is `script`'s business. Usage is counted in words. It goes on
with an answer that broke off behind as many characters as were said, whatever they were.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from kitemesh_contracts.content import ToolCall, Usage
from kitemesh_contracts.deltas import CallDelta, Delta, ReasoningDelta, ResultDelta, TextDelta
from kitemesh_contracts.ids import call_id
from kitemesh_model_runner.provider import Generated, ModelCall, Prefix, Sink, failure
from kitemesh_model_runner.script import Script, count_words, write
from kitemesh_model_runner.scripted_choices import further, likely
from kitemesh_runtime.catalog import ScriptedProvider

_MS: Final = 1000.0
_BATCH: Final = 256
_PIECE_CHARACTERS: Final = 16
_PIECES_MAX: Final = 64


class ScriptedModel:
    """The performer."""

    kind: Final = "scripted"

    def __init__(self, config: ScriptedProvider) -> None:
        self._delay_s: Final = config.delay_ms / _MS

    def can_continue(self, prefix: Prefix) -> bool:  # noqa: ARG002  it counts, whatever was said
        """Always."""
        return True

    async def generate(self, call: ModelCall, sink: Sink) -> Generated:
        """Perform the script that the prompt leads to."""
        sampling = call.sampling
        script = write(call.messages, call.tools, call.tool_choice, call.files, sampling.response_format)
        deltas = script.deltas
        if sampling.logprobs:
            deltas = tuple(likely(deltas, sampling.top_logprobs or 0))
        calls = _calls(call, script, 0)
        deltas += tuple(_pieces(calls))
        if script.stop_after is not None:
            deltas = deltas[: script.stop_after]
        words = len(deltas)
        if call.prefix is not None:
            deltas = tuple(_behind(call.prefix, deltas))
        if script.first_s:
            await asyncio.sleep(script.first_s)
        delay_s = self._delay_s if script.delay_s is None else script.delay_s
        if delay_s:
            for delta in deltas:
                await asyncio.sleep(delay_s)
                await sink((delta,))
        else:
            for start in range(0, len(deltas), _BATCH):
                if start:
                    await asyncio.sleep(0)
                await sink(deltas[start : start + _BATCH])
        await _stop(script)
        return Generated(
            finish=script.finish,
            usage=Usage(input_tokens=count_words(call.messages), output_tokens=words * sampling.choices),
            calls=calls,
            alternatives=tuple(
                further(
                    index,
                    script,
                    _calls(call, script, index),
                    top=sampling.top_logprobs or 0 if sampling.logprobs else None,
                    is_json=sampling.response_format is not None,
                )
                for index in range(1, sampling.choices)
            ),
        )


def _calls(call: ModelCall, script: Script, choice: int) -> tuple[ToolCall, ...]:
    first = choice * len(script.calls)
    return tuple(
        ToolCall(id=call_id(call.turn, call.step, place), name=wish.name, arguments=wish.arguments)
        for place, wish in enumerate(script.calls, first)
    )


def _behind(prefix: Prefix, deltas: Sequence[Delta]) -> Iterator[Delta]:
    """Leave out as many characters of text and of reasoning as were said."""
    text, reasoning = len(prefix.text), len(prefix.reasoning)
    for delta in deltas:
        match delta:
            case TextDelta(text=said):
                if text < len(said):
                    yield delta if not text else TextDelta(text=said[text:])
                text = max(0, text - len(said))
            case ReasoningDelta(text=said):
                if reasoning < len(said):
                    yield ReasoningDelta(text=said[reasoning:])
                reasoning = max(0, reasoning - len(said))
            case CallDelta() | ResultDelta():
                yield delta


def _pieces(calls: Sequence[ToolCall]) -> Iterator[Delta]:
    """Break calls up as an endpoint sends them: id and name first, then the arguments bit by bit."""
    for place, call in enumerate(calls):
        yield CallDelta(index=place, id=call.id, name=call.name)
        size = max(_PIECE_CHARACTERS, -(-len(call.arguments) // _PIECES_MAX))
        for start in range(0, len(call.arguments), size):
            yield CallDelta(index=place, arguments=call.arguments[start : start + size])


async def _stop(script: Script) -> None:
    if script.error is not None:
        raise failure(script.error)
    if script.stop_after is not None:
        await asyncio.Event().wait()
