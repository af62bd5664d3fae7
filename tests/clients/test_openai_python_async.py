"""The OpenAI SDK for Python where nothing waits for anything else."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from clients import prompts
from clients.broken_streams import check_beginning, read_async_until
from clients.prompts import MODEL, user
from cluster import Cluster

pytestmark = pytest.mark.client("openai-python async", openai.__version__)


@pytest.fixture
async def sdk(cluster: Cluster) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{cluster.origin}/v1", api_key=cluster.key, max_retries=0) as client:
        yield client


@pytest.mark.case("whole answer")
@pytest.mark.requirement("clients:openai-python")
async def test_many_whole_answers_at_once_are_each_their_own(sdk: openai.AsyncOpenAI) -> None:
    async with asyncio.timeout(30):
        answers = await asyncio.gather(
            *(sdk.chat.completions.create(model=MODEL, messages=user(f"@echo number {n}")) for n in range(20))
        )
    assert [answer.choices[0].message.content for answer in answers] == [f"number {n}" for n in range(20)]
    assert len({answer.id for answer in answers}) == 20


@pytest.mark.case("streamed answer")
@pytest.mark.requirement("clients:openai-python")
async def test_a_stream_arrives_in_pieces(sdk: openai.AsyncOpenAI) -> None:
    asked = user(prompts.SLOWLY + prompts.COUNT)
    async with asyncio.timeout(30):
        stream = await sdk.chat.completions.create(model=MODEL, messages=asked, stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces) == prompts.COUNTED
    assert sum(map(bool, pieces)) > 5


@pytest.mark.case("usage of a stream")
async def test_the_last_chunk_has_the_usage(sdk: openai.AsyncOpenAI) -> None:
    options: Any = {"include_usage": True}
    async with asyncio.timeout(30):
        stream = await sdk.chat.completions.create(
            model=MODEL, messages=user(prompts.COUNT), stream=True, stream_options=options
        )
        usages = [chunk.usage async for chunk in stream]
    assert usages[:-1] == [None] * (len(usages) - 1)
    assert usages[-1] is not None


@pytest.mark.case("stream helper")
async def test_the_stream_helper_puts_the_answer_together(sdk: openai.AsyncOpenAI) -> None:
    async with (
        asyncio.timeout(30),
        sdk.chat.completions.stream(model=MODEL, messages=user(prompts.SLOWLY + prompts.COUNT)) as stream,
    ):
        pieces = [event.delta async for event in stream if event.type == "content.delta"]
        final = await stream.get_final_completion()
    assert "".join(pieces) == prompts.COUNTED
    assert final.choices[0].message.content == prompts.COUNTED


@pytest.mark.case("own tools, streamed")
async def test_a_streamed_call_is_answered_in_the_next_request(sdk: openai.AsyncOpenAI) -> None:
    messages = user(prompts.FIND)
    tools: list[Any] = [prompts.FIND_TOOL]
    async with asyncio.timeout(30):
        async with sdk.chat.completions.stream(model=MODEL, messages=messages, tools=tools) as stream:
            asked = await stream.get_final_completion()
        (call,) = asked.choices[0].message.tool_calls or []
        found = prompts.find_city(**json.loads(call.function.arguments))
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [call.model_dump(include={"id", "type", "function"})]},
            {"role": "tool", "tool_call_id": call.id, "content": found},
        ]
        async with sdk.chat.completions.stream(model=MODEL, messages=messages, tools=tools) as stream:
            answer = await stream.get_final_completion()
    assert answer.choices[0].finish_reason == "stop"
    assert "Rome is on the map." in (answer.choices[0].message.content or "")


@pytest.mark.case("models")
async def test_models_are_listed(sdk: openai.AsyncOpenAI) -> None:
    async with asyncio.timeout(30):
        assert MODEL in [model.id async for model in sdk.models.list()]


@pytest.mark.case("error classes")
async def test_a_refusal_is_its_class_before_a_stream_begins(sdk: openai.AsyncOpenAI) -> None:
    async with asyncio.timeout(30):
        with pytest.raises(openai.NotFoundError):
            await sdk.chat.completions.create(model="nobody", messages=user(prompts.COUNT), stream=True)
        with pytest.raises(openai.RateLimitError):
            await sdk.chat.completions.create(model=MODEL, messages=user(prompts.LIMITED), stream=True)


@pytest.mark.case("a stream that breaks off")
@pytest.mark.requirement("clients:a-broken-stream-raises")
async def test_a_stream_that_breaks_off_raises(sdk: openai.AsyncOpenAI) -> None:
    async with asyncio.timeout(30):
        stream = await sdk.chat.completions.create(model=MODEL, messages=user(prompts.BROKEN_OFF), stream=True)
        chunks, _ = await read_async_until(openai.APIError, stream)
    check_beginning(chunk.choices[0].delta.content for chunk in chunks)
