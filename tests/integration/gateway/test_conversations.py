"""Conversations over HTTP, on the stores' twins; the test plays the orchestrator."""

import asyncio
from typing import Any

import pytest

from integration.gateway.rig import ASK, KEY, TENANT, Answer, Rig, get, key_record, post
from integration.gateway.test_approvals import STRANGER
from kitemesh_contracts.codec import encode
from kitemesh_contracts.content import AssistantMessage, TextPart, UserMessage
from kitemesh_contracts.errors import ErrorCode
from kitemesh_runtime import keyring
from kitemesh_runtime.turns import TurnRecord

CONFINED = keyring.make(bytes(range(140, 180)))


def _send(method: str, path: str, body: object = None, *, key: str = KEY.text) -> bytes:
    return post(body, path=path, key=key).replace(b"POST", method.encode(), 1)


async def begin(rig: Rig, n: int, *, model: str = "scripted", said: int = 0) -> str:
    """Store a conversation with so many ended turns; return its id."""
    name = f"talk-{n}"
    await rig.stores.conversations.create(TENANT, name, f"turn-{n}", agent=None, model=model)
    await rig.stores.conversations.release(TENANT, name, f"turn-{n}")
    for ordinal in range(1, said + 1):
        record = TurnRecord(
            id=f"turn-{n}-{ordinal}",
            tenant=TENANT,
            status="completed",
            mode="classic",
            model=model,
            conversation=name,
            ordinal=ordinal,
            input=(UserMessage(parts=(TextPart(text=f"question {ordinal}"),)),),
            answer=AssistantMessage(text=f"answer {ordinal}"),
        )
        await rig.stores.turns.put(TENANT, record)
    return name


async def show(rig: Rig, path: str, *, key: str = KEY.text) -> Any:
    answer = await rig.ask(get(f"/v1/conversations{path}", key=key))
    assert answer.status == 200
    return answer.json()


async def delete(rig: Rig, name: str, *, key: str = KEY.text) -> Answer:
    return await rig.ask(_send("DELETE", f"/v1/conversations/{name}", {}, key=key))


def assert_unknown(answer: Answer) -> None:
    problem = answer.json()
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")
    assert (problem["code"], problem["detail"]) == ("conversation.unknown", "The conversation does not exist")


@pytest.mark.requirement("conversation:listed-newest-first")
async def test_conversations_are_listed_in_pages(rig: Rig) -> None:
    for n in range(1, 6):
        await begin(rig, n)
    first = await show(rig, "?limit=3")
    assert [kept["id"] for kept in first["data"]] == ["talk-5", "talk-4", "talk-3"]
    second = await show(rig, f"?limit=3&cursor={first['next_cursor']}")
    assert [kept["id"] for kept in second["data"]] == ["talk-2", "talk-1"]
    assert second["next_cursor"] is None


@pytest.mark.requirement("conversation:searched-by-its-words")
async def test_conversations_are_searched_by_their_titles_and_by_what_was_asked(rig: Rig) -> None:
    await begin(rig, 1, said=2)
    await begin(rig, 2, said=1)
    await begin(rig, 3)
    patched = await rig.ask(_send("PATCH", "/v1/conversations/talk-3", {"title": "A question at last"}))
    assert patched.json()["title"] == "A question at last"
    assert [kept["id"] for kept in (await show(rig, "?q=QUESTION"))["data"]] == ["talk-3", "talk-2", "talk-1"]
    assert [kept["id"] for kept in (await show(rig, "?q=question%202"))["data"]] == ["talk-1"]
    assert (await show(rig, "?q=nowhere"))["data"] == []
    wrong = await rig.ask(get("/v1/conversations?q=%3F&limit=0&cursor=*"))
    assert wrong.status == 400
    assert all(name in wrong.json()["detail"] for name in ("q", "limit", "cursor"))


@pytest.mark.requirement("conversation:messages-in-pages")
async def test_messages_are_shown_from_the_latest_back_in_their_order(rig: Rig) -> None:
    name = await begin(rig, 1, said=4)
    pages, cursor = [], ""
    while cursor is not None:
        page = await show(rig, f"/{name}/messages?limit=3{cursor and '&cursor=' + cursor}")
        pages.append([message["content"] for message in page["data"]])
        cursor = page["next_cursor"]
    assert pages == [
        ["answer 3", "question 4", "answer 4"],
        ["question 2", "answer 2", "question 3"],
        ["question 1", "answer 1"],
    ]
    wrong = await rig.ask(get(f"/v1/conversations/{name}/messages?cursor=dGFsaw"))
    assert wrong.status == 400


async def test_one_conversation_is_shown_and_named(rig: Rig) -> None:
    name = await begin(rig, 1)
    assert (await show(rig, f"/{name}"))["title"] is None
    changed = await rig.ask(_send("PATCH", f"/v1/conversations/{name}", {"metadata": {"a.b": "$c"}, "title": "T"}))
    assert (changed.status, changed.json()["metadata"]) == (200, {"a.b": "$c"})
    changed = await rig.ask(_send("PATCH", f"/v1/conversations/{name}", {"title": None}))
    assert await show(rig, f"/{name}") == changed.json()
    assert (changed.json()["title"], changed.json()["metadata"]) == (None, {"a.b": "$c"})
    wrong = await rig.ask(_send("PATCH", f"/v1/conversations/{name}", {}))
    assert wrong.status == 400


@pytest.mark.requirement("conversation:deleted-for-good")
async def test_an_idle_conversation_is_deleted_with_its_turns(rig: Rig) -> None:
    name = await begin(rig, 1, said=2)
    for _ in range(2):
        answer = await delete(rig, name)
        assert (answer.status, answer.json()) == (200, {"id": name, "deleted": True})
    for path in (f"/{name}", f"/{name}/messages"):
        assert_unknown(await rig.ask(get(f"/v1/conversations{path}")))
    assert (await show(rig, ""))["data"] == []
    assert (await rig.ask(get("/v1/executions/turn-1-1"))).status == 404
    asked = {**ASK, "metadata": {"conversation_id": name, "mode": "durable"}}
    assert (await rig.ask(post(asked))).status == 404


@pytest.mark.requirement("conversation:deletion-ends-turns-first")
async def test_a_running_turn_ends_as_cancelled_before_its_conversation_is_gone(rig: Rig) -> None:
    client = rig.client()
    await client.send(post({**ASK, "stream": True}))
    start = await rig.cluster.start()
    assert start.conversation is not None
    await rig.stores.conversations.create(TENANT, start.conversation, start.turn, agent=None)
    deletion = asyncio.create_task(delete(rig, start.conversation))
    cancelled = await rig.cluster.cancel()
    assert (cancelled.turn, cancelled.disconnect) == (start.turn, False)
    assert await rig.stores.conversations.get(TENANT, start.conversation) is not None
    rig.cluster.fail(start, ErrorCode.TURN_CANCELLED)
    await rig.stores.conversations.release(TENANT, start.conversation, start.turn)
    async with asyncio.timeout(5):
        assert (await deletion).status == 200
        await client.answer()
    assert await rig.stores.conversations.get(TENANT, start.conversation) is None


@pytest.mark.requirement("conversation:deletion-ends-turns-first")
async def test_a_turn_that_does_not_end_in_time_is_told_that_it_is_over_and_leaves_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kitemesh_gateway.deleting.END_S", 0.05)
    client = rig.client()
    await client.send(post({**ASK, "metadata": {"mode": "durable"}}))
    start = await rig.cluster.start()
    assert start.conversation is not None
    answer = await delete(rig, start.conversation)
    assert answer.status == 200
    told = await client.answer()
    assert (told.status, told.error["code"]) == (409, "turn.cancelled")
    assert await rig.stores.live_turns.get(TENANT, start.turn) is None
    assert await rig.stores.conversations.create(TENANT, start.conversation, start.turn, agent=None) is False


@pytest.mark.requirement("conversation:deletion-ends-turns-first")
async def test_who_waits_behind_another_turn_is_told_as_well(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kitemesh_gateway.deleting.END_S", 0.05)
    name = await begin(rig, 1)
    client = rig.client()
    await client.send(post({**ASK, "metadata": {"conversation_id": name}}))
    start = await rig.cluster.start()
    await rig.stores.conversations.take(TENANT, name, "somebody", b"", max_waiting=5)
    await rig.stores.conversations.take(TENANT, name, start.turn, encode(start), max_waiting=5)
    assert (await delete(rig, name)).status == 200
    assert (await client.answer()).status == 409
    assert await rig.stores.live_turns.knows(TENANT, start.turn)


@pytest.mark.requirement("conversation:ids-are-a-tenants-own")
async def test_another_tenants_conversation_is_as_unknown_as_one_that_was_never_there(rig: Rig) -> None:
    await rig.stores.keys.put("other", key_record(STRANGER, tenant="other", scopes=("chat",)))
    name = await begin(rig, 1, said=1)
    assert (await show(rig, "", key=STRANGER.text))["data"] == []
    assert (await show(rig, "?q=question", key=STRANGER.text))["data"] == []
    for method, path, body in (
        ("GET", "", None),
        ("GET", "/messages", None),
        ("PATCH", "", {"title": "Mine"}),
        ("DELETE", "", {}),
    ):
        answers = [
            await rig.ask(_send(method, f"/v1/conversations/{each}{path}", body, key=STRANGER.text))
            for each in (name, "never")
        ]
        for answer in answers:
            assert_unknown(answer)
        assert answers[0].json()["detail"] == answers[1].json()["detail"]
    assert (await show(rig, f"/{name}"))["title"] is None


async def test_a_key_for_some_models_sees_only_conversations_with_them(rig: Rig) -> None:
    await rig.stores.keys.put(TENANT, key_record(CONFINED, models=("scripted",)))
    for n in range(1, 5):
        await begin(rig, n, model="scripted" if n % 2 else "org/name:tag", said=1)
    page = await show(rig, "?limit=1", key=CONFINED.text)
    assert [kept["id"] for kept in page["data"]] == ["talk-3"]
    page = await show(rig, f"?limit=1&cursor={page['next_cursor']}", key=CONFINED.text)
    assert [kept["id"] for kept in page["data"]] == ["talk-1"]
    assert_unknown(await delete(rig, "talk-2", key=CONFINED.text))
    assert_unknown(await rig.ask(get("/v1/conversations/talk-2", key=CONFINED.text)))
    assert await rig.stores.conversations.get(TENANT, "talk-2") is not None
