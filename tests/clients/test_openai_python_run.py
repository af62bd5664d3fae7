"""The OpenAI SDK for Python at the run API, which streams unless it is told not to and has errors of its own."""

import uuid
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion

from clients import prompts
from clients.broken_streams import check_beginning, read_until
from clients.prompts import MODEL, user
from cluster import Cluster

RUN = "/run/v1/chat/completions"

pytestmark = pytest.mark.client("openai-python", openai.__version__)


@pytest.fixture
def sdk(cluster: Cluster) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{cluster.origin}/run/v1", api_key=cluster.key, max_retries=0) as client:
        yield client


@pytest.mark.case("whole answer", RUN)
@pytest.mark.requirement("clients:openai-python")
def test_a_whole_answer_has_to_be_asked_for(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model=MODEL, messages=user(prompts.COUNT), stream=False)
    assert answer.choices[0].message.content == prompts.COUNTED


@pytest.mark.case("streamed answer", RUN)
def test_the_stream_helper_puts_the_answer_together(sdk: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    asked = user(prompts.SLOWLY + prompts.COUNT)
    with sdk.chat.completions.stream(model=MODEL, messages=asked, stream_options=options) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(pieces) == final.choices[0].message.content == prompts.COUNTED
    assert len(pieces) > 5
    assert final.usage is not None


@pytest.mark.case("own tools, streamed", RUN)
def test_the_stream_helper_puts_calls_together(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(model=MODEL, messages=user(prompts.FIND_TWO), tools=[prompts.FIND_TOOL]) as stream:
        final = stream.get_final_completion()
    assert [call.function.name for call in final.choices[0].message.tool_calls or []] == ["find_city"] * 2


@pytest.mark.case("conversation", RUN)
def test_a_conversation_is_made_under_the_clients_own_id(sdk: openai.OpenAI) -> None:
    body = {"conversationId": uuid.uuid4().hex}
    for prompt, said in ((prompts.COUNT, prompts.COUNTED), (prompts.ROLES, "system user assistant user")):
        answer = sdk.chat.completions.create(model=MODEL, messages=user(prompt), stream=False, extra_body=body)
        assert answer.choices[0].message.content == said


@pytest.mark.case("a hold and its answer", RUN)
def test_a_hold_is_answered_where_every_hold_is(cluster: Cluster, sdk: openai.OpenAI) -> None:
    held = sdk.chat.completions.create(model=MODEL, messages=user(prompts.DELETE), stream=False)
    (call,) = held.choices[0].message.tool_calls or []
    assert held.model_extra is not None
    approval = held.model_extra["kitemesh"]["approval_id"]
    body = {"model": MODEL, "approval_id": approval, "approved_tool_execution_ids": [call.id]}
    with openai.OpenAI(base_url=f"{cluster.origin}/v1", api_key=cluster.key, max_retries=0) as resuming:
        answer = resuming.post("/chat/resume", body=body, cast_to=ChatCompletion)
    assert '"deleted": "42"' in (answer.choices[0].message.content or "")


@pytest.mark.case("error classes", RUN)
@pytest.mark.requirement("clients:error-classes")
def test_each_refusal_is_the_class_that_its_status_promises(sdk: openai.OpenAI) -> None:
    def refused(expected: type[openai.APIStatusError], **asked: Any) -> object:
        wanted = {"model": MODEL, "messages": user(prompts.COUNT), "stream": False, **asked}
        with pytest.raises(expected) as caught:
            sdk.chat.completions.create(**wanted)
        return caught.value.body

    assert isinstance(refused(openai.BadRequestError, temperature=9), str)
    assert isinstance(refused(openai.NotFoundError, model="nobody"), str)
    refused(openai.RateLimitError, messages=user(prompts.LIMITED))
    refused(openai.InternalServerError, messages=user(prompts.FAILED))


@pytest.mark.case("a message id that is taken", RUN)
@pytest.mark.requirement("clients:retries")
def test_a_conflict_is_not_tried_again(sdk: openai.OpenAI) -> None:
    body = {"messageId": uuid.uuid4().hex}
    sdk.chat.completions.create(model=MODEL, messages=user(prompts.COUNT), stream=False, extra_body=body)
    with pytest.raises(openai.ConflictError) as caught:
        sdk.with_options(max_retries=2).chat.completions.create(
            model=MODEL, messages=user(prompts.COUNT), stream=False, extra_body=body
        )
    assert caught.value.request.headers["x-stainless-retry-count"] == "0"


@pytest.mark.case("a stream that breaks off", RUN)
@pytest.mark.requirement("clients:a-broken-stream-raises")
def test_a_stream_that_breaks_off_raises(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(model=MODEL, messages=user(prompts.BROKEN_OFF), stream=True)
    chunks, _ = read_until(openai.APIError, stream)
    check_beginning(chunk.choices[0].delta.content for chunk in chunks)
