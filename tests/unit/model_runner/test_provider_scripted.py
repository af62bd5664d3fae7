import asyncio
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import Raw

from kitemesh_contracts.content import (
    Alternative,
    FilePart,
    Logprob,
    ResponseFormat,
    Sampling,
    TextPart,
    ToolCall,
    ToolSpec,
    Usage,
    UserMessage,
)
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


async def choose(text: str, sampling: Sampling, **more: Any) -> tuple[Batches, Generated]:
    batches = Batches()
    message = UserMessage(parts=(TextPart(text=text), *more.pop("parts", ())))
    model = ScriptedModel(ScriptedProvider(kind="scripted"))
    return batches, await model.generate(ModelCall("t", 3, "m", (message,), sampling, 10.0, **more), batches.take)


async def test_each_further_choice_says_the_same_behind_its_number() -> None:
    batches, end = await choose("@echo a b\n@reason 1", Sampling(choices=3))
    assert "".join(delta.text for delta in batches.deltas if isinstance(delta, TextDelta)) == "a b"
    assert end.alternatives == (
        Alternative(index=1, finish="stop", text="(2) a b", reasoning="hm "),
        Alternative(index=2, finish="stop", text="(3) a b", reasoning="hm "),
    )
    assert end.usage is not None
    assert end.usage.output_tokens == 9


async def test_the_calls_of_each_choice_have_ids_of_their_own() -> None:
    _, end = await choose("@call f\n@call g", Sampling(choices=2))
    (other,) = end.alternatives
    assert [call.name for call in other.calls] == ["f", "g"]
    assert len({call.id for call in (*end.calls, *other.calls)}) == 4
    assert (end.finish, other.finish) == ("tool_calls", "tool_calls")


async def test_asked_for_it_each_word_says_how_likely_it_was() -> None:
    batches, end = await choose("@echo a b", Sampling(logprobs=True, top_logprobs=2, choices=2))
    words = [delta for delta in batches.deltas if isinstance(delta, TextDelta)]
    assert [[each.token for each in word.logprobs] for word in words] == [["a "], ["b"]]
    (first,) = words[0].logprobs
    assert bytes(first.bytes or ()) == b"a "
    assert [top.token for top in first.top] == ["a ", "other1"]
    assert [each.token for each in end.alternatives[0].logprobs] == ["(2) ", "a ", "b"]
    plain, _ = await choose("@echo a", Sampling(logprobs=True))
    assert plain.deltas == [TextDelta(text="a", logprobs=(Logprob(token="a", logprob=-0.125, bytes=(97,)),))]


async def test_asked_for_json_it_answers_json_that_fits() -> None:
    schema = Raw(b'{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}')
    form = ResponseFormat(kind="json_schema", name="x", schema=schema)
    batches, end = await choose("hello", Sampling(response_format=form, choices=2))
    assert json.loads("".join(delta.text for delta in batches.deltas if isinstance(delta, TextDelta))) == {"n": 1}
    assert json.loads(end.alternatives[0].text) == {"n": 1}
    batches, _ = await choose("hello", Sampling(response_format=ResponseFormat(kind="json_object")))
    said = "".join(delta.text for delta in batches.deltas if isinstance(delta, TextDelta))
    assert json.loads(said)["answer"].startswith("Hello!")


async def test_it_says_what_files_it_was_given() -> None:
    image = FilePart(media_type="image/png", name="a.png", blob="b-1", size=6)
    address = FilePart(media_type="", url="https://example.org/b.jpg")
    digest = hashlib.sha256(b"pixels").hexdigest()[:16]
    for text, expected in (
        ("@files", f"a.png image/png 6 {digest}\n- - https://example.org/b.jpg"),
        ("hello", "You have shown me 2 files."),
    ):
        batches, _ = await choose(text, Sampling(), parts=(image, address), files={"b-1": b"pixels"})
        assert expected in "".join(delta.text for delta in batches.deltas if isinstance(delta, TextDelta))
    batches, _ = await choose("@files", Sampling())
    assert batches.deltas == [TextDelta(text="none")]
