import asyncio
from collections.abc import Sequence

import pytest
from msgspec import Raw

from kitemesh_contracts.content import Sampling, TextPart, ToolCall, ToolSpec, Usage, UserMessage
from kitemesh_contracts.deltas import CallDelta, Delta, ReasoningDelta, TextDelta
from kitemesh_contracts.errors import ErrorCode, ProviderFailed
from kitemesh_contracts.ids import call_id
from kitemesh_model_runner.provider import Generated, ModelCall, Prefix
from kitemesh_model_runner.provider_scripted import ScriptedModel
from kitemesh_runtime.catalog import ScriptedProvider


class Batches:
    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.deltas: list[Delta] = []
        self.came = asyncio.Event()

    async def take(self, deltas: Sequence[Delta]) -> None:
        self.sizes.append(len(deltas))
        self.deltas.extend(deltas)
        self.came.set()


async def perform(
    text: str,
    batches: Batches,
    *,
    delay_ms: float = 0.0,
    tools: tuple[ToolSpec, ...] = (),
    choice: str = "auto",
    prefix: Prefix | None = None,
) -> Generated:
    model = ScriptedModel(ScriptedProvider(kind="scripted", delay_ms=delay_ms))
    messages = (UserMessage(parts=(TextPart(text=text),)),)
    call = ModelCall("t", 3, "m", messages, Sampling(), 10.0, tools, choice, prefix=prefix)
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


async def test_calls_come_in_pieces_under_ids_of_ours() -> None:
    arguments = '{"text":"twice as long as a piece"}'
    batches = Batches()
    generated = await perform(f"@echo hm\n@call f {arguments}\n@call g", batches)
    ids = [call_id("t", 3, place) for place in range(2)]
    assert generated == Generated(
        "tool_calls",
        Usage(input_tokens=12, output_tokens=7),
        (ToolCall(id=ids[0], name="f", arguments=arguments), ToolCall(id=ids[1], name="g", arguments="{}")),
    )
    assert batches.deltas == [
        TextDelta(text="hm"),
        CallDelta(index=0, id=ids[0], name="f"),
        CallDelta(index=0, arguments=arguments[:16]),
        CallDelta(index=0, arguments=arguments[16:32]),
        CallDelta(index=0, arguments=arguments[32:]),
        CallDelta(index=1, id=ids[1], name="g"),
        CallDelta(index=1, arguments="{}"),
    ]


async def test_long_arguments_come_in_a_bounded_number_of_pieces() -> None:
    batches = Batches()
    generated = await perform("@call f " + "x" * 100_000, batches)
    pieces = [delta.arguments for delta in batches.deltas if isinstance(delta, CallDelta)]
    assert len(pieces) <= 65
    assert "".join(pieces) == generated.calls[0].arguments


async def test_a_call_may_break_off_in_the_middle() -> None:
    batches = Batches()
    with pytest.raises(ProviderFailed):
        await perform("@call f {}\n@fail upstream.cut after 1", batches)
    assert batches.deltas == [CallDelta(index=0, id=call_id("t", 3, 0), name="f")]


@pytest.mark.parametrize(("choice", "calls"), [("auto", 1), ("none", 0)])
async def test_what_is_offered_decides_what_plain_words_do(choice: str, calls: int) -> None:
    tool = ToolSpec(name="get_weather", parameters=Raw(b'{"properties":{"city":{}}}'))
    generated = await perform("the weather in Oslo", Batches(), tools=(tool,), choice=choice)
    assert len(generated.calls) == calls


def said(batches: Batches) -> tuple[str, str]:
    return (
        "".join(delta.text for delta in batches.deltas if isinstance(delta, ReasoningDelta)),
        "".join(delta.text for delta in batches.deltas if isinstance(delta, TextDelta)),
    )


@pytest.mark.parametrize("end", range(19))
async def test_an_answer_is_continued_at_the_very_character_and_counted_whole(end: int) -> None:
    script = "@reason 2\n@count 5"
    whole, rest = Batches(), Batches()
    once = await perform(script, whole)
    thought, text = said(whole)
    prefix = Prefix(text=text[: max(0, end - len(thought))], reasoning=thought[:end])
    assert await perform(script, rest, prefix=prefix) == once
    assert said(rest) == (thought[end:], text[len(prefix.text) :])


async def test_an_answer_of_other_words_is_continued_behind_as_many_characters() -> None:
    batches = Batches()
    await perform("@echo abcdef", batches, prefix=Prefix("123"))
    assert said(batches) == ("", "def")


async def test_behind_more_than_the_script_nothing_is_said() -> None:
    batches = Batches()
    assert (await perform("@echo ab", batches, prefix=Prefix("12345"))).finish == "stop"
    assert batches.deltas == []


async def test_behind_the_text_the_calls_are_made() -> None:
    batches = Batches()
    generated = await perform("@echo hm\n@call f", batches, prefix=Prefix("hm"))
    assert generated.finish == "tool_calls"
    assert batches.deltas == [CallDelta(index=0, id=call_id("t", 3, 0), name="f"), CallDelta(index=0, arguments="{}")]


async def test_a_script_that_breaks_off_breaks_off_at_the_same_word_again() -> None:
    batches = Batches()
    with pytest.raises(ProviderFailed):
        await perform("@count 9\n@fail upstream.cut after 3", batches, prefix=Prefix("1 2 "))
    assert said(batches) == ("", "3 ")
