"""The `openai` Python SDK against the gateway, as its users call it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionToolMessageParam,
    ChatCompletionToolUnionParam,
    ChatCompletionUserMessageParam,
)

from integration.gateway.rig import GROUP, KEY, Rig
from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.content import AssistantMessage, ToolCall, ToolMessage
from kitemesh_contracts.deltas import HoldRef
from kitemesh_contracts.errors import ErrorCode

MESSAGES: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hi"}]


@pytest.fixture
async def sdk(rig: Rig) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=f"http://127.0.0.1:{rig.gateway.port}/v1", api_key=KEY.text, max_retries=0, timeout=10
    ) as client:
        yield client


async def behind(rig: Rig, react: Callable[[StartTurn], None]) -> None:
    react(await rig.cluster.start())


@pytest.mark.requirement("completions:whole-answer")
async def test_a_whole_answer(rig: Rig, sdk: AsyncOpenAI) -> None:
    answering = asyncio.create_task(behind(rig, lambda start: rig.cluster.end(start, "Hello")))
    completion = await sdk.chat.completions.create(model=GROUP, messages=MESSAGES)
    await answering
    assert completion.choices[0].message.content == "Hello"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 5
    assert completion.model == GROUP
    assert completion.model_extra is not None
    assert set(completion.model_extra["kitemesh"]) == {"execution_id", "request_id", "conversation_id"}
    assert completion._request_id is not None
    assert completion._request_id.startswith("req_")


def stream_hello(rig: Rig) -> Callable[[StartTurn], None]:
    def react(start: StartTurn) -> None:
        for n, text in enumerate(("Hel", "lo"), start=1):
            rig.cluster.frame(start, n, text)
        rig.cluster.end(start, "Hello", last=2)

    return react


@pytest.mark.requirement("stream:one-finish-reason")
async def test_a_streamed_answer(rig: Rig, sdk: AsyncOpenAI) -> None:
    answering = asyncio.create_task(behind(rig, stream_hello(rig)))
    stream = await sdk.chat.completions.create(
        model=GROUP, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    await answering
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 5
    finished = [chunk for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    assert len(finished) == 1
    assert finished[0].model_extra is not None
    assert "execution_id" in finished[0].model_extra["kitemesh"]


async def test_the_stream_helper(rig: Rig, sdk: AsyncOpenAI) -> None:
    answering = asyncio.create_task(behind(rig, stream_hello(rig)))
    async with sdk.chat.completions.stream(model=GROUP, messages=MESSAGES) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_completion()
    await answering
    assert final.choices[0].message.content == "Hello"
    assert [event.delta for event in events if event.type == "content.delta"] == ["", "Hel", "lo"]


TOOLS: list[ChatCompletionToolUnionParam] = [
    {"type": "function", "function": {"name": "delete", "parameters": {"type": "object"}}}
]
CALLS = (
    ToolCall(id="c-1", name="delete", arguments='{"path":"a"}'),
    ToolCall(id="c-2", name="delete", arguments='{"path":"b"}'),
)


def call_tools(rig: Rig, **fields: Any) -> Callable[[StartTurn], None]:
    return lambda start: rig.cluster.end(start, "", calls=CALLS, finish="tool_calls", **fields)


@pytest.mark.requirement("tool:client-calls-are-returned")
async def test_calls_of_client_tools_are_read_and_answered(rig: Rig, sdk: AsyncOpenAI) -> None:
    answering = asyncio.create_task(behind(rig, call_tools(rig)))
    completion = await sdk.chat.completions.create(model=GROUP, messages=MESSAGES, tools=TOOLS)
    await answering
    message = completion.choices[0].message
    assert completion.choices[0].finish_reason == "tool_calls"
    assert message.content is None
    assert [call.id for call in message.tool_calls or ()] == ["c-1", "c-2"]
    results: list[ChatCompletionToolMessageParam] = [
        {"role": "tool", "tool_call_id": call.id, "content": "done"} for call in CALLS
    ]
    said = cast("ChatCompletionAssistantMessageParam", message.model_dump(exclude_none=True))
    starts: list[StartTurn] = []

    def react(start: StartTurn) -> None:
        starts.append(start)
        rig.cluster.end(start, "Deleted.")

    answering = asyncio.create_task(behind(rig, react))
    completion = await sdk.chat.completions.create(model=GROUP, messages=[*MESSAGES, said, *results], tools=TOOLS)
    await answering
    assert completion.choices[0].message.content == "Deleted."
    assert starts[0].input[1:] == (
        AssistantMessage(calls=CALLS),
        ToolMessage(call="c-1", text="done"),
        ToolMessage(call="c-2", text="done"),
    )


@pytest.mark.requirement("hold:shown-as-tool-calls")
async def test_a_streamed_hold_is_put_together_from_its_chunks(rig: Rig, sdk: AsyncOpenAI) -> None:
    hold = HoldRef(id="h-1", expires_at_ms=1_767_323_045_600)
    answering = asyncio.create_task(behind(rig, call_tools(rig, outcome="held", hold=hold)))
    async with sdk.chat.completions.stream(model=GROUP, messages=MESSAGES, tools=TOOLS) as stream:
        chunks = [event.chunk async for event in stream if event.type == "chunk"]
        final = await stream.get_final_completion()
    await answering
    calls = final.choices[0].message.tool_calls or []
    assert [(call.id, call.function.arguments) for call in calls] == [(call.id, call.arguments) for call in CALLS]
    assert final.choices[0].finish_reason == "tool_calls"
    assert chunks[-1].model_extra is not None
    assert chunks[-1].model_extra["kitemesh"]["approval_id"] == "h-1"


@pytest.mark.requirement("stream:failure-is-never-complete")
async def test_a_stream_that_breaks_off_raises(rig: Rig, sdk: AsyncOpenAI) -> None:
    def react(start: StartTurn) -> None:
        rig.cluster.frame(start, 1, "Hel")
        rig.cluster.fail(start, ErrorCode.UPSTREAM_CUT, "It broke off")

    answering = asyncio.create_task(behind(rig, react))
    stream = await sdk.chat.completions.create(model=GROUP, messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError, match="It broke off"):
        async for _ in stream:
            pass
    await answering


@pytest.mark.requirement("http:error-classes")
async def test_refusals_have_their_classes(rig: Rig, sdk: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        await sdk.chat.completions.create(model=GROUP, messages=MESSAGES, temperature=9)
    assert (bad.value.code, bad.value.param, bad.value.type) == (
        "request.invalid",
        "temperature",
        "invalid_request_error",
    )
    with pytest.raises(openai.NotFoundError) as unknown:
        await sdk.chat.completions.create(model="nothing", messages=MESSAGES)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        await sdk.with_options(api_key="km_wrong").chat.completions.create(model=GROUP, messages=MESSAGES)


@pytest.mark.requirement("http:error-classes")
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (ErrorCode.CONVERSATION_BUSY, openai.ConflictError),
        (ErrorCode.UPSTREAM_LIMITED, openai.RateLimitError),
        (ErrorCode.UPSTREAM_FAILED, openai.InternalServerError),
        (ErrorCode.TURN_TIMEOUT, openai.InternalServerError),
    ],
)
async def test_failures_have_their_classes(
    rig: Rig, sdk: AsyncOpenAI, code: ErrorCode, kind: type[openai.APIStatusError]
) -> None:
    for stream in (False, True):
        answering = asyncio.create_task(behind(rig, lambda start: rig.cluster.fail(start, code)))
        with pytest.raises(kind) as failed:
            await sdk.chat.completions.create(model=GROUP, messages=MESSAGES, stream=stream)
        await answering
        assert failed.value.request_id is not None


@pytest.mark.requirement("models:by-their-raw-id")
async def test_models_are_listed_and_retrieved(sdk: AsyncOpenAI) -> None:
    listed = [model.id async for model in sdk.models.list()]
    assert GROUP in listed
    assert (await sdk.models.retrieve(GROUP)).id == GROUP
    assert (await sdk.models.retrieve("org/name:tag")).owned_by == "org"
