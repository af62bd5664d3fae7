"""The first seed's examples, against the real cluster, as its readers would run them."""

import json
import subprocess

import openai
import pytest

from cluster import GROUP, Cluster, events, streamed_text

SUMMARY = {
    "model": GROUP,
    "messages": [{"role": "user", "content": "Give a summary of the key points."}],
    "metadata": {"request_id": "req_demo_001", "mode": "auto"},
}
STREAM = {"model": GROUP, "stream": True, "messages": [{"role": "user", "content": "Prepare a detailed response."}]}


def curl(cluster: Cluster, *flags: str, body: object) -> bytes:
    command = ["curl", "-sS", *flags, "-X", "POST", f"{cluster.origin}/v1/chat/completions"]
    headers = ["-H", f"Authorization: Bearer {cluster.key}", "-H", "Content-Type: application/json"]
    return subprocess.run([*command, *headers, "-d", json.dumps(body)], capture_output=True, check=True).stdout


@pytest.mark.requirement("completions:request-id-is-echoed", "completions:seeds-examples")
def test_the_seeds_standard_curl_is_answered(cluster: Cluster) -> None:
    answer = json.loads(curl(cluster, body=SUMMARY))
    assert answer["object"] == "chat.completion"
    assert answer["model"] == GROUP
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    assert answer["kitemesh"]["request_id"] == "req_demo_001"
    assert answer["kitemesh"]["execution_id"]
    assert answer["kitemesh"]["conversation_id"]


@pytest.mark.requirement("completions:seeds-examples")
def test_the_seeds_streaming_curl_streams_the_same_words(cluster: Cluster) -> None:
    body = curl(cluster, "-N", body=STREAM)
    chunks = events(body)
    assert body.rstrip().endswith(b"data: [DONE]")
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    finishes = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert finishes == ["stop"]
    whole = cluster.call("/v1/chat/completions", {**STREAM, "stream": False}).json()
    assert streamed_text(body) == whole["choices"][0]["message"]["content"]


@pytest.mark.requirement("conversation:continued-while-running", "conversation:stored-before-done")
def test_the_conversation_is_stored_before_the_answer_ends_and_can_be_continued(cluster: Cluster) -> None:
    first = cluster.chat("@echo My name is Ada.")
    conversation = first.headers["x-conversation-id"]
    shown = cluster.verb("conversation", "--tenant", "dev", conversation)
    assert "My name is Ada." in shown
    assert first.headers["x-execution-id"] in shown
    second = cluster.chat("What did I say?", metadata={"conversation_id": conversation})
    assert second.status == 200
    assert second.headers["x-conversation-id"] == conversation


def test_an_unknown_conversation_is_not_found(cluster: Cluster) -> None:
    reply = cluster.chat("Hi", metadata={"conversation_id": "nobody-1"})
    assert reply.status == 404
    assert reply.json()["error"]["type"] == "not_found_error"


@pytest.fixture
def sdk(cluster: Cluster) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{cluster.origin}/v1", api_key=cluster.key, max_retries=0)


def test_the_openai_sdk_reads_whole_answers_streams_and_models(sdk: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    whole = sdk.chat.completions.create(model=GROUP, messages=messages)
    parts = sdk.chat.completions.create(
        model=GROUP, messages=messages, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(parts)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert GROUP in [model.id for model in sdk.models.list()]
    assert sdk.models.retrieve(GROUP).id == GROUP
    with sdk.chat.completions.stream(model=GROUP, messages=messages) as stream:
        assert stream.get_final_completion().choices[0].message.content == text


@pytest.mark.requirement("http:error-classes")
def test_the_openai_sdk_raises_its_own_error_classes(cluster: Cluster, sdk: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    with pytest.raises(openai.NotFoundError):
        sdk.chat.completions.create(model="nobody", messages=messages)
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(model=GROUP, messages=messages, temperature=9)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{cluster.origin}/v1", api_key="km_wrong", max_retries=0).models.list()


@pytest.mark.requirement("start:key-is-kept")
def test_the_whole_start_leaves_a_key_that_only_its_owner_reads(cluster: Cluster) -> None:
    key = cluster.data / "key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert cluster.key.startswith("km_")
    assert cluster.key in cluster.printed()
