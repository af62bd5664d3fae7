"""A model that needs no network: it performs a script, for the first start, tests and benchmarks.

What it says, and the small language that prescribes it, is `script`'s business. Usage is counted in words.
"""

import asyncio
from typing import Final

from kitemesh_contracts.content import Usage
from kitemesh_model_runner.provider import Generated, ModelCall, Sink, failure
from kitemesh_model_runner.script import Script, count_words, write
from kitemesh_runtime.catalog import ScriptedProvider

_MS: Final = 1000.0
_BATCH: Final = 256


class ScriptedModel:
    """The performer."""

    kind: Final = "scripted"

    def __init__(self, config: ScriptedProvider) -> None:
        self._delay_s: Final = config.delay_ms / _MS

    async def generate(self, call: ModelCall, sink: Sink) -> Generated:
        """Perform the script that the prompt leads to."""
        script = write(call.messages)
        deltas = script.deltas if script.stop_after is None else script.deltas[: script.stop_after]
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
        )


async def _stop(script: Script) -> None:
    if script.error is not None:
        raise failure(script.error)
    if script.stop_after is not None:
        await asyncio.Event().wait()
