"""The examples of the published kernel API against the real cluster, as its own readers run them."""

import http.client
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from cluster import LOOPBACK, Cluster, events, streamed_text

PATH = "/api/kernel2/chat"
QUESTION = "Tell me about artificial intelligence."
EXAMPLE = {
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": QUESTION},
    ],
    "stream": True,
}
ROLE = "123e4567-e89b-12d3-a456-426614174999"


def ask(cluster: Cluster, text: str, **more: Any) -> Any:
    body = {"messages": [{"role": "user", "content": text}], "stream": False, **more}
    reply = cluster.call(PATH, body)
    assert reply.status == 200, reply.body
    return reply.json()["choices"][0]["message"]["content"]


@pytest.mark.requirement("kernel:published-examples")
def test_the_published_curl_streams_an_answer_without_a_key(cluster: Cluster) -> None:
    command = ["curl", "-sS", "-X", "POST", cluster.origin + PATH, "-H", "Content-Type: application/json"]
    command += ["-H", "Accept: text/event-stream", "-d", json.dumps(EXAMPLE)]
    body = subprocess.run(command, capture_output=True, check=True).stdout
    assert body.endswith(b"data: [DONE]\n\n")
    assert body.count(b"[DONE]") == 1
    chunks = events(body)
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    assert all(chunk["choices"][0]["delta"] and chunk["system_fingerprint"] for chunk in chunks)
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"][0]["finish_reason"]] == [
        "stop"
    ]
    assert streamed_text(body) == ask(cluster, QUESTION)


def printed(cluster: Cluster) -> Iterator[str]:
    """Read the stream line by line, as the published Python example does."""
    connection = http.client.HTTPConnection(LOOPBACK, cluster.port, timeout=60)
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    connection.request("POST", PATH, body=json.dumps(EXAMPLE), headers=headers)
    for line in connection.getresponse():
        decoded = line.decode().strip()
        if decoded == "data: [DONE]":
            break
        if decoded.startswith("data: "):
            content = json.loads(decoded[6:])["choices"][0]["delta"].get("content", "")
            if content:
                yield content
    else:
        raise AssertionError("the stream ended without [DONE]")
    connection.close()


@pytest.mark.requirement("kernel:published-examples")
def test_the_published_python_reader_prints_the_answer(cluster: Cluster) -> None:
    pieces = list(printed(cluster))
    assert len(pieces) > 1
    assert "".join(pieces) == ask(cluster, QUESTION)


@pytest.mark.requirement("kernel:published-examples", "kernel:defaults")
def test_the_published_request_is_answered_by_the_default_model(cluster: Cluster) -> None:
    body = {
        **EXAMPLE,
        "metadata": {"enable_l0_retrieval": True, "role_id": ROLE},
        "temperature": 0.1,
        "max_tokens": 2000,
    }
    reply = cluster.call(PATH, body)
    assert reply.status == 200
    assert reply.headers["x-kitemesh-role"] == "unknown"
    assert events(reply.body)[0]["model"] == "scripted"
    unknown = cluster.call(PATH, {**body, "model": "gpt-3.5-turbo"})
    assert (unknown.status, unknown.json()["success"], unknown.json()["code"]) == (404, False, 404)


@pytest.mark.requirement("kernel:approvals-are-denied")
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_needs_a_person_is_denied_and_the_turn_ends(cluster: Cluster, stream: bool) -> None:
    body = {
        "model": "agent:assistant",
        "messages": [{"role": "user", "content": "delete record 42"}],
        "stream": stream,
    }
    reply = cluster.call(PATH, body)
    assert reply.status == 200
    execution = cluster.call(f"/v1/executions/{reply.headers['x-execution-id']}").json()
    assert execution["status"] == "completed"
    (call,) = execution["steps"][0]["tool_calls"]
    assert call["status"] == "denied"
    assert cluster.call("/v1/approvals?status=open").json()["data"] == []
    choices = events(reply.body)[-1]["choices"] if stream else reply.json()["choices"]
    assert choices[0]["finish_reason"] == "stop"


def test_a_durable_answer_goes_on_where_it_was_left(cluster: Cluster) -> None:
    body = {"messages": [{"role": "user", "content": "@count 20"}]}
    first = cluster.call(PATH, body, headers={"Idempotency-Key": "kernel2-durable"})
    *blocks, _ = first.body.split(b"\n\n")
    last = blocks[9].split(b"\n")[0].removeprefix(b"id: ").decode()
    rest = cluster.call(PATH, {}, headers={"Last-Event-ID": last})
    assert rest.status == 200
    assert rest.body == b"\n\n".join(blocks[10:]) + b"\n\n"
