"""`POST /run/api/chat` on a running cluster: turns, holds, their answers, message ids, and streams to come back to."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from cluster import Cluster, Reply
from kitemesh_contracts.topology import OUT
from kitemesh_gateway import positions
from kitemesh_runtime.bus_nats import open_bus
from kitemesh_runtime.driver_mongo import open_database
from kitemesh_runtime.issuing import issue
from kitemesh_runtime.stores_mongo import open_stores
from stream_client import Event, events_in, open_session, streaming
from tool_cluster import DATABASE, Gateway
from ui_message import UiMessage, events_of, types_of

CHAT = "/run/api/chat"
DELETE = "Delete record 42."
WEATHER = "What is the weather in Paris?"
TWO = '@call delete_record {"id": "1"}\n@call delete_record {"id": "2"}'
SLOW = "@delay_ms 30\n@count 20"
STEPS = '@echo I will look.\n@call get_weather {"city": "Oslo"}\n@then\n@delay_ms 10\n@echo It is fine there.'
CROWD = 20

SEEDS_CURL = b'{ "messages": [ { "role": "system" } ] }'


@pytest.fixture(scope="module")
def keys(cluster: Cluster) -> dict[str, str]:
    """Keys of two tenants, answered by the assistant where a request names nobody."""
    environment = cluster.environment()
    pepper = environment["KITEMESH_KEY_PEPPER"].encode()

    async def make() -> dict[str, str]:
        url = environment["KITEMESH_MONGO_URL"]
        async with open_database(url, name=DATABASE, driver="pymongo") as database, open_stores(database) as stores:
            made = {}
            for name, scopes in {
                "acme": ("chat", "approve"),
                "other": ("chat", "approve"),
                "talker": ("chat",),
            }.items():
                tenant = "acme" if name == "talker" else name
                text, _ = await issue(stores.keys, pepper, tenant=tenant, scopes=scopes, default_agent="assistant")
                made[name] = text
        return made

    return asyncio.run(make())


@pytest.fixture(scope="module")
def key(keys: dict[str, str]) -> str:
    return keys["acme"]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


def user(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "user", "parts": [{"type": "text", "text": text}], **more}


def body(text: str, chat: str = "", **more: Any) -> dict[str, Any]:
    """Return what the SDK sends for a new message."""
    return {"id": chat or new_id(), "messages": [user(text, id=new_id())], "trigger": "submit-message", **more}


def new_id() -> str:
    return uuid4().hex


def problem(reply: Reply, status: int) -> dict[str, Any]:
    assert reply.status == status, reply.body
    assert reply.headers["Content-Type"] == "application/problem+json"
    told: dict[str, Any] = reply.json()
    assert told["status"] == status
    assert told["requestId"] == reply.headers["x-request-id"]
    return told


def read(reply: Reply) -> UiMessage:
    assert reply.status == 200, reply.body
    return UiMessage().read(reply.body)


def answers(message: UiMessage, *decided: tuple[str, bool], text: str = "", **more: Any) -> dict[str, Any]:
    """Return what the SDK sends when calls of a message were decided: its history, and its own id as `messageId`."""
    parts = [
        {
            "type": part["type"],
            "toolCallId": part["toolCallId"],
            "state": "approval-responded",
            "input": part["input"],
            "approval": {"id": part["approval"], "approved": dict(decided)[part["toolCallId"]], "reason": "because"},
        }
        for part in message.parts
        if part.get("toolCallId") in dict(decided)
    ]
    messages = [user("asked", id=new_id()), {"id": message.id, "role": "assistant", "parts": parts}]
    if text:
        messages.append(user(text, id=new_id()))
    return {
        "id": message.metadata["conversationId"],
        "messages": messages,
        "trigger": "submit-message",
        **({} if text else {"messageId": message.id}),
        **more,
    }


def asked(message: UiMessage) -> list[str]:
    """Return the calls that wait for a person."""
    return [part["toolCallId"] for part in message.parts if part.get("state") == "approval-requested"]


@pytest.mark.requirement("run-chat:seeds-curl")
def test_the_seeds_own_example_is_answered(cluster: Cluster) -> None:
    assert read(cluster.call(CHAT, SEEDS_CURL, key=None)).finishes == ["stop"]
    told = problem(cluster.call(CHAT, SEEDS_CURL, key="km_wrong"), 401)
    assert (told["code"], told["title"], told["instance"]) == ("unauthorized", "Unauthorized", CHAT)


@pytest.mark.requirement("run-chat:stream-headers", "run-chat:sdks-own-send")
def test_a_new_message_is_a_turn_of_a_conversation_that_is_made_for_it(cluster: Cluster, key: str) -> None:
    chat = new_id()
    reply = cluster.call(CHAT, body("@echo Hello.", chat), key=key)
    assert reply.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert reply.headers["x-vercel-ai-data-stream"] == "v2"
    assert reply.headers["x-conversation-id"] == chat
    message = read(reply)
    assert message.text == "Hello."
    assert message.id == reply.headers["x-execution-id"]
    again = read(cluster.call(CHAT, body("@roles", chat), key=key))
    assert again.text.endswith("user assistant user")


@pytest.mark.requirement("run-chat:order-of-a-call")
@pytest.mark.parametrize("mode", ["classic", "durable"])
def test_server_tools_are_shown_with_their_results(cluster: Cluster, key: str, mode: str) -> None:
    message = read(cluster.call(CHAT, body(WEATHER, executionMode=mode), key=key))
    (part,) = [part for part in message.parts if part["type"] == "tool-get_weather"]
    assert (part["state"], part["input"], part["output"]["city"]) == ("output-available", {"city": "Paris"}, "Paris")
    assert [part["type"] for part in message.parts].count("step-start") == 2


@pytest.mark.requirement("run-chat:message-id-conflict")
def test_of_many_requests_with_one_message_id_one_is_a_turn(cluster: Cluster, elsewhere: Gateway, key: str) -> None:
    chat, message = new_id(), new_id()
    request = {"id": chat, "messages": [user("@echo Once.", id=message)]}
    asked_before = model_calls(cluster)
    with ThreadPoolExecutor(CROWD) as pool:
        gateways = [cluster, elsewhere] * (CROWD // 2)
        replies = list(pool.map(lambda gateway: gateway.call(CHAT, request, key=key), gateways))
    assert sorted(reply.status for reply in replies) == [200] + [409] * (CROWD - 1)
    for refused in (reply for reply in replies if reply.status == 409):
        told = problem(refused, 409)
        assert told == {
            "code": "conflict",
            "detail": "Message with the supplied id already exists",
            "instance": f"/conversations/{chat}",
            "requestId": told["requestId"],
            "status": 409,
            "title": "Conflict",
            "error": {"code": "conflict", "message": "Message with the supplied id already exists"},
        }
        assert refused.headers["x-should-retry"] == "false"
    stored = cluster.call(f"/v1/executions?conversation_id={chat}", key=key).json()["data"]
    assert len(stored) == 1
    anywhere = {"id": new_id(), "messages": [user("@echo Again.", id=message)]}
    problem(cluster.call(CHAT, anywhere, key=key), 409)
    assert cluster.call(f"/v1/executions?conversation_id={anywhere['id']}", key=key).json()["data"] == []
    (winner,) = (reply for reply in replies if reply.status == 200)
    assert [turn for turn in model_calls(cluster) if turn not in asked_before] == [winner.headers["x-execution-id"]]


def model_calls(cluster: Cluster) -> list[str]:
    """Return the turns for which a model was called, once for each call."""
    log = (cluster.data / "logs" / "model-runner.log").read_text()
    return re.findall(r'"turn":"([^"]+)"', "\n".join(line for line in log.splitlines() if '"step.ended"' in line))


def test_a_message_id_is_another_tenants_own_business(cluster: Cluster, keys: dict[str, str]) -> None:
    request = body("@echo Hello.")
    for tenant in ("acme", "other"):
        assert read(cluster.call(CHAT, request, key=keys[tenant])).text == "Hello."


def test_regenerating_is_no_new_message(cluster: Cluster, key: str) -> None:
    request = body("@echo Hello.")
    first = read(cluster.call(CHAT, request, key=key))
    again = request | {"trigger": "regenerate-message", "messageId": first.id}
    second = read(cluster.call(CHAT, again, key=key))
    assert (second.text, second.id == first.id) == ("Hello.", False)


@pytest.mark.requirement("run-chat:hold", "run-chat:continuation")
@pytest.mark.parametrize("mode", ["classic", "durable"])
@pytest.mark.parametrize("approved", [True, False])
def test_a_held_call_is_answered_by_a_post_to_the_same_url(
    cluster: Cluster, elsewhere: Gateway, key: str, mode: str, *, approved: bool
) -> None:
    message = read(cluster.call(CHAT, body(DELETE, executionMode=mode), key=key))
    (call,) = asked(message)
    assert message.finishes == ["tool-calls"]
    approval = cluster.call(f"/v1/approvals/{message.metadata['approvalId']}", key=key).json()
    assert [each["tool_execution_id"] for each in approval["calls"]] == [call]
    reply = elsewhere.call(CHAT, answers(message, (call, approved)), key=key)
    assert types_of(reply.body)[:3] == [
        "start",
        "tool-output-available" if approved else "tool-output-denied",
        "start-step",
    ]
    assert events_of(reply.body)[0]["messageId"] == message.id
    message.read(reply.body)
    assert message.finishes == ["tool-calls", "stop"]
    assert ('"deleted": "42"' in message.text) is approved


@pytest.mark.requirement("run-chat:answered-again")
def test_the_same_answer_again_is_the_same_continuation(cluster: Cluster, key: str) -> None:
    message = read(cluster.call(CHAT, body(DELETE), key=key))
    (call,) = asked(message)
    first, second = (cluster.call(CHAT, answers(message, (call, True)), key=key) for _ in range(2))
    assert second.body == first.body
    # What was decided stays decided, whatever a client that resends its history says of it.
    other = cluster.call(CHAT, answers(message, (call, False)), key=key)
    assert other.body == first.body


@pytest.mark.requirement("run-chat:partial-answer")
def test_calls_may_be_answered_one_after_the_other(cluster: Cluster, elsewhere: Gateway, key: str) -> None:
    message = read(cluster.call(CHAT, body(TWO), key=key))
    first, second = asked(message)
    message.read(elsewhere.call(CHAT, answers(message, (first, True)), key=key).body)
    assert asked(message) == [second]
    assert message.tool(first)["state"] == "output-available"
    assert message.finishes == ["tool-calls", "tool-calls"]
    message.read(cluster.call(CHAT, answers(message, (second, False)), key=key).body)
    assert message.tool(second)["state"] == "output-denied"
    assert message.finishes[-1] == "stop"


@pytest.mark.requirement("run-chat:several-answers")
def test_several_calls_are_answered_at_once(cluster: Cluster, key: str) -> None:
    message = read(cluster.call(CHAT, body(TWO), key=key))
    first, second = asked(message)
    message.read(cluster.call(CHAT, answers(message, (first, False), (second, True)), key=key).body)
    assert [message.tool(call)["state"] for call in (first, second)] == ["output-denied", "output-available"]


@pytest.mark.requirement("run-chat:answer-and-message")
def test_an_answer_and_a_new_message_are_both_heard(cluster: Cluster, key: str) -> None:
    message = read(cluster.call(CHAT, body(DELETE), key=key))
    (call,) = asked(message)
    both = read(cluster.call(CHAT, answers(message, (call, True), text="@echo And on."), key=key))
    assert (both.text, both.id == message.id) == ("And on.", False)
    execution = cluster.call(f"/v1/executions/{message.id}", key=key).json()
    assert execution["status"] == "completed"
    assert execution["steps"][0]["tool_calls"][0]["status"] == "completed"
    # The history with the answer in it may be sent again and again.
    third = read(cluster.call(CHAT, answers(message, (call, True), text="@echo Still on."), key=key))
    assert third.text == "Still on."


@pytest.mark.requirement("run-chat:unknown-conversation")
def test_an_answer_to_what_is_not_there_is_a_404(cluster: Cluster, keys: dict[str, str]) -> None:
    message = read(cluster.call(CHAT, body(DELETE), key=keys["acme"]))
    (call,) = asked(message)
    request = answers(message, (call, True))
    foreign = problem(cluster.call(CHAT, request, key=keys["other"]), 404)
    missing = problem(cluster.call(CHAT, request | {"id": "nowhere"}, key=keys["other"]), 404)
    unsaid = {"requestId": "", "instance": ""}
    assert foreign | unsaid == missing | unsaid
    assert foreign["detail"] == "The conversation does not exist"
    nobodys = read(cluster.call(CHAT, body("@echo Hello."), key=keys["acme"]))
    elsewhere = request | {"id": nobodys.metadata["conversationId"]}
    assert problem(cluster.call(CHAT, elsewhere, key=keys["acme"]), 404)["detail"] == "There is no such approval"
    assert problem(cluster.call(CHAT, request, key=keys["talker"]), 403)["code"] == "forbidden"
    assert cluster.call(f"/v1/approvals/{message.metadata['approvalId']}", key=keys["acme"]).json()["status"] == "open"


def test_an_answer_that_comes_after_a_new_message_took_its_place_is_gone(cluster: Cluster, key: str) -> None:
    chat = new_id()
    message = read(cluster.call(CHAT, body(DELETE, chat), key=key))
    assert read(cluster.call(CHAT, body("@echo Never mind.", chat), key=key)).text == "Never mind."
    (call,) = asked(message)
    late = cluster.call(CHAT, answers(message, (call, True)), key=key)
    assert events_of(late.body)[-2]["code"] == "turn.cancelled"


@pytest.mark.requirement("run-chat:whole-answer")
def test_whole_answers_are_chat_completions(cluster: Cluster, key: str) -> None:
    chat = new_id()
    whole = cluster.call(CHAT, body("@echo Hello.", chat, stream=False), key=key).json()
    assert (whole["object"], whole["conversationId"]) == ("chat.completion", chat)
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "Hello."}
    held = cluster.call(CHAT, body(DELETE, chat, stream=False), key=key).json()
    (call,) = held["choices"][0]["message"]["tool_calls"]
    assert held["kitemesh"]["approval_id"]
    message = UiMessage()
    message.id, message.metadata = held["kitemesh"]["execution_id"], {"conversationId": chat}
    message.parts = [{"type": "tool-delete_record", "toolCallId": call["id"], "input": {}, "approval": call["id"]}]
    done = cluster.call(CHAT, answers(message, (call["id"], True), stream=False), key=key).json()
    assert '"deleted": "42"' in done["choices"][0]["message"]["content"]
    assert done["kitemesh"]["execution_id"] == message.id


@pytest.mark.requirement("run-chat:files")
def test_files_reach_the_model_and_large_bodies_are_read(cluster: Cluster, key: str) -> None:
    image = b"\x89PNG\r\n\x1a\n" + bytes(2 * 1024 * 1024)
    url = "data:image/png;base64," + base64.b64encode(image).decode()
    parts = [
        {"type": "file", "url": url, "mediaType": "image/png", "filename": "big.png"},
        {"type": "text", "text": "@files"},
    ]
    message = read(cluster.call(CHAT, {"messages": [{"role": "user", "parts": parts}]}, key=key))
    assert "big.png" in message.text


@pytest.mark.requirement("run-chat:operations")
def test_operations_are_told_to_who_asks(cluster: Cluster, key: str) -> None:
    reply = cluster.call(CHAT, body(WEATHER), key=key, headers={"x-emit-operations": "true"})
    kinds = [event["data"]["type"] for event in events_of(reply.body) if event["type"] == "data-operation"]
    assert kinds[:4] == ["step-started", "tool-called", "tool-returned", "step-finished"]
    assert "data-operation" not in types_of(cluster.call(CHAT, body(WEATHER), key=key).body)


@pytest.mark.requirement("run-chat:every-mistake-at-once")
@pytest.mark.parametrize(
    "request_body",
    [
        b"{",
        b"[]",
        b'{"messages":[{"role":"user","parts":[{"type":"file","url":7}]}]}',
        b'{"messages":[{"role":"assistant","parts":[{"type":"tool-x","state":"approval-responded","approval":[]}]}]}',
        b'{"messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"messages":[{"role":"user","content":"x"}],"conversationId":{"$ne":1}}',
        b'{"messages":[{"role":"user","content":"x"}],"messageId":"a b","max_tokens":-1}',
    ],
)
def test_what_is_malformed_is_a_problem_and_runs_nothing(cluster: Cluster, key: str, request_body: bytes) -> None:
    told = problem(cluster.call(CHAT, request_body, key=key), 400)
    assert (told["code"], told["title"]) == ("bad_request", "Bad Request")
    assert told["error"] == {"code": "bad_request", "message": told["detail"]}


async def whole(session: aiohttp.ClientSession, gateway: Cluster, key: str, **more: Any) -> list[Event]:
    """Read a stream to its end."""
    path = more.pop("path", CHAT)
    async with streaming(session, gateway, more.pop("body", None), path=path, key=key, **more) as stream:
        assert stream.status == 200, await stream.json()
        return await stream.rest()


def blocks(events: list[Event]) -> list[bytes]:
    return [event.block for event in events]


@pytest.mark.requirement("run-chat:reattached")
async def test_a_durable_stream_goes_on_behind_each_of_its_events(
    cluster: Cluster, elsewhere: Gateway, session: aiohttp.ClientSession, key: str
) -> None:
    chat = new_id()
    told = await whole(session, cluster, key, body=body(STEPS, chat, executionMode="durable"))
    assert "tool-output-available" in [json.loads(event.data)["type"] for event in told[:-1]]
    stream = f"/run/api/chat/{chat}/stream"
    for n in range(1, len(told) + 1):
        gateway = (cluster, elsewhere)[n % 2]
        by_post = await whole(session, gateway, key, body={}, last=told[n - 1].id)
        by_get = await whole(session, gateway, key, path=stream, last=told[n - 1].id)
        assert blocks(by_post) == blocks(by_get) == blocks(told[n:]), told[n - 1]


@pytest.mark.requirement("run-chat:reattached")
async def test_what_follows_a_hold_goes_on_behind_each_of_its_events(
    cluster: Cluster, elsewhere: Gateway, session: aiohttp.ClientSession, key: str
) -> None:
    message = read(await asyncio.to_thread(cluster.call, CHAT, body(DELETE), key=key))
    (call,) = asked(message)
    told = await whole(session, elsewhere, key, body=answers(message, (call, True)))
    for n in range(1, len(told) + 1):
        rest = await whole(session, cluster, key, body={}, last=told[n - 1].id)
        assert blocks(rest) == blocks(told[n:]), told[n - 1]


@pytest.mark.requirement("run-chat:resume-route", "run-chat:after-idx")
async def test_the_active_turns_stream_can_be_joined_from_its_beginning_and_from_an_index(
    cluster: Cluster, elsewhere: Gateway, session: aiohttp.ClientSession, key: str
) -> None:
    chat = new_id()
    async with streaming(session, cluster, body(SLOW, chat, executionMode="durable"), path=CHAT, key=key) as stream:
        first = await stream.read(4)
        joined = asyncio.create_task(whole(session, elsewhere, key, path=f"/run/api/chat/{chat}/stream"))
        behind = f"/run/v1/conversations/{chat}/stream?afterIdx=5"
        later = asyncio.create_task(whole(session, cluster, key, path=behind))
        told = first + await stream.rest()
    assert blocks(await joined) == blocks(told)
    assert blocks(await later) == blocks(told[6:])
    assert positions.parse(told[0].id)[1].is_start


@pytest.mark.requirement("run-chat:resume-route")
async def test_a_new_chats_stream_can_be_joined_from_its_first_byte_on(
    cluster: Cluster, elsewhere: Gateway, session: aiohttp.ClientSession, key: str
) -> None:
    for _ in range(3):
        chat = new_id()
        asked_for = body("@delay_ms 200\n@count 5", chat, executionMode="durable")
        async with streaming(session, cluster, asked_for, path=CHAT, key=key) as stream:
            # Stored is accepted: the conversation itself is made by whoever drives the turn.
            told = await stream.read(1)
            joined = asyncio.create_task(whole(session, elsewhere, key, path=f"/run/api/chat/{chat}/stream"))
            told += await stream.rest()
        assert blocks(await joined) == blocks(told)


@pytest.mark.requirement("run-chat:resume-route")
def test_a_held_turn_is_active_and_its_stream_ends_as_it_did(cluster: Cluster, elsewhere: Gateway, key: str) -> None:
    chat = new_id()
    held = cluster.call(CHAT, body(DELETE, chat), key=key)
    again = elsewhere.call(f"/run/api/chat/{chat}/stream", key=key)
    assert events_of(again.body) == events_of(held.body)
    assert again.headers["x-execution-id"] == held.headers["x-execution-id"]


@pytest.mark.requirement("run-chat:resume-route")
def test_without_an_active_turn_there_is_nothing_to_resume(cluster: Cluster, keys: dict[str, str]) -> None:
    chat = new_id()
    read(cluster.call(CHAT, body("@echo Hello.", chat), key=keys["acme"]))
    for path in (f"/run/api/chat/{chat}/stream", f"/run/v1/conversations/{chat}/stream?afterIdx=3"):
        none = cluster.call(path, key=keys["acme"])
        assert (none.status, none.body) == (204, b"")
        foreign = problem(cluster.call(path, key=keys["other"]), 404)
        missing = problem(cluster.call(path.replace(chat, "nowhere"), key=keys["other"]), 404)
        unsaid = {"requestId": "", "instance": ""}
        assert foreign | unsaid == missing | unsaid
    wrong = cluster.call(f"/run/v1/conversations/{chat}/stream?afterIdx=x", key=keys["acme"])
    assert problem(wrong, 400)["detail"] == "afterIdx: must be the index of an event, or -1"


def test_a_streams_events_are_read_in_whole_blocks(cluster: Cluster, key: str) -> None:
    reply = cluster.call(CHAT, body("@count 3"), key=key)
    assert [event.data for event in events_in(reply.body)][-1] == "[DONE]"


@pytest.mark.requirement("run-chat:reattached-without-frames")
async def test_a_stream_whose_frames_are_gone_goes_on_with_the_same_content(
    cluster: Cluster, elsewhere: Gateway, session: aiohttp.ClientSession, key: str
) -> None:
    told = await whole(session, cluster, key, body=body("@reason 3\n" + STEPS, executionMode="durable"))
    async with open_bus(cluster.environment()["KITEMESH_NATS_URL"], name="test") as bus:
        await bus.request(f"$JS.API.STREAM.PURGE.{OUT}", b"", timeout_s=5)
    for n in range(1, len(told)):
        rest = await whole(session, (cluster, elsewhere)[n % 2], key, body={}, last=told[n - 1].id)
        assert content_of([*told[:n], *rest]) == content_of(told), told[n - 1]
        assert rest[-1].data == "[DONE]"


def content_of(events: list[Event]) -> dict[str, Any]:
    """Return what a stream says, whatever its pieces are opened and closed by."""
    said: dict[str, Any] = {}
    for event in (json.loads(each.data) for each in events if each.data != "[DONE]"):
        match event["type"]:
            case "text-delta" | "reasoning-delta":
                said[event["id"]] = said.get(event["id"], "") + event["delta"]
            case "tool-input-available" | "tool-output-available" | "finish":
                said[event["type"]] = event
    return said
