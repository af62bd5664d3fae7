import asyncio
from collections.abc import Sequence

import pytest

from kitemesh_contracts.content import Sampling, TextPart, Usage, UserMessage
from kitemesh_contracts.deltas import Delta
from kitemesh_contracts.errors import ErrorCode, ProviderFailed
from kitemesh_model_runner.provider import Generated, ModelCall
from kitemesh_model_runner.provider_scripted import ScriptedModel
from kitemesh_runtime.catalog import ScriptedProvider


class Batches:
    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.came = asyncio.Event()

    async def take(self, deltas: Sequence[Delta]) -> None:
        self.sizes.append(len(deltas))
        self.came.set()


async def perform(text: str, batches: Batches, *, delay_ms: float = 0.0) -> Generated:
    model = ScriptedModel(ScriptedProvider(kind="scripted", delay_ms=delay_ms))
    call = ModelCall("t", 0, "m", (UserMessage(parts=(TextPart(text=text),)),), Sampling(), 10.0)
    return await model.generate(call, batches.take)


async def test_without_a_pause_everything_is_there_at_once() -> None:
    batches = Batches()
    assert await perform("@tokens 50", batches) == Generated("stop", Usage(input_tokens=2, output_tokens=50))
    assert batches.sizes == [50]


async def test_a_flood_comes_in_bounded_batches() -> None:
    batches = Batches()
    await perform("@tokens 600", batches)
    assert batches.sizes == [256, 256, 88]


@pytest.mark.parametrize(("text", "delay_ms"), [("@tokens 3", 1.0), ("@tokens 3\n@delay_ms 1", 60_000.0)])
async def test_with_a_pause_each_word_comes_alone(text: str, delay_ms: float) -> None:
    batches = Batches()
    async with asyncio.timeout(5):
        await perform(text, batches, delay_ms=delay_ms)
    assert batches.sizes == [1, 1, 1]


async def test_a_script_may_fail_after_some_words() -> None:
    batches = Batches()
    with pytest.raises(ProviderFailed) as caught:
        await perform("@tokens 9\n@fail upstream.limited after 4", batches)
    assert caught.value.code == ErrorCode.UPSTREAM_LIMITED
    assert batches.sizes == [4]


async def test_a_script_may_hang_until_it_is_cancelled() -> None:
    batches = Batches()
    task = asyncio.create_task(perform("@hang after 1", batches))
    async with asyncio.timeout(5):
        await batches.came.wait()
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_finish_reason_is_the_scripts() -> None:
    assert (await perform("@finish content_filter", Batches())).finish == "content_filter"
