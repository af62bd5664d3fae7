"""Agents with a numbered history over HTTP, on two gateways: what is answered, streamed, kept, paged and cleared."""

import concurrent.futures
import json
import time
from typing import Any

import pytest

from cluster import Cluster, Reply
from kitemesh_runtime.rows import BLOCK
from stream_client import Event, events_in, open_session, streaming
from tool_cluster import ToolCluster, calling, make_keys, until

AGENT = "clerk"
SECRET = "hunter2-canary"
NUMBERS = "".join(f"{n} " for n in range(1, 21))


@pytest.fixture
def key(one: Cluster) -> str:
    """A key of a tenant that has said nothing so far."""
    return make_keys(one, (f"t-{time.monotonic_ns()}", ("chat", "approve")))[0]


def path(agent: str = AGENT, query: str = "") -> str:
    return f"/api/agents/{agent}/chat{'?' if query else ''}{query}"


def say(gateway: Cluster, message: str, key: str, agent: str = AGENT, **more: Any) -> Reply:
    return gateway.call(path(agent), {"message": message, **more}, key=key)


def history(gateway: Cluster, key: str, query: str = "", agent: str = AGENT) -> dict[str, Any]:
    reply = gateway.call(path(agent, query), key=key)
    assert reply.status == 200, reply.body
    return dict(reply.json())


def ids(page: dict[str, Any]) -> list[int]:
    return [message["id"] for message in page["messages"]]


def clear(gateway: Cluster, key: str, query: str = "", agent: str = AGENT) -> Reply:
    return gateway.call(path(agent, query), key=key, method="DELETE")


def read_as_published(body: bytes) -> list[dict[str, Any]]:
    """Read a stream as the published example does: every line that begins with `data: ` is JSON."""
    return [json.loads(line[6:]) for line in body.decode().split("\n") if line.startswith("data: ")]


@pytest.mark.requirement("agents:whole-answer", "agents:new-conversation", "agents:ids-by-reservation")
def test_an_answer_is_a_row_of_a_new_conversation(one: Cluster, key: str) -> None:
    reply = say(one, "@echo Hi there!", key)
    assert reply.status == 200
    answer = reply.json()
    assert list(answer) == ["id", "role", "content", "tool_calls", "conversation_id", "created_at"]
    assert (answer["id"], answer["role"], answer["content"], answer["tool_calls"]) == (
        BLOCK,
        "assistant",
        "Hi there!",
        None,
    )
    assert reply.headers["x-conversation-id"] == answer["conversation_id"]
    page = history(one, key)
    assert page["meta"] == {"total": 2, "has_more": False}
    asked, answered = page["messages"]
    assert answered == answer
    assert (asked["id"], asked["role"], asked["content"]) == (1, "user", "@echo Hi there!")
    assert asked["conversation_id"] == answer["conversation_id"]
    assert asked["created_at"] <= answered["created_at"]
    assert asked["created_at"].endswith("Z")


@pytest.mark.requirement("agents:continues", "agents:published-examples")
def test_a_conversation_goes_on_under_the_id_that_the_client_chose(one: Cluster, two: Cluster, key: str) -> None:
    first = say(one, "What's the weather like?", key, conversation_id="conv-123")
    assert first.status == 200
    assert first.json()["conversation_id"] == "conv-123"
    again = say(two, "@roles", key, conversation_id="conv-123").json()
    assert again["content"] == "user assistant user"
    assert again["conversation_id"] == "conv-123"
    apart = say(one, "@roles", key).json()
    assert apart["content"] == "user"
    assert ids(history(two, key, "conversation_id=conv-123")) == [1, BLOCK, 1 + BLOCK, 2 * BLOCK]
    assert history(two, key, "conversation_id=conv-123&limit=1")["meta"] == {"total": 4, "has_more": True}


@pytest.mark.requirement("agents:stream", "agents:never-done-marker")
def test_a_stream_is_start_deltas_and_done_and_nothing_that_is_not_json(one: Cluster, key: str) -> None:
    reply = say(one, "@count 20", key, stream=True)
    assert reply.headers["Content-Type"] == "text/event-stream"
    assert b"[DONE]" not in reply.body
    start, *deltas, done = read_as_published(reply.body)
    assert start == {"type": "start", "id": BLOCK}
    assert {delta["type"] for delta in deltas} == {"delta"}
    message = done["message"]
    assert (done["type"], message["id"], message["role"]) == ("done", start["id"], "assistant")
    assert "".join(delta["content"] for delta in deltas) == message["content"] == NUMBERS
    assert history(one, key)["messages"][1] == message


@pytest.mark.requirement("agents:resumable")
async def test_a_stream_that_broke_off_goes_on_at_another_gateway_without_a_gap(
    one: Cluster, two: Cluster, key: str
) -> None:
    body = {"message": "@reason 5\n@count 20\n@delay_ms 20", "stream": True}
    async with open_session() as session:
        async with streaming(session, one, body, path=path(), key=key) as stream:
            seen = await stream.read(8)
        async with streaming(session, two, {}, path=path(), key=key, last=seen[-1].id) as stream:
            assert stream.status == 200
            rest = await stream.rest()
        async with streaming(session, one, {}, path=path(), key=key, last=seen[-1].id) as stream:
            again = await stream.rest()
    assert _text([*seen, *rest]) == _text([*seen, *again]) == NUMBERS
    assert [json.loads(event.data)["type"] for event in (*seen, *rest)] == ["start", *["delta"] * 20, "done"]


def _text(events: list[Event]) -> str:
    return "".join(json.loads(event.data).get("content", "") for event in events)


async def test_an_execution_begun_elsewhere_is_no_stream_of_an_agent(one: Cluster, key: str) -> None:
    chat = {"model": f"agent:{AGENT}", "messages": [{"role": "user", "content": "hello"}], "stream": True}
    reply = one.call("/v1/chat/completions", {**chat, "metadata": {"mode": "durable"}}, key=key)
    last = events_in(reply.body)[0].id
    refused = one.call(path(), {}, key=key, headers={"Last-Event-ID": last})
    assert refused.status == 404
    assert refused.json() == {"error": {"code": 404, "message": "There is no such execution"}}


@pytest.mark.requirement("agents:hold", "agents:tool-rows")
def test_a_hold_is_a_row_with_calls_and_the_rest_of_its_turn_is_then_in_the_history(
    one: Cluster, two: Cluster, key: str
) -> None:
    said = "@echo Done.\n" + calling(("look", {"id": "x"}), ("sign", {"id": "s", "code": SECRET}), then="@echo Done.")
    answer = say(one, said, key, metadata={"source": "web"}).json()
    assert (answer["role"], answer["content"]) == ("assistant", None)
    (call,) = answer["tool_calls"]
    assert call["type"] == "function"
    assert call["function"]["name"] == "sign"
    assert json.loads(call["function"]["arguments"]) == {"code": "***", "id": "s"}
    page = history(two, key)
    asked, held, looked = page["messages"]
    assert page["meta"] == {"total": 3, "has_more": False}
    assert asked["metadata"] == {"source": "web"}
    assert (held["id"], held["content"]) == (answer["id"], None)
    assert (held["approval_id"], held["expires_at"]) == (answer["approval_id"], answer["expires_at"])
    assert [each["id"] for each in held["tool_calls"]][1:] == [call["id"]]
    assert SECRET not in json.dumps(page["messages"][1:])
    assert (looked["role"], looked["tool_call_id"]) == ("tool", held["tool_calls"][0]["id"])
    body = {"decisions": [{"tool_execution_id": call["id"], "approved": True}]}
    assert two.call(f"/v1/approvals/{answer['approval_id']}/decide", body, key=key).status == 200
    rest = until(lambda: (found := history(one, key, f"after={answer['id']}"))["meta"]["total"] == 5 and found)
    looked, signed, final = rest["messages"]
    assert (signed["role"], signed["tool_call_id"]) == ("tool", call["id"])
    assert (final["id"], final["role"], final["content"]) == (BLOCK, "assistant", "Done.\n\nDone.")
    assert final["tool_calls"] is None
    assert "approval_id" not in history(one, key)["messages"][1]


@pytest.mark.requirement("agents:hold-stream")
def test_a_held_stream_ends_with_the_calls(one: Cluster, key: str) -> None:
    body = say(one, calling(("wipe", {"id": "a"})), key, stream=True).body
    start, done = read_as_published(body)
    assert start == {"type": "start", "id": BLOCK}
    message = done["message"]
    assert (done["type"], message["content"]) == ("done", None)
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["wipe"]
    assert message["id"] == history(one, key)["messages"][1]["id"]
    assert message["approval_id"] == history(one, key)["messages"][1]["approval_id"]


@pytest.mark.requirement("agents:error-object", "agents:invalid-message")
@pytest.mark.parametrize("body", [{}, {"message": ""}, {"message": None}, {"message": 5}, {"message": ["x"]}, [], "x"])
def test_a_request_without_a_message_is_invalid(one: Cluster, key: str, body: Any) -> None:
    reply = one.call(path(), body, key=key)
    assert reply.status == 400
    assert reply.json() == {"error": {"code": 400, "message": "Invalid message"}}


@pytest.mark.requirement("agents:every-mistake-at-once")
def test_every_mistake_is_told_at_once(one: Cluster, key: str) -> None:
    wrong = {"conversation_id": "a b", "stream": "yes", "context": [], "system_prompt": 1, "metadata": "x"}
    reply = one.call(path(), {"message": "", **wrong}, key=key)
    assert reply.status == 400
    error = reply.json()["error"]
    assert error["code"] == 400
    assert error["message"].startswith("Invalid message; ")
    assert all(f"{name}: " in error["message"] for name in wrong)
    for query in ("limit=0", "limit=201", "limit=x", "before=-1", "after=9007199254740993", "conversation_id=a%20b"):
        refused = one.call(path(query=query), key=key)
        assert (refused.status, refused.json()["error"]["code"]) == (400, 400), query
    both = one.call(path(query="limit=x&limit=3&before=1.5&after=99999999999999999999999"), key=key).json()["error"]
    assert all(f"{name}: " in both["message"] for name in ("limit", "before", "after"))
    assert clear(one, key, "conversation_id=$ne").status == 400


@pytest.mark.requirement("agents:unknown-agent")
def test_an_agent_that_does_not_exist_is_not_found_by_any_method(one: Cluster, key: str) -> None:
    for agent in ("nobody", "no body", "x" * 65):
        name = agent.replace(" ", "%20")
        replies = [say(one, "hello", key, name), one.call(path(name), key=key), clear(one, key, agent=name)]
        for reply in replies:
            assert reply.status == 404
            assert reply.json()["error"]["code"] == 404
            assert set(reply.json()) == {"error"}
    assert one.call(path(), {"message": "hello"}, key="km_wrong").json()["error"]["code"] == 401
    assert one.call(path(), method="PATCH", body={}, key=key).json()["error"]["code"] == 405


@pytest.mark.requirement("agents:rate-limited", "agents:user-row-first")
def test_a_busy_agent_that_rejects_is_a_limit(one: Cluster, key: str) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(say, one, "@first_ms 1500\n@echo slow", key, "curt", conversation_id="busy")
        until(lambda: ids(history(one, key, agent="curt")) == [1])
        reply = say(one, "hello", key, "curt", conversation_id="busy")
        assert reply.status == 429
        assert int(reply.headers["Retry-After"]) >= 1
        assert reply.json() == {"error": {"code": 429, "message": "Rate limited"}}
        assert slow.result(30).json()["content"] == "slow"
    assert ids(history(one, key, agent="curt")) == [1, BLOCK]


@pytest.mark.requirement("agents:held-and-rejecting")
def test_an_agent_that_waits_for_a_person_and_rejects_says_for_what(one: Cluster, key: str) -> None:
    held = say(one, calling(("wipe", {"id": "b"})), key, "strict", conversation_id="held").json()
    reply = say(one, "hello", key, "strict", conversation_id="held")
    assert reply.status == 409
    error = reply.json()["error"]
    assert (error["code"], error["approval_id"], error["expires_at"]) == (409, held["approval_id"], held["expires_at"])
    assert reply.headers["x-should-retry"] == "false"


@pytest.mark.requirement("agents:model-failure")
def test_a_model_that_fails_is_an_error_without_its_words(one: Cluster, key: str) -> None:
    reply = say(one, "@fail upstream.refused", key)
    assert reply.status == 500
    assert reply.json() == {"error": {"code": 500, "message": "AI service error"}}
    start, delta, failed = read_as_published(
        say(one, "@echo one two\n@fail upstream.cut after 1", key, stream=True).body
    )
    assert (start["type"], delta) == ("start", {"type": "delta", "content": "one "})
    assert failed == {"type": "error", "message": "AI service error"}
    assert [message["content"] for message in history(one, key)["messages"]][-1] == "one "


@pytest.mark.requirement("agents:context-and-prompt")
def test_context_and_prompt_are_this_turns_and_recorded_on_it(desk: ToolCluster, one: Cluster, key: str) -> None:
    context = {"user": {"plan": "premium", "name": "John"}}
    said = say(one, "@roles", key, context=context, system_prompt="You are a support agent.", conversation_id="c")
    assert said.json()["content"] == "system user"
    assert say(one, "@roles", key, conversation_id="c").json()["content"] == "user assistant user"
    with desk.store() as store:
        kept = store["turns"].find_one({"_id": said.headers["x-execution-id"]})
    assert kept is not None
    assert kept["prompt"] == "You are a support agent."
    assert kept["input"][0] == {"role": "system", "text": 'Context:\n{"user":{"name":"John","plan":"premium"}}'}
    assert [message["role"] for message in history(one, key)["messages"]] == ["user", "assistant"] * 2


@pytest.mark.requirement("agents:paging")
def test_pages_go_back_from_the_newest_and_forward_from_an_id(one: Cluster, two: Cluster, key: str) -> None:
    for n in range(3):
        assert say(one, f"@echo {n}", key).status == 200
    every = ids(history(two, key))
    assert every == [1, 128, 129, 256, 257, 384]
    newest = history(two, key, "limit=2")
    assert (ids(newest), newest["meta"]) == (every[4:], {"total": 6, "has_more": True})
    older = history(one, key, f"limit=4&before={every[4]}")
    assert (ids(older), older["meta"]) == (every[:4], {"total": 6, "has_more": False})
    newer = history(one, key, f"limit=3&after={every[0]}")
    assert (ids(newer), newer["meta"]) == (every[1:4], {"total": 6, "has_more": True})
    assert ids(history(one, key, f"after={every[-1]}")) == []


def test_many_at_once_have_numbers_of_their_own(one: Cluster, two: Cluster, key: str) -> None:
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        replies = list(pool.map(lambda n: say((one, two)[n % 2], f"@echo {n}", key), range(20)))
    assert [reply.status for reply in replies] == [200] * 20
    assert len({reply.json()["id"] for reply in replies}) == 20
    page = history(one, key)
    assert page["meta"] == {"total": 40, "has_more": False}
    assert ids(page) == sorted(ids(page))
    answers = {message["id"]: message["content"] for message in page["messages"]}
    assert all(answers[reply.json()["id"]] == f"{n}" for n, reply in enumerate(replies))


@pytest.mark.requirement("agents:clear")
def test_clearing_counts_what_it_removed_and_the_next_time_nothing(one: Cluster, two: Cluster, key: str) -> None:
    for conversation in ("a", "a", "b"):
        assert say(one, "@echo x", key, conversation_id=conversation).status == 200
    assert clear(two, key, "conversation_id=a").json() == {"success": True, "deleted": 4}
    assert ids(history(one, key)) == [257, 384]
    assert say(one, "@roles", key, conversation_id="a").json()["content"] == "user"
    assert clear(one, key).json() == {"success": True, "deleted": 4}
    assert clear(two, key).json() == {"success": True, "deleted": 0}
    assert history(two, key) == {"messages": [], "meta": {"total": 0, "has_more": False}}
    assert say(one, "@roles", key, conversation_id="b").json()["id"] == 5 * BLOCK


@pytest.mark.requirement("agents:cleared-for-good")
def test_what_runs_or_waits_is_cancelled_first_and_does_not_come_back(
    desk: ToolCluster, one: Cluster, two: Cluster, key: str
) -> None:
    held = say(one, calling(("wipe", {"id": "never"})), key, conversation_id="held").json()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(say, one, "@count 500\n@delay_ms 20", key, conversation_id="runs")
        until(lambda: len(ids(history(two, key))) == 3)
        cleared = clear(two, key).json()
        assert cleared["deleted"] >= 3
        assert slow.result(30).status == 409
    assert history(one, key)["meta"]["total"] == 0
    decision = {"decisions": [{"tool_execution_id": held["tool_calls"][0]["id"], "approved": True}]}
    refused = one.call(f"/v1/approvals/{held['approval_id']}/decide", decision, key=key)
    assert refused.status in (404, 410)
    assert [effect for effect in desk.stub.effects() if effect["path"].endswith("never")] == []
    for conversation in ("held", "runs"):
        began_s = time.monotonic()
        assert say(one, "@roles", key, conversation_id=conversation).json()["content"] == "user"
        assert time.monotonic() - began_s < 5
    assert history(two, key)["meta"]["total"] == 4


@pytest.mark.requirement("agents:tenants-apart", "store:tenant-in-every-call")
def test_another_tenant_has_a_history_of_its_own(one: Cluster, key: str) -> None:
    (foreign,) = make_keys(one, (f"f-{time.monotonic_ns()}", ("chat",)))
    assert say(one, "@echo mine", key, conversation_id="shared").status == 200
    assert history(one, foreign, "conversation_id=shared") == history(one, foreign, "conversation_id=unknown")
    assert clear(one, foreign, "conversation_id=shared").json() == {"success": True, "deleted": 0}
    assert say(one, "@roles", foreign, conversation_id="shared").json()["content"] == "user"
    assert history(one, key, "conversation_id=shared")["meta"]["total"] == 2


@pytest.mark.requirement("agents:idempotency")
def test_the_same_key_is_replayed_and_is_another_request_at_another_agent(one: Cluster, two: Cluster, key: str) -> None:
    headers = {"Idempotency-Key": "once"}
    body = {"message": "@echo once"}
    first = one.call(path(), body, key=key, headers=headers)
    again = two.call(path(), body, key=key, headers=headers)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == first.json()
    assert history(one, key)["meta"]["total"] == 2
    assert one.call(path("hasty"), body, key=key, headers=headers).status == 422
