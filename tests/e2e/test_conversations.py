"""Conversations in a real cluster: listed, searched, gone on with, and deleted while somebody answers in them."""

import concurrent.futures
import json
import time
import uuid
from typing import Any

import pytest

from cluster import Cluster, Reply

PATIENCE_S = 15.0


def begin(cluster: Cluster, text: str) -> str:
    """Begin a conversation and return its id."""
    reply = cluster.chat(text)
    assert reply.status == 200
    conversation: str = reply.json()["kitemesh"]["conversation_id"]
    return conversation


def continue_(cluster: Cluster, conversation: str, text: str, **more: str) -> Reply:
    return cluster.chat(text, metadata={"conversation_id": conversation, **more})


def show(cluster: Cluster, path: str) -> Any:
    reply = cluster.call(f"/v1/conversations{path}")
    assert reply.status == 200, reply.body
    return reply.json()


def delete(cluster: Cluster, conversation: str) -> Reply:
    return cluster.call(f"/v1/conversations/{conversation}", method="DELETE")


def contents(cluster: Cluster, conversation: str) -> list[tuple[str, str]]:
    page = show(cluster, f"/{conversation}/messages")
    return [(message["role"], message["content"]) for message in page["data"]]


@pytest.mark.requirement("conversation:messages-in-pages", "conversation:searched-by-its-words")
def test_a_conversation_is_listed_searched_named_and_shown(cluster: Cluster) -> None:
    word = f"kite{uuid.uuid4().hex[:8]}"
    conversation = begin(cluster, f"@echo {word}")
    assert continue_(cluster, conversation, "@echo second").status == 200
    assert contents(cluster, conversation) == [
        ("user", f"@echo {word}"),
        ("assistant", word),
        ("user", "@echo second"),
        ("assistant", "second"),
    ]
    assert show(cluster, "?limit=1")["data"][0]["id"] == conversation
    assert [kept["id"] for kept in show(cluster, f"?q={word.upper()}")["data"]] == [conversation]
    titled = cluster.call(f"/v1/conversations/{conversation}", {"title": f"About {word}2"}, method="PATCH")
    assert titled.json()["title"] == f"About {word}2"
    assert [kept["id"] for kept in show(cluster, f"?q={word}2")["data"]] == [conversation]
    kept = show(cluster, f"/{conversation}")
    assert (kept["turns"], kept["active_execution_id"], kept["waiting"]) == (2, None, 0)


@pytest.mark.requirement("conversation:deleted-for-good", "conversation:deleted-with-its-turns")
def test_a_deleted_conversation_is_gone_everywhere(cluster: Cluster) -> None:
    word = f"kite{uuid.uuid4().hex[:8]}"
    conversation = begin(cluster, f"@echo {word}")
    turns = cluster.call(f"/v1/executions?conversation_id={conversation}").json()["data"]
    for _ in range(2):
        assert delete(cluster, conversation).json() == {"id": conversation, "deleted": True}
    assert cluster.call(f"/v1/conversations/{conversation}").status == 404
    assert cluster.call(f"/v1/executions/{turns[0]['id']}").status == 404
    assert cluster.call(f"/v1/executions?conversation_id={conversation}").json()["data"] == []
    assert show(cluster, f"?q={word}")["data"] == []
    for mode in ("classic", "durable"):
        refused = continue_(cluster, conversation, "@echo again", mode=mode)
        assert refused.status == 404
        assert refused.json()["error"]["code"] == "conversation.unknown"


@pytest.mark.requirement("conversation:deletion-ends-turns-first")
@pytest.mark.parametrize("mode", ["classic", "durable"])
def test_a_running_turn_and_one_behind_it_end_when_their_conversation_is_deleted(cluster: Cluster, mode: str) -> None:
    conversation = begin(cluster, "@echo first")
    with concurrent.futures.ThreadPoolExecutor() as clients:
        running = clients.submit(continue_, cluster, conversation, "@delay_ms 300\n@count 60", mode=mode)
        until(lambda: show(cluster, f"/{conversation}")["active_execution_id"] is not None)
        waiting = clients.submit(continue_, cluster, conversation, "@echo later", mode=mode)
        until(lambda: show(cluster, f"/{conversation}")["waiting"] == 1)
        assert delete(cluster, conversation).status == 200
        for each in (running, waiting):
            reply = each.result(timeout=PATIENCE_S)
            assert (reply.status, reply.json()["error"]["code"]) == (409, "turn.cancelled"), reply.body
    assert cluster.call(f"/v1/executions?conversation_id={conversation}").json()["data"] == []


@pytest.mark.requirement("conversation:deleted-with-its-holds")
def test_a_held_turns_approval_is_gone_with_its_conversation(cluster: Cluster) -> None:
    reply = cluster.call(
        "/v1/chat/completions",
        {
            "model": "agent:assistant",
            "messages": [{"role": "user", "content": "Please delete record 7"}],
        },
    )
    told = reply.json()["kitemesh"]
    assert reply.json()["choices"][0]["finish_reason"] == "tool_calls", reply.body
    conversation, approval = told["conversation_id"], told["approval_id"]
    with concurrent.futures.ThreadPoolExecutor() as clients:
        deleted = clients.submit(delete, cluster, conversation)
        call = reply.json()["choices"][0]["message"]["tool_calls"][0]["id"]
        decision = {"decisions": [{"tool_execution_id": call, "approved": False}]}
        decided = cluster.call(f"/v1/approvals/{approval}/decide", decision)
        assert deleted.result(timeout=PATIENCE_S).status == 200
    assert decided.status in (200, 404, 410), decided.body
    assert cluster.call(f"/v1/approvals/{approval}").status == 404
    assert cluster.call(f"/v1/executions/{told['execution_id']}").status == 404
    assert conversation not in json.dumps(cluster.call("/v1/approvals").json())


def until(holds: Any) -> None:
    """Return once something holds."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
