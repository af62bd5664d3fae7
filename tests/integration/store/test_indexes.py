"""The indexes, on both drivers."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace
from pymongo import ASCENDING, TEXT

from kitemesh_contracts.errors import Conflict
from kitemesh_runtime import indexes_mongo
from kitemesh_runtime.audit import AuditRow
from kitemesh_runtime.conversation_updates_mongo import due
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.hold_updates_mongo import AGED
from kitemesh_runtime.hold_updates_mongo import due as holds_due
from kitemesh_runtime.hold_updates_mongo import page as holds_page
from kitemesh_runtime.holds import HeldCall, Hold, HoldStatus
from kitemesh_runtime.indexes_mongo import OBSOLETE, ensure_indexes, indexes
from kitemesh_runtime.ledger import LedgerRow
from kitemesh_runtime.live_turns import LiveStatus, LiveTurn
from kitemesh_runtime.live_turns_mongo import idle, listed
from kitemesh_runtime.stores_mongo import open_stores
from kitemesh_runtime.turns import TurnRecord


def _turn(tenant: str, name: str) -> LiveTurn:
    return LiveTurn(
        id=f"{tenant}-{name}", tenant=tenant, version=1, status="running", mode="durable", model="m", state=b""
    )


def _hold(tenant: str, name: str) -> Hold:
    call = HeldCall(id="a", name="n", version="v", effect="once", arguments="{}", sha256="00", sentence="s", shown="{}")
    return Hold(id=f"{tenant}-{name}", tenant=tenant, turn="t", step=0, model="m", calls=(call,))


async def _explain(database: Database, command: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Return what running a command examined, and its plan as text."""
    answer = await database.command({"explain": command, "verbosity": "executionStats"})
    return answer["executionStats"], str(answer["queryPlanner"]["winningPlan"])


@pytest.mark.requirement("bootstrap:idempotent")
async def test_all_are_created_once(database: Database) -> None:
    await database.command({"dropDatabase": 1})
    done = await ensure_indexes(database)
    assert len(done) == len(indexes())
    assert await ensure_indexes(database) == []


@pytest.mark.requirement("retention:one-date")
async def test_what_is_kept_goes_by_one_index_of_its_collection_and_the_old_ones_are_dropped(
    database: Database,
) -> None:
    await database.command({"dropDatabase": 1})
    for collection, name in OBSOLETE:
        old = database.collection(collection).create_index(
            [(name.removeprefix("retention_"), ASCENDING)], name=name, expireAfterSeconds=86_400
        )
        await database.run(old)
    done = await ensure_indexes(database)
    assert {f"dropped index {collection}.{name}" for collection, name in OBSOLETE} <= set(done)
    assert await ensure_indexes(database) == []
    for collection in {collection for collection, _ in OBSOLETE}:
        found = await database.run(database.collection(collection).index_information())
        assert [name for name, index in found.items() if "expireAfterSeconds" in index] == ["retention_kept_until"]
        assert found["retention_kept_until"]["expireAfterSeconds"] == 0


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


async def test_nothing_that_waits_or_runs_goes_by_retention(database: Database, tenant: str) -> None:
    await ensure_indexes(database)
    async with open_stores(database) as stores:
        await stores.live_turns.insert(tenant, _turn(tenant, "live"))
        await stores.holds.open(tenant, _hold(tenant, "open"), expires_after_s=60)
        await stores.holds.open(tenant, _hold(tenant, "ended"), expires_after_s=60)
        await stores.holds.cancel(tenant, f"{tenant}-ended", "x")
        await stores.live_turns.insert(tenant, _turn(tenant, "ended"))
        record = TurnRecord(id=f"{tenant}-ended", tenant=tenant, status="completed", mode="durable", model="m")
        await stores.live_turns.finish(tenant, record, version=1)
        row = AuditRow(id=f"{tenant}-ended", tenant=tenant, subject="s", what="w")
        await stores.audit.append(tenant, row)
        call = LedgerRow(
            id=f"{tenant}-ended",
            tenant=tenant,
            turn="t",
            tool="t",
            effect="once",
            state="dispatched",
            by="me",
            args_sha256="00",
        )
        await stores.ledger.dispatch(tenant, call)
    for name in ("turns", "holds", "ledger", "audit"):
        dated = {"tenant": tenant, "kept_until": {"$type": "date"}}
        documents = await database.run(database.collection(name).find(dated, {"kept_until": 1}).to_list(None))
        assert [document["_id"] for document in documents] == [f"{tenant}-ended"]
        days = (documents[0]["kept_until"] - datetime.now(UTC)).total_seconds() / 86_400
        assert days == pytest.approx(400 if name in ("ledger", "audit") else 30, abs=0.01)


async def test_what_is_due_is_found_without_looking_at_what_only_waits(database: Database, tenant: str) -> None:
    await database.command({"dropDatabase": 1})
    await ensure_indexes(database)
    async with open_stores(database) as stores:
        for n in range(30):
            status: LiveStatus = "held" if n % 2 else "running"
            await stores.live_turns.insert(tenant, replace(_turn(tenant, f"{n}"), status=status))
            later = replace(_turn(tenant, f"later-{n}"), status="held", look_at_s=4e9)
            await stores.live_turns.insert(tenant, later)
            await stores.holds.open(tenant, _hold(tenant, f"{n}"), expires_after_s=600)
        await stores.holds.open(tenant, _hold(tenant, "run-out"), expires_after_s=0)
        for filter_, collection, order, found in (
            (idle(3600), "turns", {"touched_at": 1}, 0),
            (holds_due(), "holds", {"due_at": 1}, 1),
        ):
            find = {"find": collection, "filter": filter_, "sort": order, "limit": 100}
            stats, plan = await _explain(database, find)
            assert "'due'" in plan
            assert "COLLSCAN" not in plan
            assert "'SORT'" not in plan
            assert (stats["totalDocsExamined"], stats["nReturned"]) == (found, found)
            assert stats["totalKeysExamined"] <= found + 1


async def test_a_page_of_turns_reads_little_more_than_it_returns(database: Database, tenant: str) -> None:
    await database.command({"dropDatabase": 1})
    await ensure_indexes(database)
    documents = [
        {
            "_id": f"{tenant}-{n:03}",
            "tenant": tenant if n % 8 == 0 else f"{tenant}-other",
            "status": ("completed", "running", "failed")[n % 3],
            "conversation": f"{tenant}-{n % 5}",
            "ordinal": n,
        }
        for n in range(1000)
    ]
    await database.run(database.collection("turns").insert_many(documents))
    for statuses, before, examined in (
        ((), None, 5),
        ((), f"{tenant}-500", 5),
        (("failed",), f"{tenant}-500", 5),
        (("failed", "running"), None, 5),
        (("queued",), None, 0),
    ):
        find = {"find": "turns", "filter": listed(tenant, statuses, None, before), "sort": {"_id": -1}, "limit": 5}
        stats, plan = await _explain(database, find)
        assert "COLLSCAN" not in plan
        assert "'SORT'" not in plan
        assert "'by_status'" in plan
        assert (stats["totalDocsExamined"], stats["nReturned"]) == (examined, examined)
        assert stats["totalKeysExamined"] <= examined + 8
    # A conversation's are found by it, and only they are put in order.
    page = listed(tenant, (), f"{tenant}-3", None)
    stats, plan = await _explain(database, {"find": "turns", "filter": page, "sort": {"_id": -1}, "limit": 5})
    assert "COLLSCAN" not in plan
    assert stats["nReturned"] == 5
    assert stats["totalDocsExamined"] <= 25


async def test_a_database_from_before_gets_what_is_new_and_keeps_what_it_had(database: Database) -> None:
    await database.command({"dropDatabase": 1})
    await ensure_indexes(database)
    new = (("turns", "by_status"), ("claims", "retention_kept_until"))
    for collection, name in new:
        await database.run(database.collection(collection).drop_index(name))
    assert await ensure_indexes(database) == [f"created index {collection}.{name}" for collection, name in new]


async def test_holds_are_counted_and_paged_by_their_indexes(database: Database, tenant: str) -> None:
    await database.command({"dropDatabase": 1})
    await ensure_indexes(database)
    async with open_stores(database) as stores:
        assert await stores.holds.oldest_open_s() == 0
        for n in range(40):
            await stores.holds.open(tenant, _hold(tenant, f"{n}"), expires_after_s=600)
            if n % 4:
                await stores.holds.cancel(tenant, f"{tenant}-{n}", "x")
        assert await stores.holds.count_open() == 10
        assert 0 < await stores.holds.oldest_open_s() < 60
        last = await database.run(database.collection("holds").find_one({"_id": f"{tenant}-20"}))
    stats, plan = await _explain(database, {"count": "holds", "query": {"status": "open"}})
    assert "COUNT_SCAN" in plan
    assert stats["totalDocsExamined"] == 0
    oldest = {"find": "holds", "filter": AGED, "sort": {"created_at": 1}, "limit": 1}
    stats, plan = await _explain(database, oldest)
    assert "'open_since'" in plan
    assert "'SORT'" not in plan
    assert stats["totalDocsExamined"] == 1
    newest = {"created_at": -1, "_id": -1}
    statuses: tuple[HoldStatus | None, ...] = (None, "open")
    for status in statuses:
        page = holds_page(tenant, status, (last["created_at"], last["_id"]))
        find = {"find": "holds", "filter": page, "sort": newest, "limit": 5}
        stats, plan = await _explain(database, find)
        assert "'by_status'" in plan
        assert "'SORT'" not in plan
        assert stats["totalDocsExamined"] <= 12
        assert stats["nReturned"] == 5


async def test_a_document_may_name_a_language_that_no_index_over_text_knows(database: Database, tenant: str) -> None:
    await ensure_indexes(database)
    words = [spec for spec in indexes() if any(kind == TEXT for _, kind in spec.keys)]
    assert words
    for spec in words:
        document = {"_id": f"{tenant}-odd", "tenant": tenant, "language": "klingon", "text": "Qapla'"}
        collection = database.collection(spec.collection)
        await database.run(collection.insert_one({**document, "input": {"language": "tlh", "text": "x"}}))
        await database.run(collection.delete_one({"_id": f"{tenant}-odd"}))


@pytest.mark.parametrize("changes", [{"keys": (("tenant", 1), ("text", TEXT))}, {"language": "german"}])
async def test_an_index_over_other_texts_or_of_another_language_is_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    await ensure_indexes(database)
    (spec,) = [each for each in indexes() if each.collection == "passages" and each.name == "by_words"]
    monkeypatch.setattr(indexes_mongo, "indexes", lambda: (spec._replace(**changes),))
    with pytest.raises(Conflict, match=r"passages\.by_words"):
        await ensure_indexes(database)


async def test_several_may_bootstrap_at_the_same_time_what_an_earlier_release_left(database: Database) -> None:
    for collection in {collection for collection, _ in OBSOLETE}:
        await database.run(database.collection(collection).drop_indexes())
    for collection, name in OBSOLETE:
        await database.run(database.collection(collection).create_index([(name, 1)], name=name))
    done = await asyncio.gather(*(ensure_indexes(database) for _ in range(3)))
    assert {f"dropped index {collection}.{name}" for collection, name in OBSOLETE} <= {
        line for each in done for line in each
    }
    assert await ensure_indexes(database) == []
