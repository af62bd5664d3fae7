"""What is measured of the calls of MongoDB, on both drivers."""

import asyncio
from collections.abc import Callable

import pytest

from kitemesh_contracts.errors import Conflict
from kitemesh_runtime.call_kinds_mongo import WRITING
from kitemesh_runtime.driver_mongo import Database, ping
from kitemesh_runtime.metrics import REGISTRY
from kitemesh_runtime.stores_mongo import open_stores
from kitemesh_runtime.turns import TurnRecord

Counted = Callable[[], dict[str, float]]
KINDS = ("read", "write", "group", "command")


def measured(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"kitemesh_{name}", labels) or 0.0


def counts() -> dict[str, float]:
    return {kind: measured("store_duration_seconds_count", operation=kind) for kind in KINDS}


@pytest.fixture
def since() -> Counted:
    """Return what was counted since the test began."""
    before = counts()
    return lambda: {kind: now - before[kind] for kind, now in counts().items() if now != before[kind]}


def record(tenant: str, n: int) -> TurnRecord:
    return TurnRecord(id=f"{tenant}-{n}", tenant=tenant, status="completed", mode="classic", model="scripted")


async def test_a_call_is_measured_as_what_it_is(database: Database, tenant: str, since: Counted) -> None:
    things = database.collection("measured")
    await database.run(things.insert_one({"_id": tenant, "n": 1}))
    await database.run(things.update_one({"_id": tenant}, {"$inc": {"n": 1}}))
    await database.run(things.find_one_and_update({"_id": tenant}, {"$inc": {"n": 1}}))
    assert since() == {"write": 3}
    assert [each["n"] for each in await database.run(things.find({"_id": tenant}).to_list(1))] == [3]
    assert await database.run(database.aggregate("measured", [{"$match": {"_id": tenant}}])) == [
        {"_id": tenant, "n": 3}
    ]
    assert since() == {"write": 3, "read": 2}
    await ping(database)
    await database.run(database.collection("measured").delete_one({"_id": tenant}))
    assert since() == {"write": 4, "read": 2, "command": 1}


async def test_files_are_measured_as_well(database: Database, tenant: str, since: Counted) -> None:
    async with open_stores(database) as stores:
        blob = await stores.blobs.put(tenant, b"x" * (9 * 1024 * 1024), keep_s=60)
        # The file, that it goes one day, and its own document.
        assert since()["write"] == 4
        assert len(await stores.blobs.get(tenant, blob)) == 9 * 1024 * 1024
    assert since()["read"] >= 2


async def test_what_was_refused_is_measured_too(database: Database, tenant: str, since: Counted) -> None:
    things = database.collection("measured")
    await database.run(things.insert_one({"_id": tenant}))
    with pytest.raises(Conflict):
        await database.run(things.insert_one({"_id": tenant}))
    await database.run(things.delete_one({"_id": tenant}))
    assert since() == {"write": 3}


async def test_writes_that_travel_together_are_counted_as_one_group(
    database: Database, tenant: str, since: Counted
) -> None:
    groups, writes = measured("store_group_size_count"), measured("store_group_size_sum")
    async with open_stores(database) as stores:
        await asyncio.gather(*(stores.turns.put(tenant, record(tenant, n)) for n in range(30)))
    assert measured("store_group_size_sum") - writes == 30
    assert measured("store_group_size_count") - groups == since()["group"]
    assert since()["group"] <= 3


def test_every_writing_method_is_one_of_the_driver(database: Database) -> None:
    known = {name for raw in (database.collection("x"), database.bucket("x")) for name in WRITING if hasattr(raw, name)}
    assert known == WRITING
