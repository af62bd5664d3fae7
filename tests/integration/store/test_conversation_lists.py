"""Conversations as people see them: lists, search, titles, on the twin and on both drivers."""

import pytest

from integration.store.backends import Backend
from kitemesh_contracts.content import AssistantMessage, TextPart, UserMessage
from kitemesh_runtime.conversation_lists_mongo import page, titles_that_say, turns_that_say
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.indexes_mongo import ensure_indexes
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_mongo import open_stores
from kitemesh_runtime.turns import TurnRecord


def _record(tenant: str, turn: str, conversation: str, said: str, answer: str = "", *, ordinal: int = 1) -> TurnRecord:
    return TurnRecord(
        id=turn,
        tenant=tenant,
        status="completed",
        mode="classic",
        model="m",
        conversation=conversation,
        ordinal=ordinal,
        input=(UserMessage(parts=(TextPart(text=said),)),),
        answer=AssistantMessage(text=answer) if answer else None,
    )


async def _begin(stores: Stores, tenant: str, *numbers: int) -> list[str]:
    """Begin conversations, each by a turn of its number; return their names."""
    names = [f"{tenant}-c{n}" for n in numbers]
    for n, name in zip(numbers, names, strict=True):
        await stores.conversations.create(tenant, name, f"{tenant}-turn-{n:02}", agent="guide", model="group:x")
    return names


async def _found(stores: Stores, tenant: str, *words: str, before: str | None = None, limit: int = 10) -> list[str]:
    found = await stores.conversations.search(tenant, words, before=before, limit=limit)
    return [kept.id.removeprefix(f"{tenant}-") for kept in found]


@pytest.mark.requirement("conversation:listed-newest-first")
async def test_conversations_are_listed_in_the_order_in_which_they_began(stores: Stores, tenant: str) -> None:
    names = await _begin(stores, tenant, 3, 1, 2, 5, 4)
    await stores.conversations.release(tenant, names[0], f"{tenant}-turn-03")
    await stores.conversations.release(tenant, f"{tenant}-c0", f"{tenant}-turn-00")
    listed = await stores.conversations.page(tenant, before=None, limit=4)
    assert [kept.id.removeprefix(f"{tenant}-") for kept in listed] == ["c5", "c4", "c3", "c2"]
    assert {(kept.agent, kept.model, kept.tenant) for kept in listed} == {("guide", "group:x", tenant)}
    rest = await stores.conversations.page(tenant, before=listed[-1].first, limit=4)
    assert [kept.id.removeprefix(f"{tenant}-") for kept in rest] == ["c1", "c0"]
    assert await stores.conversations.page(tenant, before=rest[-1].first, limit=4) == []
    assert await stores.conversations.page(tenant, before=None, limit=0) == []


@pytest.mark.requirement("conversation:title-and-metadata")
async def test_a_title_and_metadata_are_kept_as_they_were_given(stores: Stores, tenant: str, conversation: str) -> None:
    change = stores.conversations.change
    assert await change(tenant, conversation, title="Early") is None
    await stores.conversations.create(tenant, conversation, "one", agent=None)
    metadata = {"$where": "a.b", "a.b": "$title", "": "ü 🙂"}
    changed = await change(tenant, conversation, title="$agent", metadata=metadata)
    assert changed is not None
    assert (changed.title, changed.metadata, changed.active) == ("$agent", metadata, "one")
    changed = await change(tenant, conversation, title="")
    assert changed is not None
    assert (changed.title, changed.metadata) == ("", metadata)
    changed = await change(tenant, conversation, metadata={})
    assert changed == await stores.conversations.get(tenant, conversation)
    assert changed is not None
    assert changed.metadata == {}


@pytest.mark.requirement("conversation:searched-by-its-words")
async def test_a_search_finds_what_was_said_and_what_a_title_says(stores: Stores, tenant: str) -> None:
    names = await _begin(stores, tenant, 1, 2, 3, 4)
    await stores.conversations.change(tenant, names[0], title="Ärger mit der Rechnung")
    await stores.turns.put(tenant, _record(tenant, f"{tenant}-t2", names[1], "My RECHNUNG in the mail?", "On a kite."))
    await stores.turns.put(tenant, _record(tenant, f"{tenant}-t3", names[2], "Hello, mail of rechnungen", "A kite?"))
    assert await _found(stores, tenant, "rechnung") == ["c2", "c1"]
    assert await _found(stores, tenant, "arger", "Rechnung") == ["c1"]
    assert await _found(stores, tenant, "mail") == ["c3", "c2"]
    assert await _found(stores, tenant, "mail", "hello") == ["c3"]
    assert await _found(stores, tenant, "mail", "nowhere") == []
    # Answers are not searched.
    assert await _found(stores, tenant, "kite") == []
    assert await _found(stores, tenant) == []


@pytest.mark.requirement("conversation:searched-by-its-words")
async def test_a_search_is_paged_like_a_list(stores: Stores, tenant: str) -> None:
    names = await _begin(stores, tenant, 1, 2, 3)
    for n, name in enumerate(names):
        for ordinal in (1, 2):
            record = _record(tenant, f"{tenant}-{n}-{ordinal}", name, "tell me of kites", "They fly.", ordinal=ordinal)
            await stores.turns.put(tenant, record)
    assert await _found(stores, tenant, "kites", limit=2) == ["c3", "c2"]
    assert await _found(stores, tenant, "kites", before=f"{tenant}-turn-02") == ["c1"]


async def test_nothing_is_found_of_turns_that_go_on_or_belong_to_no_conversation(stores: Stores, tenant: str) -> None:
    (name,) = await _begin(stores, tenant, 1)
    said = (UserMessage(parts=(TextPart(text="a secret plan"),)),)
    live = LiveTurn(
        id=f"{tenant}-l",
        tenant=tenant,
        version=1,
        status="running",
        mode="durable",
        model="m",
        state=b"",
        conversation=name,
        input=said,
    )
    await stores.live_turns.insert(tenant, live)
    await stores.turns.put(
        tenant, TurnRecord(id=f"{tenant}-n", tenant=tenant, status="completed", mode="durable", model="m", input=said)
    )
    assert await _found(stores, tenant, "secret") == []
    await stores.live_turns.finish(tenant, _record(tenant, live.id, name, "a secret plan"), version=1)
    assert await _found(stores, tenant, "secret") == ["c1"]


@pytest.mark.requirement("conversation:messages-in-pages")
async def test_a_conversations_turns_come_latest_first_live_ones_too(
    stores: Stores, tenant: str, conversation: str
) -> None:
    for ordinal in (0, 1, 3, 2):
        record = _record(tenant, f"{tenant}-{ordinal}", conversation, "Hi", ordinal=ordinal)
        await stores.turns.put(tenant, record)
    live = LiveTurn(
        id=f"{tenant}-4",
        tenant=tenant,
        version=1,
        status="running",
        mode="durable",
        model="m",
        state=b"",
        conversation=conversation,
        ordinal=4,
    )
    await stores.live_turns.insert(tenant, live)

    async def ordinals(up_to: int | None, limit: int) -> list[int]:
        spoken = await stores.live_turns.spoken(tenant, conversation, up_to=up_to, limit=limit)
        return [turn.ordinal for turn in spoken]

    assert await ordinals(None, 2) == [4, 3]
    assert await ordinals(2, 9) == [2, 1]
    assert await ordinals(None, 0) == []


async def test_lists_and_searches_read_little_more_than_they_return(database: Database, tenant: str) -> None:
    await database.command({"dropDatabase": 1})
    await ensure_indexes(database)
    async with open_stores(database) as stores:
        names = await _begin(stores, tenant, *range(60))
        for n, name in enumerate(names):
            said = "tell me of kites" if n % 20 == 0 else "tell me of boats"
            await stores.turns.put(tenant, _record(tenant, f"{tenant}-t{n}", name, said))
            await stores.conversations.change(tenant, name, title="kites" if n % 30 == 0 else "boats")
        middle = (await stores.conversations.page(tenant, before=None, limit=30))[-1].first
    for find, examined in (
        ({"find": "conversations", "filter": page(tenant, middle), "sort": {"first": -1}, "limit": 5}, 5),
        ({"find": "conversations", "filter": titles_that_say(tenant, ["kites"])}, 2),
        ({"find": "turns", "filter": turns_that_say(tenant, ["kites"])}, 3),
    ):
        answer = await database.command({"explain": find, "verbosity": "executionStats"})
        plan = str(answer["queryPlanner"]["winningPlan"])
        assert "COLLSCAN" not in plan
        assert "'stage': 'SORT'" not in plan
        assert answer["executionStats"]["nReturned"] == examined
        assert answer["executionStats"]["totalDocsExamined"] <= 2 * examined


async def test_a_change_is_noted_as_one(backend: Backend, tenant: str, conversation: str) -> None:
    conversations = backend.stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    await conversations.release(tenant, conversation, "one")
    before = await conversations.get(tenant, conversation)
    await backend.age(10)
    after = await conversations.change(tenant, conversation, title="Later")
    assert before is not None
    assert after is not None
    assert after.updated_at_s >= before.updated_at_s
