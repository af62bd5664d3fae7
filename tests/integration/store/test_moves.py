"""What an earlier release stored, brought under the names of this one, on both drivers."""

from datetime import UTC, datetime

import pytest
from bson.timestamp import Timestamp

from kitemesh_contracts.ids import uuid7
from kitemesh_runtime.conversations import Promoted, Waiting
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.moves_mongo import move_conversations
from kitemesh_runtime.stores_mongo import open_stores

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def _old(tenant: str, name: str, **more: object) -> dict[str, object]:
    return {
        "_id": name,
        "tenant": tenant,
        "agent": "guide",
        "created_at": BEGAN,
        "updated_at": BEGAN,
        "active": None,
        "active_until": None,
        "active_started": False,
        "waiting": [],
        "turns": 3,
        "promotions": 1,
        **more,
    }


@pytest.mark.requirement("bootstrap:moves-old-conversations")
async def test_old_conversations_get_the_names_of_this_release_and_keep_all_they_have(
    database: Database, tenant: str
) -> None:
    collection = database.collection("conversations")
    waiting = [{"turn": "two", "start": b"2"}]
    locked = _old(
        tenant,
        f"{tenant}-locked",
        created_at=Timestamp(int(BEGAN.timestamp()) + 60, 7),
        active="one",
        active_started=True,
        waiting=waiting,
    )
    await database.run(collection.insert_many([_old(tenant, f"{tenant}-idle"), locked]))
    assert await move_conversations(database) == 2
    assert await move_conversations(database) == 0
    async with open_stores(database) as stores:
        listed = await stores.conversations.page(tenant, before=None, limit=5)
        assert [kept.id for kept in listed] == [f"{tenant}-locked", f"{tenant}-idle"]
        assert (listed[1].agent, listed[1].turns, listed[1].created_at_s) == ("guide", 3, BEGAN.timestamp())
        # Its time counts, and what is behind that tells it from others of that second.
        assert listed[1].first[:13] == uuid7(int(BEGAN.timestamp() * 1000), bytes(10))[:13]
        assert (listed[0].active, listed[0].waiting) == ("one", (Waiting(turn="two", start=b"2"),))
        promoted = await stores.conversations.release(tenant, f"{tenant}-locked", "one")
        assert promoted == Promoted(tenant, f"{tenant}-locked", "two", b"2", 2)
    assert await database.run(collection.count_documents({"_id": {"$in": [f"{tenant}-idle", f"{tenant}-locked"]}})) == 0


async def test_a_conversation_that_was_made_anew_meanwhile_stays(database: Database, tenant: str) -> None:
    name = f"{tenant}-both"
    await database.run(database.collection("conversations").insert_one(_old(tenant, name)))
    async with open_stores(database) as stores:
        await stores.conversations.create(tenant, name, "new", agent=None)
        before = await stores.conversations.get(tenant, name)
        await move_conversations(database)
        assert await stores.conversations.get(tenant, name) == before


async def test_more_than_a_page_is_moved(database: Database, tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kitemesh_runtime.moves_mongo.PAGE", 2)
    await database.run(
        database.collection("conversations").insert_many([_old(tenant, f"{tenant}-{n}") for n in range(5)])
    )
    assert await move_conversations(database) == 5
    async with open_stores(database) as stores:
        # They are of one second, and each has a place of its own in the list.
        pages = [await stores.conversations.page(tenant, before=None, limit=3)]
        pages.append(await stores.conversations.page(tenant, before=pages[0][-1].first, limit=3))
        assert sorted(kept.id for page in pages for kept in page) == [f"{tenant}-{n}" for n in range(5)]
