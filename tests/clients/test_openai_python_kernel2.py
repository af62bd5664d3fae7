"""The OpenAI SDK for Python at kernel2's route, which is not the one that the SDK has by itself."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from clients import prompts
from clients.broken_streams import check_beginning, read_until
from clients.prompts import user
from cluster import Cluster

KERNEL2 = "/api/kernel2/chat"

pytestmark = pytest.mark.client("openai-python", openai.__version__)


@pytest.fixture
def sdk(cluster: Cluster) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{cluster.origin}/api/kernel2", api_key=cluster.key, max_retries=0) as client:
        yield client


def ask(sdk: openai.OpenAI, prompt: str, **more: Any) -> openai.Stream[ChatCompletionChunk]:
    body = {"messages": user(prompt), **more}
    stream_class = openai.Stream[ChatCompletionChunk]
    return sdk.post("/chat", body=body, cast_to=ChatCompletionChunk, stream=True, stream_cls=stream_class)


@pytest.mark.case("streamed answer", KERNEL2)
@pytest.mark.requirement("clients:openai-python")
def test_every_chunk_has_a_choice_and_all_that_its_type_promises(sdk: openai.OpenAI) -> None:
    chunks = list(ask(sdk, prompts.SLOWLY + prompts.COUNT))
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.model_dump(), strict=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == prompts.COUNTED
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [*[None] * (len(chunks) - 1), "stop"]


@pytest.mark.case("whole answer", KERNEL2)
def test_a_whole_answer_has_to_be_asked_for(sdk: openai.OpenAI) -> None:
    body = {"messages": user(prompts.COUNT), "stream": False}
    answer = sdk.post("/chat", body=body, cast_to=ChatCompletion)
    ChatCompletion.model_validate(answer.model_dump(), strict=True)
    assert answer.choices[0].message.content == prompts.COUNTED


@pytest.mark.case("error classes", KERNEL2)
@pytest.mark.requirement("clients:error-classes")
def test_a_refusal_is_the_class_that_its_status_promises(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(sdk, prompts.COUNT, temperature="warm")
    told = caught.value.response.json()
    assert told.keys() == {"success", "message", "code"}
    assert (told["success"], told["code"]) == (False, 400)
    with pytest.raises(openai.RateLimitError):
        ask(sdk, prompts.LIMITED)


@pytest.mark.case("a stream that breaks off", KERNEL2)
@pytest.mark.requirement("clients:a-broken-stream-raises")
def test_a_stream_that_breaks_off_raises(sdk: openai.OpenAI) -> None:
    chunks, _ = read_until(openai.APIError, ask(sdk, prompts.BROKEN_OFF))
    check_beginning(chunk.choices[0].delta.content for chunk in chunks)
