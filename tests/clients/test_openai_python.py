"""The OpenAI SDK for Python, as its users use it."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from clients import prompts
from clients.broken_streams import check_beginning, read_until
from clients.prompts import MODEL, user
from cluster import Cluster
from tool_cluster import ended

pytestmark = pytest.mark.client("openai-python", openai.__version__)


class City(BaseModel):
    name: str


@pytest.fixture
def sdk(cluster: Cluster) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{cluster.origin}/v1", api_key=cluster.key, max_retries=0) as client:
        yield client


def mine(answer: ChatCompletion | ChatCompletionChunk) -> dict[str, Any]:
    assert answer.model_extra is not None
    return dict(answer.model_extra["kitemesh"])


@pytest.mark.case("whole answer")
@pytest.mark.requirement("clients:openai-python")
def test_a_whole_answer_has_all_that_its_type_promises(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model=MODEL, messages=user(prompts.COUNT))
    strict = ChatCompletion.model_validate(answer.model_dump(), strict=True)
    assert (strict.object, strict.model) == ("chat.completion", MODEL)
    (choice,) = strict.choices
    assert (choice.index, choice.finish_reason, choice.message.role) == (0, "stop", "assistant")
    assert choice.message.content == prompts.COUNTED
    assert choice.message.tool_calls is None
    assert strict.usage is not None
    assert strict.usage.total_tokens == strict.usage.prompt_tokens + strict.usage.completion_tokens
    assert answer._request_id
    assert mine(answer)["execution_id"]


@pytest.mark.case("streamed answer")
@pytest.mark.requirement("clients:openai-python")
def test_every_chunk_has_all_that_its_type_promises(sdk: openai.OpenAI) -> None:
    asked = user(prompts.SLOWLY + prompts.COUNT)
    chunks = list(sdk.chat.completions.create(model=MODEL, messages=asked, stream=True))
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.model_dump(), strict=True)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert len(choices) == len(chunks)
    assert {choice.index for choice in choices} == {0}
    assert "".join(choice.delta.content or "" for choice in choices) == prompts.COUNTED
    assert sum(bool(choice.delta.content) for choice in choices) > 5
    assert [choice.delta.role for choice in choices if choice.delta.role] == ["assistant"]
    assert choices[0].delta.role == "assistant"
    assert [choice.finish_reason for choice in choices] == [*[None] * (len(choices) - 1), "stop"]
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.case("usage of a stream")
def test_only_the_last_chunk_has_the_usage_and_no_choice(sdk: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    *chunks, last = sdk.chat.completions.create(
        model=MODEL, messages=user(prompts.COUNT), stream=True, stream_options=options
    )
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 40
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)


@pytest.mark.case("stream helper")
@pytest.mark.requirement("clients:openai-python")
def test_the_stream_helper_puts_the_answer_together(sdk: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    pieces = []
    with sdk.chat.completions.stream(
        model=MODEL, messages=user(prompts.SLOWLY + prompts.COUNT), stream_options=options
    ) as stream:
        for event in stream:
            if event.type == "content.delta":
                pieces.append(event.delta)
            elif event.type == "content.done":
                assert event.content == prompts.COUNTED
        final = stream.get_final_completion()
    assert "".join(pieces) == prompts.COUNTED
    assert final.choices[0].finish_reason == "stop"
    assert final.choices[0].message.content == prompts.COUNTED
    assert final.usage is not None


@pytest.mark.case("own tools, whole")
def test_two_calls_of_one_step_are_answered_together(sdk: openai.OpenAI) -> None:
    messages = user(prompts.FIND_TWO)
    asked = sdk.chat.completions.create(model=MODEL, messages=messages, tools=[prompts.FIND_TOOL])
    (choice,) = asked.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    calls = choice.message.tool_calls or []
    assert [json.loads(call.function.arguments) for call in calls] == [{"name": "Rome"}, {"name": "Oslo"}]
    assert len({call.id for call in calls}) == 2
    messages.append(choice.message.model_dump(exclude_none=True))
    for call in calls:
        found = prompts.find_city(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": found})
    answer = sdk.chat.completions.create(model=MODEL, messages=messages, tools=[prompts.FIND_TOOL])
    said = answer.choices[0].message.content or ""
    assert "Rome is on the map." in said
    assert "Oslo is on the map." in said


@pytest.mark.case("own tools, streamed")
@pytest.mark.requirement("clients:openai-python")
def test_the_stream_helper_puts_calls_together(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(model=MODEL, messages=user(prompts.FIND_TWO), tools=[prompts.FIND_TOOL]) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    assert [(event.index, event.name) for event in done] == [(0, "find_city"), (1, "find_city")]
    assert final.choices[0].finish_reason == "tool_calls"
    calls = final.choices[0].message.tool_calls or []
    assert [json.loads(call.function.arguments)["name"] for call in calls] == ["Rome", "Oslo"]
    assert len({call.id for call in calls}) == 2


@pytest.mark.case("server's tools")
def test_a_tool_of_the_servers_is_not_seen(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(model=MODEL, messages=user(prompts.FORECAST)) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "stop"
    assert not final.choices[0].message.tool_calls
    assert "Paris" in (final.choices[0].message.content or "")


@pytest.mark.case("a hold and its answer")
def test_the_stream_helper_reads_a_hold_that_is_then_denied(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(model=MODEL, messages=user(prompts.DELETE)) as stream:
        chunks = [event.chunk for event in stream if event.type == "chunk"]
        held = stream.get_final_completion()
    assert held.choices[0].finish_reason == "tool_calls"
    (call,) = held.choices[0].message.tool_calls or []
    denial = {"tool_execution_id": call.id, "reason": "Not this one."}
    body = {"model": MODEL, "approval_id": mine(chunks[-1])["approval_id"], "denied_tools": [denial]}
    answer = sdk.post("/chat/resume", body={**body, "approved_tool_execution_ids": []}, cast_to=ChatCompletion)
    assert answer.choices[0].finish_reason == "stop"
    assert "Not this one." in (answer.choices[0].message.content or "")


@pytest.mark.case("reasoning")
def test_reasoning_is_beside_the_content(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model=MODEL, messages=user(prompts.THINK))
    message = answer.choices[0].message
    assert message.content == "Thought through."
    assert message.model_extra is not None
    assert message.model_extra["reasoning_content"].strip()
    chunks = sdk.chat.completions.create(model=MODEL, messages=user(prompts.THINK), stream=True)
    extras = [chunk.choices[0].delta.model_extra or {} for chunk in chunks]
    assert "".join(extra.get("reasoning_content") or "" for extra in extras) == message.model_extra["reasoning_content"]


@pytest.mark.case("cut off by its length")
def test_an_answer_that_was_too_long_says_so(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model=MODEL, messages=user(prompts.CUT_SHORT))
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.case("structured answer")
@pytest.mark.requirement("clients:openai-python")
def test_an_answer_is_parsed_into_the_class_that_was_asked_for(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.parse(model=MODEL, messages=user(prompts.DESCRIBE), response_format=City)
    assert isinstance(answer.choices[0].message.parsed, City)
    with sdk.chat.completions.stream(model=MODEL, messages=user(prompts.DESCRIBE), response_format=City) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == answer.choices[0].message.parsed


@pytest.mark.case("strict tools")
def test_the_arguments_of_a_strict_tool_are_parsed(sdk: openai.OpenAI) -> None:
    tool = openai.pydantic_function_tool(City, name="find_city")
    answer = sdk.chat.completions.parse(model=MODEL, messages=user(prompts.FIND), tools=[tool])
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == City(name="Rome")


@pytest.mark.case("several choices")
def test_choices_are_numbered(sdk: openai.OpenAI) -> None:
    asked = user(prompts.COUNT)
    answer = sdk.chat.completions.create(model="scripted", messages=asked, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3
    with sdk.chat.completions.stream(model="scripted", messages=asked, n=3) as stream:
        final = stream.get_final_completion()
    assert [c.message.content for c in final.choices] == [c.message.content for c in answer.choices]


@pytest.mark.case("log probabilities")
def test_tokens_come_with_their_log_probabilities(sdk: openai.OpenAI) -> None:
    wanted: dict[str, Any] = {
        "model": "scripted",
        "messages": user(prompts.COUNT),
        "logprobs": True,
        "top_logprobs": 2,
    }
    answer = sdk.chat.completions.create(**wanted)
    found = answer.choices[0].logprobs
    assert found is not None
    assert found.content
    assert "".join(each.token for each in found.content) == prompts.COUNTED
    assert all(len(each.top_logprobs) == 2 for each in found.content)
    with sdk.chat.completions.stream(**wanted) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].logprobs == found


@pytest.mark.case("files")
def test_an_image_reaches_the_model(sdk: openai.OpenAI) -> None:
    parts: Any = [
        {"type": "text", "text": prompts.FILES},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{prompts.PIXEL}"}},
    ]
    answer = sdk.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
    assert prompts.PIXEL_TOLD in (answer.choices[0].message.content or "")


@pytest.mark.case("conversation")
def test_a_conversation_goes_on_by_its_id(sdk: openai.OpenAI) -> None:
    first = sdk.chat.completions.create(model=MODEL, messages=user(prompts.COUNT))
    conversation = mine(first)["conversation_id"]
    second = sdk.chat.completions.create(
        model=MODEL, messages=user(prompts.ROLES), metadata={"conversation_id": conversation}
    )
    assert second.choices[0].message.content == "system user assistant user"


@pytest.mark.case("models")
def test_models_are_listed_and_found_by_ids_with_a_colon(sdk: openai.OpenAI) -> None:
    listed = {model.id: model for model in sdk.models.list()}
    assert {MODEL, "scripted", "agent:assistant"} <= listed.keys()
    assert all(isinstance(model.created, int) and model.owned_by for model in listed.values())
    assert sdk.models.retrieve(MODEL).id == MODEL


@pytest.mark.case("error classes")
@pytest.mark.requirement("clients:error-classes")
def test_each_refusal_is_the_class_that_its_status_promises(cluster: Cluster, sdk: openai.OpenAI) -> None:
    def refused(expected: type[openai.APIStatusError], **asked: Any) -> openai.APIStatusError:
        wanted = {"model": MODEL, "messages": user(prompts.COUNT), **asked}
        with pytest.raises(expected) as caught:
            sdk.chat.completions.create(**wanted)
        assert caught.value.request_id
        assert isinstance(caught.value.body, dict)
        assert caught.value.body["message"]
        return caught.value

    for stream in (False, True):
        bad = refused(openai.BadRequestError, temperature=9, stream=stream)
        assert (bad.param, bad.type) == ("temperature", "invalid_request_error")
        assert refused(openai.NotFoundError, model="nobody", stream=stream).code == "model_not_found"
        refused(openai.RateLimitError, messages=user(prompts.LIMITED), stream=stream)
        broken = refused(openai.InternalServerError, messages=user(prompts.FAILED), stream=stream)
        assert (broken.status_code, broken.type) == (502, "upstream_error")
    repeated = {"Idempotency-Key": f"clients-{id(sdk)}"}
    sdk.chat.completions.create(model=MODEL, messages=user(prompts.COUNT), extra_headers=repeated)
    refused(openai.UnprocessableEntityError, messages=user("Something else"), extra_headers=repeated)
    with (
        openai.OpenAI(base_url=f"{cluster.origin}/v1", api_key="km_wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


@pytest.mark.case("retries")
@pytest.mark.requirement("clients:retries")
def test_a_failure_is_tried_again_unless_a_tool_has_run(sdk: openai.OpenAI) -> None:
    for prompt, tries in ((prompts.FAILED, 1), (prompts.FAILED_LATER, 0)):
        with pytest.raises(openai.InternalServerError) as caught:
            sdk.with_options(max_retries=1).chat.completions.create(model=MODEL, messages=user(prompt))
        assert caught.value.request.headers["x-stainless-retry-count"] == str(tries)


@pytest.mark.case("a stream that breaks off")
@pytest.mark.requirement("clients:a-broken-stream-raises")
def test_a_stream_that_breaks_off_raises_and_never_seems_complete(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(model=MODEL, messages=user(prompts.BROKEN_OFF), stream=True)
    chunks, error = read_until(openai.APIError, stream)
    assert isinstance(error, openai.APIError)
    assert error.message
    assert error.code == "upstream.cut"
    check_beginning(chunk.choices[0].delta.content for chunk in chunks)
    assert {chunk.choices[0].finish_reason for chunk in chunks} == {None}


@pytest.mark.case("leaving a stream")
def test_leaving_a_stream_stops_its_turn(cluster: Cluster, sdk: openai.OpenAI) -> None:
    raw = sdk.chat.completions.with_raw_response.create(model=MODEL, messages=user(prompts.ENDLESS), stream=True)
    with raw.parse() as stream:
        for chunk in stream:
            if chunk.choices[0].delta.content:
                break
    ended(cluster, raw.headers["x-execution-id"], "cancelled")
