"""The LiteLLM SDK, which speaks to this server as to any endpoint that is compatible with OpenAI's."""

import asyncio
import gc
import json
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest

from clients import prompts
from clients.broken_streams import check_beginning, read_async_until
from clients.prompts import user
from cluster import Cluster

pytestmark = [
    pytest.mark.client("litellm", version("litellm")),
    # It warns of its own types, of its own event loops and of clients that it leaves open.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def litellm() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        # Else it fetches a list of prices when it is imported.
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        import litellm  # noqa: PLC0415  it takes seconds

    yield litellm
    with warnings.catch_warnings(action="ignore"):
        # What it leaves open is not found in somebody else's test.
        gc.collect()


@pytest.fixture
def asked(cluster: Cluster) -> dict[str, Any]:
    return {
        "model": f"openai/{prompts.MODEL}",
        "api_base": f"{cluster.origin}/v1",
        "api_key": cluster.key,
        "max_retries": 0,
    }


@pytest.mark.case("whole answer")
@pytest.mark.requirement("clients:litellm")
def test_a_whole_answer_has_its_usage(litellm: Any, asked: dict[str, Any]) -> None:
    answer = litellm.completion(**asked, messages=user(prompts.COUNT))
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", prompts.COUNTED)
    assert choice.finish_reason == "stop"
    assert answer.usage.completion_tokens == 40


@pytest.mark.case("streamed answer")
@pytest.mark.requirement("clients:litellm")
def test_a_stream_arrives_in_pieces_that_add_up(litellm: Any, asked: dict[str, Any]) -> None:
    messages = user(prompts.SLOWLY + prompts.COUNT)
    chunks = list(litellm.completion(**asked, messages=messages, stream=True))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(pieces) == prompts.COUNTED
    assert sum(map(bool, pieces)) > 5
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert litellm.stream_chunk_builder(chunks).choices[0].message.content == prompts.COUNTED


@pytest.mark.case("usage of a stream")
def test_the_last_chunk_has_the_usage(litellm: Any, asked: dict[str, Any]) -> None:
    options = {"include_usage": True}
    *_, last = litellm.completion(**asked, messages=user(prompts.COUNT), stream=True, stream_options=options)
    assert last.usage.completion_tokens == 40


@pytest.mark.case("own tools, whole")
def test_two_calls_of_one_step_are_answered_together(litellm: Any, asked: dict[str, Any]) -> None:
    messages = user(prompts.FIND_TWO)
    choice = litellm.completion(**asked, messages=messages, tools=[prompts.FIND_TOOL]).choices[0]
    assert choice.finish_reason == "tool_calls"
    messages.append(choice.message.model_dump(exclude_none=True))
    for call in choice.message.tool_calls:
        found = prompts.find_city(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": found})
    answer = litellm.completion(**asked, messages=messages, tools=[prompts.FIND_TOOL])
    assert "Oslo is on the map." in answer.choices[0].message.content


@pytest.mark.case("own tools, streamed")
def test_streamed_calls_add_up(litellm: Any, asked: dict[str, Any]) -> None:
    messages = user(prompts.FIND_TWO)
    chunks = list(litellm.completion(**asked, messages=messages, tools=[prompts.FIND_TOOL], stream=True))
    calls = litellm.stream_chunk_builder(chunks, messages=messages).choices[0].message.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == [{"name": "Rome"}, {"name": "Oslo"}]


@pytest.mark.case("server's tools")
def test_a_tool_of_the_servers_is_not_seen(litellm: Any, asked: dict[str, Any]) -> None:
    message = litellm.completion(**asked, messages=user(prompts.FORECAST)).choices[0].message
    assert "Paris" in message.content
    assert not message.tool_calls


@pytest.mark.case("a hold and its answer")
def test_a_hold_is_a_message_with_a_call(litellm: Any, asked: dict[str, Any]) -> None:
    answer = litellm.completion(**asked, messages=user(prompts.DELETE))
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("delete_record", {"id": "42"})
    assert answer.kitemesh["approval_id"]


@pytest.mark.case("reasoning")
def test_reasoning_is_beside_the_content(litellm: Any, asked: dict[str, Any]) -> None:
    message = litellm.completion(**asked, messages=user(prompts.THINK)).choices[0].message
    assert message.content == "Thought through."
    assert message.reasoning_content.strip()


@pytest.mark.case("structured answer")
def test_an_answer_has_the_form_that_was_asked_for(litellm: Any, asked: dict[str, Any]) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": prompts.FIND_SCHEMA}}
    answer = litellm.completion(**asked, messages=user(prompts.DESCRIBE), response_format=form)
    assert list(json.loads(answer.choices[0].message.content)) == ["name"]


@pytest.mark.case("error classes")
@pytest.mark.requirement("clients:error-classes")
def test_a_refusal_is_the_class_that_its_status_promises(litellm: Any, asked: dict[str, Any]) -> None:
    with pytest.raises(litellm.RateLimitError):
        litellm.completion(**asked, messages=user(prompts.LIMITED))
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**{**asked, "model": "openai/nobody"}, messages=user(prompts.COUNT))
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**{**asked, "api_key": "km_wrong"}, messages=user(prompts.COUNT))
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**asked, messages=user(prompts.COUNT), temperature=9)


@pytest.mark.case("a stream that breaks off")
@pytest.mark.requirement("clients:a-broken-stream-raises")
async def test_a_stream_that_breaks_off_raises(litellm: Any, asked: dict[str, Any]) -> None:
    async with asyncio.timeout(30):
        stream = await litellm.acompletion(**asked, messages=user(prompts.BROKEN_OFF), stream=True)
        chunks, _ = await read_async_until(litellm.exceptions.MidStreamFallbackError, stream)
    check_beginning(chunk.choices[0].delta.content for chunk in chunks)
