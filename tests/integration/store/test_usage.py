"""Usage, counted from the turns: on the twin and on both drivers."""

import asyncio
import time
from datetime import UTC, date, datetime, timedelta

import pytest
from msgspec.structs import replace

from integration.store.backends import Backend
from kitemesh_contracts.content import Usage
from kitemesh_contracts.errors import Unavailable
from kitemesh_runtime import usage_mongo
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.indexes_mongo import ensure_indexes
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.stores_mongo import open_stores
from kitemesh_runtime.turns import TurnRecord
from kitemesh_runtime.usage import By, Period, UsageRow
from kitemesh_runtime.usage_mongo import MongoUsages

ALWAYS = Period(date(2020, 1, 1), date(2100, 1, 1))
SPENT = Usage(input_tokens=10, output_tokens=4, cached_tokens=3, reasoning_tokens=1)


def _record(tenant: str, name: str, **more: object) -> TurnRecord:
    plain = TurnRecord(
        id=f"{tenant}-{name}",
        tenant=tenant,
        status="completed",
        mode="classic",
        model="group:x",
        served_by="m",
        key="k",
        conversation=f"{tenant}-c",
        usage=SPENT,
    )
    return replace(plain, **more)


def _live(tenant: str, name: str) -> LiveTurn:
    return LiveTurn(
        id=f"{tenant}-{name}",
        tenant=tenant,
        version=1,
        status="running",
        mode="durable",
        model="m",
        state=b"",
        key="k",
        conversation=f"{tenant}-c",
        usage=Usage(input_tokens=7),
    )


async def _counted(backend: Backend, tenant: str, by: By = "model") -> list[UsageRow]:
    """Let what has ended settle, count it, and return what it cost."""
    await backend.age(60)
    while await backend.stores.usage.roll_up():
        pass
    return await backend.stores.usage.read(tenant, ALWAYS, by=by, limit=100)


def _row(name: str, turns: int, **more: int) -> UsageRow:
    tokens = {field: turns * getattr(SPENT, field) for field in SPENT.__struct_fields__}
    return UsageRow(**{"name": name, "completed": turns, **tokens, **more})  # type: ignore[arg-type]  all but the name are numbers


@pytest.mark.requirement("usage:from-the-turns")
async def test_turns_of_both_modes_count_once_however_often_they_are_counted(backend: Backend, tenant: str) -> None:
    stores = backend.stores
    await stores.turns.put(tenant, _record(tenant, "classic"))
    await stores.live_turns.insert(tenant, _live(tenant, "durable"))
    await stores.live_turns.finish(tenant, _record(tenant, "durable", mode="durable"), version=1)
    assert await _counted(backend, tenant) == [_row("m", 2)]
    await stores.turns.put(tenant, _record(tenant, "classic"))
    await stores.turns.put(tenant, _record(tenant, "later"))
    assert await _counted(backend, tenant) == [_row("m", 3)]
    assert await _counted(backend, tenant) == [_row("m", 3)]


async def test_what_has_just_ended_is_not_counted_and_what_runs_is_not(backend: Backend, tenant: str) -> None:
    stores = backend.stores
    await stores.live_turns.insert(tenant, _live(tenant, "runs"))
    await backend.age(60)
    await stores.turns.put(tenant, _record(tenant, "new"))
    while await stores.usage.roll_up():
        pass
    assert await stores.usage.read(tenant, ALWAYS, by="model", limit=100) == []
    assert await _counted(backend, tenant) == [_row("m", 1)]


async def test_it_is_told_by_model_key_day_and_tenant_and_one_tenants_are_not_anothers(
    backend: Backend, tenant: str, other: str
) -> None:
    put = backend.stores.turns.put
    await put(tenant, _record(tenant, "one"))
    await put(tenant, _record(tenant, "two", key="", served_by="", status="failed", usage=Usage()))
    await put(tenant, _record(tenant, "three", status="cancelled"))
    await put(other, _record(other, "four"))
    assert await _counted(backend, tenant) == [
        UsageRow(name="group:x", failed=1),
        _row("m", 2, completed=1, cancelled=1),
    ]
    assert await _counted(backend, tenant, "key") == [
        UsageRow(name="", failed=1),
        _row("k", 2, completed=1, cancelled=1),
    ]
    (day,) = await _counted(backend, tenant, "day")
    assert (day.turns, day.input_tokens, len(day.name)) == (3, 20, 10)
    assert await _counted(backend, other) == [_row("m", 1)]
    everybody = await backend.stores.usage.read(None, ALWAYS, by="tenant", limit=10_000)
    assert {row.name: row.turns for row in everybody if row.name in (tenant, other)} == {tenant: 3, other: 1}


async def test_days_are_the_databases_own_and_only_those_asked_for_are_told(backend: Backend, tenant: str) -> None:
    await backend.stores.turns.put(tenant, _record(tenant, "one"))
    (row,) = await _counted(backend, tenant, "day")
    day = date.fromisoformat(row.name)
    read = backend.stores.usage.read
    assert await read(tenant, Period(day, day), by="day", limit=9) == [row]
    for one in (day - timedelta(days=1), day + timedelta(days=1)):
        assert await read(tenant, Period(one, one), by="day", limit=9) == []


async def test_a_long_list_is_read_in_pages(backend: Backend, tenant: str) -> None:
    for n in range(5):
        await backend.stores.turns.put(tenant, _record(tenant, f"{n}", served_by=f"m{n}"))
    all_rows = await _counted(backend, tenant)
    read = backend.stores.usage.read
    assert await read(tenant, ALWAYS, by="model", limit=2) == all_rows[:2]
    assert await read(tenant, ALWAYS, by="model", after="m1", limit=9) == all_rows[2:]
    assert await read(tenant, ALWAYS, by="model", after="m4", limit=9) == []
    (day,) = await read(tenant, ALWAYS, by="day", limit=9)
    assert await read(tenant, ALWAYS, by="day", after=day.name, limit=9) == []
    assert await read(tenant, ALWAYS, by="day", after="9999-01-01", limit=9) == [day]


@pytest.mark.requirement("usage:erased-turns-count")
async def test_what_is_erased_counts_whether_it_was_counted_before_or_had_not_ended(
    backend: Backend, tenant: str
) -> None:
    stores = backend.stores
    await stores.turns.put(tenant, _record(tenant, "counted"))
    assert await _counted(backend, tenant) == [_row("m", 1)]
    await stores.turns.put(tenant, _record(tenant, "not-counted"))
    await stores.live_turns.insert(tenant, _live(tenant, "runs"))
    assert len(await stores.turns.erase(tenant, conversation=f"{tenant}-c")) == 3
    # It ran when its conversation was deleted, and is stored for the first time now.
    await stores.turns.bury(tenant, f"{tenant}-late")
    await stores.turns.put(tenant, _record(tenant, "late"))
    await stores.turns.put(tenant, _record(tenant, "late"))
    assert await _counted(backend, tenant) == [_row("m", 3, cancelled=1, input_tokens=37)]
    assert await stores.turns.get(tenant, f"{tenant}-late") is None
    assert await stores.live_turns.page(tenant, limit=9) == []


async def test_it_says_up_to_when_it_has_counted(backend: Backend, tenant: str) -> None:
    await backend.stores.turns.put(tenant, _record(tenant, "one"))
    before_s = await backend.stores.usage.as_of()
    await _counted(backend, tenant)
    assert await backend.stores.usage.as_of() >= before_s


async def _emptied(database: Database) -> None:
    await ensure_indexes(database)
    for name in ("turns", "usage", "usage_marks"):
        await database.run(database.collection(name).delete_many({}))


async def _aged(database: Database, tenant: str, count: int, models: int = 1) -> None:
    """Insert turns that ended long ago, a second after the other."""
    ended = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=5)
    turns = [
        {
            "_id": f"{tenant}-{n:04}",
            "tenant": tenant,
            "status": "completed",
            "model": f"m{n % models}",
            "stored_at": ended + timedelta(seconds=n),
            "usage": {"input_tokens": 2},
        }
        for n in range(count)
    ]
    await database.run(database.collection("turns").insert_many(turns))


@pytest.mark.requirement("usage:counted-once")
async def test_many_replicas_count_a_backlog_window_by_window_and_each_turn_once(
    database: Database, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_mongo, "WINDOW_TURNS", 7)
    await _emptied(database)
    await _aged(database, tenant, 100, models=3)
    usages = [MongoUsages(database) for _ in range(3)]

    async def work(usage: MongoUsages) -> int:
        windows = 0
        async with asyncio.timeout(20):
            while sum(row.turns for row in await usage.read(tenant, ALWAYS, by="model", limit=9)) < 100:
                windows += await usage.roll_up()
        return windows

    assert sum(await asyncio.gather(*map(work, usages))) >= 10
    rows = await usages[0].read(tenant, ALWAYS, by="model", limit=9)
    assert [(row.name, row.turns, row.input_tokens) for row in rows] == [
        ("m0", 34, 68),
        ("m1", 33, 66),
        ("m2", 33, 66),
    ]


@pytest.mark.requirement("usage:counted-once")
async def test_a_window_whose_counter_died_is_counted_again_to_the_same_effect(
    database: Database, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_mongo, "WINDOW_TURNS", 20)
    await _emptied(database)
    await _aged(database, tenant, 50, models=4)
    dying, usage = MongoUsages(database), MongoUsages(database)
    writes = 0

    async def die_half_way(collection: str, operations: list[object]) -> dict[int, Unavailable]:
        nonlocal writes
        writes += 1
        await Database.write_group(database, collection, operations[:2])
        raise RuntimeError("killed")

    monkeypatch.setattr(dying, "_database", _Broken(database, die_half_way))
    with pytest.raises(RuntimeError, match="killed"):
        await dying.roll_up()
    assert writes == 1
    # Nobody else counts while its time runs, and nobody counts anything but its window then.
    assert await usage.roll_up() is False
    marks = database.collection("usage_marks")
    window = (await database.run(marks.find_one({"_id": "turns"})))["window"]
    await database.run(marks.update_one({"_id": "turns"}, {"$set": {"until": datetime.fromtimestamp(0, UTC)}}))
    await usage.roll_up()
    assert (await database.run(marks.find_one({"_id": "turns"})))["upto"] == window["upto"]
    while await usage.roll_up():
        pass
    rows = await usage.read(tenant, ALWAYS, by="model", limit=9)
    assert [(row.name, row.turns) for row in rows] == [("m0", 13), ("m1", 13), ("m2", 12), ("m3", 12)]


@pytest.mark.requirement("usage:counted-once")
async def test_many_turns_of_many_keys_in_one_second_are_one_window(
    database: Database, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_mongo, "WINDOW_TURNS", 7)
    await _emptied(database)
    ended = datetime.now(UTC) - timedelta(hours=5)
    one = {"tenant": tenant, "status": "completed", "model": "m", "stored_at": ended}
    turns = [{**one, "_id": f"{tenant}-{n}", "key": f"k{n}"} for n in range(300)]
    await database.run(database.collection("turns").insert_many(turns))
    usage = MongoUsages(database)
    while await usage.roll_up():
        # Something else that takes the session of whatever was asked last.
        await asyncio.gather(*(usage.as_of() for _ in range(3)))
    rows = await usage.read(tenant, ALWAYS, by="key", limit=400)
    assert (len(rows), sum(row.turns for row in rows)) == (300, 300)


@pytest.mark.requirement("usage:counted-once")
async def test_where_the_mark_was_lost_nothing_is_counted_again(
    database: Database, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_mongo, "WINDOW_TURNS", 10)
    await _emptied(database)
    await _aged(database, tenant, 100, models=100)
    usage = MongoUsages(database)
    while await usage.roll_up():
        pass
    await database.run(database.collection("usage_marks").delete_many({}))
    monkeypatch.setattr(usage_mongo, "WINDOW_TURNS", 33)
    while await usage.roll_up():
        pass
    (day,) = await usage.read(tenant, ALWAYS, by="day", limit=9)
    assert day.turns == 100


async def test_no_question_looks_at_the_usage_of_other_days_or_tenants(
    database: Database, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _emptied(database)
    today = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    hours = [
        {
            "_id": f"{today - timedelta(hours=n):%Y-%m-%dT%H}:{whose}:k:m",
            "hour": today - timedelta(hours=n),
            "tenant": whose,
            "key": "k",
            "model": "m",
            "completed": 1,
        }
        for n in range(240)
        for whose in (tenant, f"{tenant}-other")
    ]
    await database.run(database.collection("usage").insert_many(hours))
    asked: list[dict[str, object]] = []
    aggregate = database.aggregate

    async def note(collection: str, pipeline: list[object]) -> list[object]:
        command = {"aggregate": collection, "pipeline": pipeline, "cursor": {}}
        asked.append(await database.command({"explain": command, "verbosity": "executionStats"}))
        return await aggregate(collection, pipeline)  # type: ignore[arg-type]  a pipeline it is

    monkeypatch.setattr(database, "aggregate", note)
    usage, day = MongoUsages(database), (today - timedelta(days=3)).date()
    for whose, by, turns in ((tenant, "model", 24), (None, "tenant", 48)):
        rows = await usage.read(whose, Period(day, day), by=by, limit=9)  # type: ignore[arg-type]  two of them
        assert sum(row.turns for row in rows) == turns
        plan = asked[-1]
        stats = plan.get("executionStats") or plan["stages"][0]["$cursor"]["executionStats"]  # type: ignore[index]  as the server says it
        assert "COLLSCAN" not in str(plan)
        assert stats["totalDocsExamined"] <= turns  # type: ignore[index]  as the server says it


class _Broken:
    """A database whose groups of writes are another's."""

    def __init__(self, database: Database, write_group: object) -> None:
        self._database = database
        self.write_group = write_group

    def __getattr__(self, name: str) -> object:
        return getattr(self._database, name)


async def test_a_window_is_found_and_counted_without_looking_at_other_turns(database: Database, tenant: str) -> None:
    await _emptied(database)
    await _aged(database, tenant, 300)
    async with open_stores(database) as stores:
        await stores.turns.put(tenant, _record(tenant, "stamped"))
        stored = await database.run(database.collection("turns").find_one({"_id": f"{tenant}-stamped"}))
        assert stored["stored_at"].time == pytest.approx(time.time(), abs=5)
        for n in range(50):
            await stores.live_turns.insert(tenant, replace(_live(tenant, f"live-{n}"), conversation=None))
    low = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=5) + timedelta(seconds=100)
    match = {"stored_at": {"$gte": low, "$lt": low + timedelta(seconds=10)}}
    command = {"find": "turns", "filter": match}
    plan = await database.command({"explain": command, "verbosity": "executionStats"})
    assert "'by_end'" in str(plan["queryPlanner"]["winningPlan"])
    assert plan["executionStats"]["totalDocsExamined"] <= 11


async def test_usage_is_kept_as_long_as_the_audit(database: Database, tenant: str) -> None:
    await _emptied(database)
    await _aged(database, tenant, 1)
    usage = MongoUsages(database, lambda _, kind: {"audit": 500}.get(kind, 1))
    while await usage.roll_up():
        pass
    kept = await database.run(database.collection("usage").find_one({"tenant": tenant}))
    assert kept["kept_until"] - kept["hour"] == timedelta(days=500)


async def test_what_a_turn_cost_before_it_was_requeued_counts_once(backend: Backend, tenant: str) -> None:
    live_turns = backend.stores.live_turns
    before = _live(tenant, "again")
    await live_turns.insert(tenant, before)
    failed = _record(tenant, "again", mode="durable", status="failed", served_by="m", usage=before.usage)
    await live_turns.finish(tenant, failed, version=1, before=before)
    assert await _counted(backend, tenant) == [UsageRow(name="m", failed=1, input_tokens=7)]
    await live_turns.revive(tenant, replace(before, version=2, billed=before.usage))
    assert await _counted(backend, tenant) == [UsageRow(name="m", failed=1, input_tokens=7)]
    ended = _record(tenant, "again", mode="durable", billed=before.usage)
    await live_turns.finish(tenant, ended, version=2)
    assert await live_turns.get(tenant, before.id) == ended
    both = [_row("m", 1, failed=1, completed=1)]
    assert await _counted(backend, tenant) == both
    await backend.stores.turns.erase(tenant, conversation=before.conversation)
    assert await _counted(backend, tenant) == both


async def test_a_requeued_turn_that_is_erased_while_it_runs_is_not_counted_twice(backend: Backend, tenant: str) -> None:
    live_turns = backend.stores.live_turns
    before = _live(tenant, "again")
    await live_turns.insert(tenant, before)
    failed = _record(tenant, "again", mode="durable", status="failed", served_by="m", usage=before.usage)
    await live_turns.finish(tenant, failed, version=1, before=before)
    assert await _counted(backend, tenant) == [UsageRow(name="m", failed=1, input_tokens=7)]
    more = replace(before.usage, input_tokens=9, output_tokens=2)
    await live_turns.revive(tenant, replace(before, version=2, usage=more, billed=before.usage))
    await backend.stores.turns.erase(tenant, conversation=before.conversation)
    counted = await _counted(backend, tenant)
    assert counted == [UsageRow(name="m", failed=1, cancelled=1, input_tokens=9, output_tokens=2)]
