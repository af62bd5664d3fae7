"""The indexes, on both drivers."""

import pytest
from pymongo import ASCENDING

from kitemesh_contracts.errors import Conflict
from kitemesh_runtime.conversation_updates_mongo import due
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.indexes_mongo import Retention, ensure_indexes, indexes
from kitemesh_runtime.stores_mongo import open_stores


@pytest.mark.requirement("bootstrap:idempotent")
async def test_all_are_created_once(database: Database) -> None:
    await database.command({"dropDatabase": 1})
    done = await ensure_indexes(database)
    assert len(done) == len(indexes(Retention()))
    assert await ensure_indexes(database) == []


async def test_a_changed_retention_is_changed_in_place(database: Database) -> None:
    await ensure_indexes(database)
    done = await ensure_indexes(database, Retention(turns_days=7, conversations_days=8))
    assert len(done) == 2
    for name, field, days in (("turns", "stored_at", 7), ("conversations", "updated_at", 8)):
        found = await database.run(database.collection(name).index_information())
        assert found[f"retention_{field}"]["expireAfterSeconds"] == days * 24 * 3600
    assert len(await ensure_indexes(database)) == 2


async def test_an_index_of_that_name_over_something_else_is_refused(database: Database) -> None:
    await database.command({"dropDatabase": 1})
    keys = database.collection("keys")
    await database.run(keys.create_index([("name", ASCENDING)], name="by_digest"))
    with pytest.raises(Conflict, match=r"keys\.by_digest"):
        await ensure_indexes(database)
    await database.command({"dropDatabase": 1})


async def test_a_sweep_looks_only_at_locks_that_may_have_run_out(database: Database, tenant: str) -> None:
    await database.command({"dropDatabase": 1})
    await ensure_indexes(database)
    async with open_stores(database) as stores:
        for n in range(20):
            await stores.conversations.release(tenant, f"{tenant}-idle-{n}", "one")
            await stores.conversations.take(tenant, f"{tenant}-idle-{n // 2}", "two", b"", max_waiting=0)
        await stores.conversations.create(tenant, f"{tenant}-new", "one", agent=None)
    plan = await database.command(
        {"explain": {"find": "conversations", "filter": due()}, "verbosity": "executionStats"},
    )
    assert "COLLSCAN" not in str(plan["queryPlanner"]["winningPlan"])
    assert plan["executionStats"]["totalDocsExamined"] <= 1
