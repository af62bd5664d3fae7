"""A model that needs no network: it performs a script, for the first start, tests and benchmarks.

What it says, and the small language that prescribes it, is `script`'s business. Usage is counted in words.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from kitemesh_contracts.content import ToolCall, Usage
from kitemesh_contracts.deltas import CallDelta, Delta
from kitemesh_contracts.ids import call_id
from kitemesh_model_runner.provider import Generated, ModelCall, Sink, failure
from kitemesh_model_runner.script import Script, count_words, write
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

    async def generate(self, call: ModelCall, sink: Sink) -> Generated:
        """Perform the script that the prompt leads to."""
        script = write(call.messages, call.tools, call.tool_choice)
        deltas = script.deltas
        calls: tuple[ToolCall, ...] = ()
        if script.calls:
            calls = tuple(
                ToolCall(id=call_id(call.turn, call.step, place), name=wish.name, arguments=wish.arguments)
                for place, wish in enumerate(script.calls)
            )
            deltas += tuple(_pieces(calls))
        if script.stop_after is not None:
            deltas = deltas[: script.stop_after]
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
            usage=Usage(input_tokens=count_words(call.messages), output_tokens=len(deltas)),
            calls=calls,
        )


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
