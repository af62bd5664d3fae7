"""The run API's chat completions, on the catalog of `make up`."""

import concurrent.futures
import json
import subprocess
import uuid
from typing import Any

import openai
import pytest

from cluster import GROUP, Cluster, Reply, events, streamed_text
from tool_cluster import content, read_held, resume

PATH = "/run/v1/chat/completions"
AT_ONCE = 20
SEED = r"""
curl -X POST "https://api.pilot.inkeep.com/run/v1/chat/completions" \
-H "Content-Type: application/json" \
-d '{ "messages": [ { "content": "string", "role": "system" } ], "model": "string" }'"""


def ask(cluster: Cluster, text: str, *, key: str | None = "", **more: Any) -> Reply:
    body = {"model": GROUP, "messages": [{"role": "user", "content": text}], "stream": False, **more}
    return cluster.call(PATH, body, key=key)


def fresh() -> str:
    return uuid.uuid4().hex


def curl(cluster: Cluster, line: str) -> tuple[int, str, str]:
    """Run a published command against the cluster and return status, content type and body."""
    line = line.replace("https://api.pilot.inkeep.com", cluster.origin)
    line += r" -sS -w '\n%{http_code} %{content_type}'"
    printed = subprocess.run(["bash", "-c", line], capture_output=True, check=True, text=True, timeout=60).stdout
    body, _, told = printed.rpartition("\n")
    status, _, media = told.partition(" ")
    return int(status), media, body


@pytest.mark.requirement("run-completions:seeds-example", "run-completions:streams-unless-told")
def test_the_seeds_command_is_understood_and_streams_once_its_model_is_there(cluster: Cluster) -> None:
    status, media, body = curl(cluster, SEED)
    assert (status, media) == (404, "application/json")
    assert list(json.loads(body)) == ["error"]
    status, media, body = curl(cluster, SEED.replace('"model": "string"', '"model": "scripted"'))
    assert (status, media) == (200, "text/event-stream")
    chunks = events(body.encode())
    assert {chunk["model"] for chunk in chunks} == {"scripted"}
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [each["choices"][0]["finish_reason"] for each in chunks if each["choices"][0]["finish_reason"]] == ["stop"]
    assert body.endswith("data: [DONE]\n\n")


@pytest.mark.requirement("run-completions:conversation")
def test_a_conversation_is_made_under_the_clients_id_and_gone_on_with(cluster: Cluster) -> None:
    conversation = fresh()
    first = ask(cluster, "@echo one", conversationId=conversation)
    assert first.headers["x-conversation-id"] == conversation
    assert first.json()["kitemesh"]["conversation_id"] == conversation
    second = cluster.call(PATH, {**_body("@roles"), "conversationId": conversation})
    assert streamed_text(second.body).split() == ["system", "user", "assistant", "user"]
    other = ask(cluster, "@roles")
    assert content(other).split() == ["system", "user"]
    assert other.headers["x-conversation-id"] != conversation


@pytest.mark.requirement("run-completions:fields")
@pytest.mark.parametrize("mode", ["classic", "durable"])
def test_the_mode_that_is_asked_for_is_the_one_that_runs(cluster: Cluster, mode: str) -> None:
    reply = ask(cluster, "@echo hello", executionMode=mode)
    assert content(reply) == "hello"
    shown = cluster.call(f"/v1/executions/{reply.headers['x-execution-id']}").json()
    assert (shown["mode"], shown["status"]) == (mode, "completed")


@pytest.mark.requirement("run-completions:message-id-conflict", "run-completions:one-message-one-turn")
@pytest.mark.parametrize("mode", ["classic", "durable"])
def test_of_many_requests_with_one_message_id_one_runs(cluster: Cluster, mode: str) -> None:
    message, conversation = fresh(), fresh()
    more = {"messageId": message, "conversationId": conversation, "executionMode": mode}
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as clients:
        replies = list(clients.map(lambda _: ask(cluster, "@echo once", **more), range(AT_ONCE)))
    statuses = sorted(reply.status for reply in replies)
    assert statuses == [200] + [409] * (AT_ONCE - 1)
    again = ask(cluster, "@echo twice", messageId=message)
    for reply in (*(reply for reply in replies if reply.status == 409), again):
        assert reply.headers["Content-Type"] == "application/problem+json"
        assert reply.headers["x-should-retry"] == "false"
        body = reply.json()
        assert (body["code"], body["status"], body["title"]) == ("conflict", 409, "Conflict")
        assert body["detail"] == body["error"]["message"] == "Message with the supplied id already exists"
    told = json.loads(cluster.verb("conversation", "--tenant", "dev", conversation))
    assert len(told["turns"]) == 1


@pytest.mark.requirement("run-completions:errors")
def test_every_refusal_has_the_body_that_the_seed_publishes(cluster: Cluster) -> None:
    wrong = cluster.call(PATH, {"model": GROUP, "messages": [{"role": "king", "content": "x"}], "temperature": 2})
    assert (wrong.status, wrong.headers["Content-Type"]) == (400, "application/json")
    assert {(each["field"], each["value"]) for each in wrong.json()["details"]} >= {
        ("messages.0.role", "king"),
        ("temperature", 2),
    }
    missing = ask(cluster, "x", model="nothing")
    assert (missing.status, list(missing.json())) == (404, ["error"])
    scope = json.loads(cluster.verb("keys", "create", "--json", "--tenant", "dev", "--scope", "approve"))
    for reply, status, code in (
        (ask(cluster, "x", key="km_" + "A" * 57), 401, "unauthorized"),
        (ask(cluster, "x", key=scope["key"]), 403, "forbidden"),
        (cluster.call(PATH, {}, headers={"Content-Type": "text/plain"}), 415, "unsupported_media_type"),
        (cluster.call(PATH, method="PUT"), 405, "method_not_allowed"),
    ):
        assert (reply.status, reply.headers["Content-Type"]) == (status, "application/problem+json")
        body = reply.json()
        assert (body["code"], body["status"], body["error"]["code"]) == (code, status, code)
        assert body["requestId"] == reply.headers["x-request-id"]
        assert body["instance"] == PATH


@pytest.mark.requirement("run-completions:answers-as-completions")
def test_the_sdk_reads_it_streamed_and_whole(cluster: Cluster) -> None:
    with openai.OpenAI(base_url=cluster.origin + "/run/v1", api_key=cluster.key, max_retries=0) as client:
        whole = client.chat.completions.create(
            model=GROUP, messages=[{"role": "user", "content": "@echo hello"}], stream=False
        )
        assert whole.choices[0].message.content == "hello"
        with client.chat.completions.create(
            model=GROUP,
            messages=[{"role": "user", "content": "@count 3"}],
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"conversationId": fresh(), "messageId": fresh()},
        ) as stream:
            chunks = list(stream)
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices).split() == ["1", "2", "3"]
        assert chunks[-1].usage is not None
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(
                model=GROUP, messages=[{"role": "user", "content": "x"}], temperature=1.5, stream=False
            )
        assert caught.value.body == "temperature: must be at most 1"


@pytest.mark.requirement("run-completions:holds")
def test_a_hold_is_told_as_in_completions_and_answered_by_its_resume(cluster: Cluster) -> None:
    conversation = fresh()
    reply = ask(cluster, "Delete record 7", conversationId=conversation)
    assert reply.status == 200
    held = read_held(reply.json())
    assert reply.json()["choices"][0]["message"]["content"] is None
    assert reply.json()["choices"][0]["finish_reason"] == "tool_calls"
    answer = resume(
        cluster,
        {"model": GROUP, "approval_id": held.approval, "approved_tool_execution_ids": list(held.calls)},
    )
    assert "delete_record" in content(answer)
    after = cluster.call(PATH, {**_body("@roles"), "conversationId": conversation})
    assert streamed_text(after.body).split()[-1] == "user"
    assert "tool" in streamed_text(after.body).split()


def _body(text: str) -> dict[str, Any]:
    return {"model": GROUP, "messages": [{"role": "user", "content": text}]}
