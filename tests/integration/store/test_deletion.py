"""What was deleted stays so, whoever comes late: on the twin and on both drivers."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from integration.store.backends import Backend
from kitemesh_contracts.content import (
    CallResult,
    FilePart,
    Step,
    TextPart,
    ToolCall,
    UserMessage,
)
from kitemesh_contracts.errors import Conflict, ErrorCode
from kitemesh_runtime.conversations import Buried, Seat, Waiting
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.holds import HeldCall, Hold, Verdict
from kitemesh_runtime.indexes_mongo import indexes
from kitemesh_runtime.live_turns import Job, LiveTurn
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_mongo import open_stores
from kitemesh_runtime.turns import Erased, TurnRecord

JOB = Job(kind="model", step=1, pool="default")


def _live(tenant: str, turn: str, conversation: str | None, **more: object) -> LiveTurn:
    plain = LiveTurn(
        id=turn,
        tenant=tenant,
        version=1,
        status="running",
        mode="durable",
        model="m",
        state=b"{}",
        jobs=(JOB,),
        conversation=conversation,
        ordinal=1,
    )
    return LiveTurn(**{**{name: getattr(plain, name) for name in plain.__struct_fields__}, **more})  # type: ignore[arg-type]  one field at a time


def _record(tenant: str, turn: str, conversation: str | None, *, agent: str | None = None, row: int = 0) -> TurnRecord:
    return TurnRecord(
        id=turn,
        tenant=tenant,
        status="completed",
        mode="classic",
        model="m",
        conversation=conversation,
        ordinal=1,
        agent=agent,
        row=row,
        message=f"msg-{turn}",
        input=(UserMessage(parts=(TextPart(text="secret"), FilePart(media_type="image/png", blob=f"{turn}-file"))),),
        steps=(
            Step(
                step=1,
                calls=(ToolCall(id="a", name="look", arguments="{}"),),
                results=(CallResult(call="a", blob=f"{turn}-result"), CallResult(call="b", text="short")),
            ),
        ),
    )


def _hold(tenant: str, hold: str, turn: str, conversation: str | None) -> Hold:
    call = HeldCall(id="a", name="n", version="v", effect="once", arguments="{}", sha256="00", sentence="s", shown="{}")
    return Hold(id=hold, tenant=tenant, turn=turn, step=1, model="m", calls=(call,), conversation=conversation)


async def _mine(backend: Backend, tenant: str) -> list[Buried]:
    return [buried for buried in await backend.stores.conversations.buried() if buried.tenant == tenant]


@pytest.mark.requirement("conversation:deleted-for-good")
async def test_a_deleted_conversation_is_nobodys_and_tells_once_what_it_was(
    stores: Stores, tenant: str, conversation: str
) -> None:
    conversations = stores.conversations
    assert await conversations.delete(tenant, conversation) is None
    await conversations.create(tenant, conversation, "one", agent="guide")
    await conversations.take(tenant, conversation, "two", b"2", max_waiting=5)
    await conversations.change(tenant, conversation, title="Mine")
    was = await conversations.delete(tenant, conversation)
    assert was is not None
    assert (was.id, was.active, was.waiting) == (conversation, "one", (Waiting(turn="two", start=b"2"),))
    again = await conversations.delete(tenant, conversation)
    assert again is not None
    assert (again.id, again.active, again.waiting, again.title) == (conversation, None, (), "")
    assert await conversations.get(tenant, conversation) is None
    assert await conversations.page(tenant, before=None, limit=5) == []
    assert await conversations.search(tenant, ["mine"], before=None, limit=5) == []
    assert await conversations.change(tenant, conversation, title="Again") is None


@pytest.mark.requirement("conversation:deleted-for-good")
async def test_nothing_brings_a_deleted_conversation_back(backend: Backend, tenant: str, conversation: str) -> None:
    conversations = backend.stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    await conversations.take(tenant, conversation, "two", b"2", max_waiting=5)
    await conversations.delete(tenant, conversation)
    assert await conversations.create(tenant, conversation, "new", agent=None) is False
    for turn in ("one", "two", "new"):
        assert await conversations.take(tenant, conversation, turn, b"", max_waiting=5) == Seat("unknown")
        assert await conversations.release(tenant, conversation, turn, agent="late") is None
        assert await conversations.leave(tenant, conversation, turn) is False
        await conversations.renew(tenant, conversation, turn)
        await conversations.extend(tenant, conversation, turn, for_s=3600)
        assert await conversations.get(tenant, conversation) is None
    await backend.age(60)
    assert [promoted for promoted in await conversations.sweep() if promoted.tenant == tenant] == []
    assert await conversations.get(tenant, conversation) is None


@pytest.mark.requirement("conversation:deleted-for-good")
async def test_a_conversation_that_is_about_to_be_made_can_be_deleted_before(
    stores: Stores, tenant: str, conversation: str
) -> None:
    conversations = stores.conversations
    gone = await conversations.delete(tenant, conversation, also_unknown=True)
    assert gone is not None
    assert (gone.id, gone.active) == (conversation, None)
    assert await conversations.create(tenant, conversation, "one", agent=None) is False
    assert await conversations.release(tenant, conversation, "one") is None
    assert await conversations.take(tenant, conversation, "one", b"", max_waiting=5) == Seat("unknown")


@pytest.mark.requirement("conversation:deleted-for-good")
async def test_deletions_releases_and_creations_at_once_leave_nothing(
    stores: Stores, tenant: str, conversation: str
) -> None:
    names = [f"{conversation}-{n}" for n in range(20)]
    await asyncio.gather(*(stores.conversations.create(tenant, name, "one", agent=None) for name in names))
    await asyncio.gather(
        *(stores.conversations.take(tenant, name, "two", b"2", max_waiting=5) for name in names),
        *(stores.conversations.release(tenant, name, "one") for name in names),
        *(stores.conversations.delete(tenant, name) for name in names),
        *(stores.conversations.create(tenant, name, "three", agent=None) for name in names),
    )
    assert [await stores.conversations.get(tenant, name) for name in names] == [None] * 20


@pytest.mark.requirement("conversation:deletion-is-finished-by-the-sweep")
async def test_a_deleted_conversation_is_looked_at_again_and_at_once_when_something_came_late(
    backend: Backend, tenant: str, conversation: str
) -> None:
    conversations = backend.stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    await conversations.delete(tenant, conversation)
    assert await _mine(backend, tenant) == []
    await backend.age(6)
    assert await _mine(backend, tenant) == [Buried(tenant, conversation)]
    await conversations.cleared(tenant, conversation)
    assert await _mine(backend, tenant) == []
    await conversations.release(tenant, conversation, "one")
    assert await _mine(backend, tenant) == [Buried(tenant, conversation)]
    await conversations.cleared(tenant, conversation)
    await backend.age(301)
    assert await _mine(backend, tenant) == [Buried(tenant, conversation)]


@pytest.mark.requirement("conversation:deleted-with-its-turns")
async def test_erased_turns_are_gone_and_say_once_what_they_leave(
    stores: Stores, tenant: str, other: str, conversation: str
) -> None:
    ended, live = f"{tenant}-1", f"{tenant}-2"
    await stores.turns.put(tenant, _record(tenant, ended, conversation))
    await stores.live_turns.insert(tenant, _live(tenant, live, conversation))
    await stores.turns.put(tenant, _record(tenant, f"{tenant}-3", f"{conversation}-x"))
    await stores.turns.put(other, _record(other, f"{other}-1", conversation))
    left = await stores.turns.erase(tenant, conversation=conversation)
    assert sorted(left) == [
        Erased(ended, f"msg-{ended}", (f"{ended}-file", f"{ended}-result")),
        Erased(live),
    ]
    assert await stores.turns.erase(tenant, conversation=conversation) == []
    for turn in (ended, live):
        assert await stores.turns.get(tenant, turn) is None
        assert await stores.live_turns.get(tenant, turn) is None
        assert await stores.live_turns.knows(tenant, turn) is True
        assert await stores.live_turns.knows(other, turn) is False
    assert await stores.turns.recent(tenant, conversation, limit=5) == []
    assert await stores.live_turns.spoken(tenant, conversation, up_to=None, limit=5) == []
    assert [turn.id for turn in await stores.live_turns.page(tenant, limit=9)] == [f"{tenant}-3"]
    assert await stores.turns.get(other, f"{other}-1") is not None


@pytest.mark.requirement("conversation:deleted-for-good")
async def test_no_late_write_brings_an_erased_turn_back(backend: Backend, tenant: str, conversation: str) -> None:
    stores, turn = backend.stores, f"{tenant}-1"
    live = _live(tenant, turn, conversation)
    await stores.live_turns.insert(tenant, live)
    await stores.turns.erase(tenant, conversation=conversation)
    assert await stores.live_turns.insert(tenant, live) is False
    with pytest.raises(Conflict) as raised:
        await stores.live_turns.save(tenant, _live(tenant, turn, conversation, version=2))
    assert raised.value.code is ErrorCode.STALE
    with pytest.raises(Conflict) as raised:
        await stores.live_turns.finish(tenant, _record(tenant, turn, conversation), version=1)
    assert raised.value.code is ErrorCode.STALE
    await stores.turns.put(tenant, _record(tenant, turn, conversation))
    await stores.live_turns.begin(tenant, turn, ordinal=3)
    assert await stores.live_turns.claim(tenant, turn, JOB) is False
    assert await stores.live_turns.cancel(tenant, turn, "late") is None
    assert await stores.live_turns.touch(tenant, turn, version=1) is False
    assert await stores.live_turns.discard(tenant, turn) is True
    await backend.age(60)
    assert [due for due in await stores.live_turns.due(idle_s=5) if due.tenant == tenant] == []
    assert await stores.live_turns.get(tenant, turn) is None
    assert await stores.turns.get(tenant, turn) is None


@pytest.mark.requirement("conversation:deleted-for-good")
async def test_a_turn_is_buried_before_it_is_stored_but_not_after(
    stores: Stores, tenant: str, conversation: str
) -> None:
    for n in range(2):
        await stores.turns.bury(tenant, f"{tenant}-{n}")
        await stores.turns.bury(tenant, f"{tenant}-{n}")
    await stores.turns.put(tenant, _record(tenant, f"{tenant}-0", conversation))
    assert await stores.live_turns.insert(tenant, _live(tenant, f"{tenant}-1", conversation)) is False
    assert await stores.live_turns.page(tenant, limit=5) == []
    stored = _record(tenant, f"{tenant}-2", conversation)
    await stores.turns.put(tenant, stored)
    await stores.turns.bury(tenant, stored.id)
    assert await stores.turns.get(tenant, stored.id) == stored


async def test_turns_are_erased_in_pages(stores: Stores, tenant: str, conversation: str) -> None:
    for n in range(5):
        await stores.turns.put(tenant, _record(tenant, f"{tenant}-{n}", conversation))
    sizes = [len(await stores.turns.erase(tenant, conversation=conversation, limit=2)) for _ in range(4)]
    assert sizes == [2, 2, 1, 0]


@pytest.mark.requirement("conversation:deleted-with-its-holds")
async def test_erased_holds_are_gone_and_cannot_be_opened_decided_or_applied(
    backend: Backend, tenant: str, other: str, conversation: str
) -> None:
    holds = backend.stores.holds
    mine = [_hold(tenant, f"{tenant}-{n}", f"{tenant}-t{n}", conversation if n == 0 else None) for n in range(3)]
    theirs = _hold(other, f"{other}-0", f"{tenant}-t1", conversation)
    for hold in (*mine, theirs):
        await holds.open(hold.tenant, hold, expires_after_s=60)
    await holds.erase(tenant, conversation=conversation, turns=[f"{tenant}-t1"])
    await holds.erase(tenant, conversation=conversation, turns=[f"{tenant}-t1"])
    for hold in mine[:2]:
        assert await holds.get(tenant, hold.id) is None
        with pytest.raises(Conflict) as raised:
            await holds.open(tenant, hold, expires_after_s=60)
        assert raised.value.code is ErrorCode.STALE
        assert await holds.decide(tenant, hold.id, {"a": Verdict(approved=True)}) == (False, None)
        assert await holds.cancel(tenant, hold.id, "late") is None
        assert await holds.expire(tenant, hold.id) is None
        await holds.applied(tenant, hold.id, version=2)
        assert await holds.page(tenant, status=None, before=hold.id, limit=5) == []
        assert await holds.get(tenant, hold.id) is None
    assert [hold.id for hold in await holds.page(tenant, status=None, before=None, limit=5)] == [mine[2].id]
    assert await holds.get(other, theirs.id) is not None
    await backend.age(120)
    assert [hold.id for hold in await holds.due() if hold.tenant == tenant] == [mine[2].id]


@pytest.mark.requirement("conversation:claims-outlive-deletion")
async def test_the_claim_of_an_erased_turn_is_not_taken_over(backend: Backend, tenant: str, conversation: str) -> None:
    stores, turn = backend.stores, f"{tenant}-1"
    await stores.claims.claim(tenant, "message", "m1", turn)
    await stores.turns.put(tenant, _record(tenant, turn, conversation))
    await stores.turns.erase(tenant, conversation=conversation)
    await backend.age(60)
    assert await stores.claims.claim(tenant, "message", "m1", f"{tenant}-2") == (False, turn, "")


async def test_what_is_left_is_nothing_but_a_name_and_goes_in_an_hour(
    database: Database, tenant: str, conversation: str
) -> None:
    turn, hold = f"{tenant}-1", f"{tenant}-h"
    async with open_stores(database) as stores:
        await stores.conversations.create(tenant, conversation, turn, agent="guide")
        await stores.conversations.take(tenant, conversation, "two", b"secret", max_waiting=5)
        await stores.turns.put(tenant, _record(tenant, turn, conversation))
        await stores.holds.open(tenant, _hold(tenant, hold, turn, conversation), expires_after_s=60)
        await stores.conversations.delete(tenant, conversation)
        await stores.turns.erase(tenant, conversation=conversation)
        await stores.turns.bury(tenant, "two")
        await stores.holds.erase(tenant, conversation=conversation)
    for collection, name in (("turns", turn), ("turns", "two"), ("holds", hold)):
        left = await database.run(database.collection(collection).find_one({"_id": name}))
        assert left.keys() <= {"_id", "tenant", "deleted", "kept_until", "by", "stored_at", "bill"}
        assert left.get("bill", {}).keys() <= {"key", "model", "outcome", "usage"}
        assert_goes_in_an_hour(left)
    left = await database.run(database.collection("conversations").find_one({"tenant": tenant}))
    assert "secret" not in str(left)
    assert (left["_id"], left["agent"], left["waiting"]) == (f"{tenant}:{conversation}", None, [])
    assert_goes_in_an_hour(left)
    kept = {spec.collection: spec.ttl_s for spec in indexes() if spec.keys == (("kept_until", 1),)}
    assert {kept[name] for name in ("turns", "holds", "conversations")} == {0}


def assert_goes_in_an_hour(document: dict[str, Any]) -> None:
    left_s = (document["kept_until"] - datetime.now(UTC)).total_seconds()
    assert left_s == pytest.approx(3600, abs=60)
