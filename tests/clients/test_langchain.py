"""LangChain's `ChatOpenAI`."""

from importlib.metadata import version
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from clients import prompts
from clients.broken_streams import check_beginning, read_until
from cluster import Cluster

pytestmark = pytest.mark.client("langchain", version("langchain-openai"))


class City(BaseModel):
    name: str


@pytest.fixture
def chat(cluster: Cluster) -> ChatOpenAI:
    return ChatOpenAI(model=prompts.MODEL, base_url=f"{cluster.origin}/v1", api_key=cluster.key, max_retries=0)


def added(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    first, *rest = chunks
    whole = first
    for chunk in rest:
        whole += chunk
    return whole


@pytest.mark.case("whole answer")
@pytest.mark.requirement("clients:langchain")
def test_a_whole_answer_is_a_message_with_its_usage(chat: ChatOpenAI) -> None:
    answer = chat.invoke(prompts.COUNT)
    assert answer.content == prompts.COUNTED
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 40


@pytest.mark.case("streamed answer")
@pytest.mark.requirement("clients:langchain")
def test_a_stream_arrives_in_pieces_that_add_up(chat: ChatOpenAI) -> None:
    chunks = list(chat.stream(prompts.SLOWLY + prompts.COUNT))
    assert sum(bool(chunk.content) for chunk in chunks) > 5
    whole = added(chunks)
    assert whole.content == prompts.COUNTED
    assert whole.response_metadata["finish_reason"] == "stop"


@pytest.mark.case("usage of a stream")
def test_a_stream_adds_up_to_its_usage(cluster: Cluster) -> None:
    chat = ChatOpenAI(
        model=prompts.MODEL, base_url=f"{cluster.origin}/v1", api_key=cluster.key, max_retries=0, stream_usage=True
    )
    whole = added(list(chat.stream(prompts.COUNT)))
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == 40


@pytest.mark.case("own tools, whole")
def test_bound_tools_are_called_and_their_results_go_on(chat: ChatOpenAI) -> None:
    bound = chat.bind_tools([prompts.find_city])
    asked = bound.invoke(prompts.FIND_TWO)
    assert [(call["name"], call["args"]) for call in asked.tool_calls] == [
        ("find_city", {"name": "Rome"}),
        ("find_city", {"name": "Oslo"}),
    ]
    results = [ToolMessage(prompts.find_city(**call["args"]), tool_call_id=call["id"]) for call in asked.tool_calls]
    answer = bound.invoke([HumanMessage(prompts.FIND_TWO), asked, *results])
    assert isinstance(answer, AIMessage)
    assert "Oslo is on the map." in answer.text


@pytest.mark.case("own tools, streamed")
def test_streamed_calls_add_up(chat: ChatOpenAI) -> None:
    chunks: list[Any] = list(chat.bind_tools([prompts.find_city]).stream(prompts.FIND_TWO))
    assert [call["args"] for call in added(chunks).tool_calls] == [{"name": "Rome"}, {"name": "Oslo"}]


@pytest.mark.case("server's tools")
def test_a_tool_of_the_servers_is_not_seen(chat: ChatOpenAI) -> None:
    answer = chat.invoke(prompts.FORECAST)
    assert "Paris" in answer.text
    assert answer.tool_calls == []


@pytest.mark.case("a hold and its answer")
def test_a_hold_is_a_message_with_a_call(chat: ChatOpenAI) -> None:
    for held in (chat.invoke(prompts.DELETE), added(list(chat.stream(prompts.DELETE)))):
        assert [(call["name"], call["args"]) for call in held.tool_calls] == [("delete_record", {"id": "42"})]
        assert held.response_metadata["finish_reason"] == "tool_calls"


@pytest.mark.case("structured answer")
def test_an_output_is_of_the_class_that_was_asked_for(chat: ChatOpenAI) -> None:
    assert isinstance(chat.with_structured_output(City).invoke(prompts.DESCRIBE), City)


@pytest.mark.case("files")
def test_an_image_reaches_the_model(chat: ChatOpenAI) -> None:
    image = {"type": "image", "base64": prompts.PIXEL, "mime_type": "image/png"}
    answer = chat.invoke([HumanMessage([{"type": "text", "text": prompts.FILES}, image])])
    assert prompts.PIXEL_TOLD in answer.text


@pytest.mark.case("conversation")
def test_a_history_that_the_client_keeps_is_understood(chat: ChatOpenAI) -> None:
    answer = chat.invoke([("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi."), ("user", prompts.ROLES)])
    assert answer.text.split()[-3:] == ["user", "assistant", "user"]


@pytest.mark.case("error classes")
@pytest.mark.requirement("clients:error-classes")
def test_a_refusal_is_the_class_that_its_status_promises(cluster: Cluster, chat: ChatOpenAI) -> None:
    with pytest.raises(openai.RateLimitError):
        chat.invoke(prompts.LIMITED)
    with pytest.raises(openai.BadRequestError):
        chat.invoke(prompts.COUNT, temperature=9)
    stranger = ChatOpenAI(model=prompts.MODEL, base_url=f"{cluster.origin}/v1", api_key="km_wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.invoke(prompts.COUNT)


@pytest.mark.case("a stream that breaks off")
@pytest.mark.requirement("clients:a-broken-stream-raises")
def test_a_stream_that_breaks_off_raises(chat: ChatOpenAI) -> None:
    chunks, _ = read_until(openai.APIError, chat.stream(prompts.BROKEN_OFF))
    check_beginning(chunk.text for chunk in chunks)
