"""How long what is stored is kept, and what happens when that is changed, on both drivers."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from kitemesh_runtime import retention_walks_mongo
from kitemesh_runtime.audit import AuditRow
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.holds import HeldCall, Hold
from kitemesh_runtime.indexes_mongo import ensure_indexes
from kitemesh_runtime.ledger import LedgerRow
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.moves_mongo import date_audit, date_rest
from kitemesh_runtime.retention import Days, default_days
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_mongo import open_stores
from kitemesh_runtime.tenancy import DEFAULT_TENANT, Kind, TenantRecord
from kitemesh_runtime.turns import TurnRecord

OWN: dict[Kind, int] = {"turns": 2, "conversations": 3, "holds": 4, "ledger": 5, "audit": 6}
KINDS: dict[str, Kind] = {
    "turns": "turns",
    "conversations": "conversations",
    "holds": "holds",
    "ledger": "ledger",
    "audit": "audit",
    "claims": "turns",
}
LONG_AGO = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(autouse=True)
async def empty(database: Database) -> None:
    await ensure_indexes(database)
    for name in (*KINDS, "tenants", "retention"):
        await database.run(database.collection(name).delete_many({}))


async def fill(stores: Stores, tenant: str) -> None:
    """Store one of everything that is kept for a while."""
    turn = LiveTurn(
        id=f"{tenant}-live", tenant=tenant, version=1, status="running", mode="durable", model="m", state=b""
    )
    record = TurnRecord(id=f"{tenant}-live", tenant=tenant, status="completed", mode="durable", model="m")
    await stores.live_turns.insert(tenant, turn)
    await stores.live_turns.finish(tenant, record, version=1)
    await stores.turns.put(tenant, replace(record, id=f"{tenant}-classic", mode="classic"))
    call = HeldCall(id="a", name="n", version="v", effect="once", arguments="{}", sha256="00", sentence="s", shown="{}")
    hold = Hold(id=f"{tenant}-hold", tenant=tenant, turn="t", step=0, model="m", calls=(call,))
    await stores.holds.open(tenant, hold, expires_after_s=60)
    await stores.holds.cancel(tenant, hold.id, "enough")
    for name in ("inserted", "hurried"):
        if name == "inserted":
            await stores.conversations.create(tenant, name, "one", agent=None)
        await stores.conversations.release(tenant, name, "one")
    row = LedgerRow(
        id=f"{tenant}-call",
        tenant=tenant,
        turn="t",
        tool="t",
        effect="once",
        state="dispatched",
        by="me",
        args_sha256="00",
    )
    await stores.ledger.dispatch(tenant, row)
    await stores.audit.append(tenant, AuditRow(id=f"{tenant}-deed", tenant=tenant, subject="s", what="w"))
    await stores.claims.claim(tenant, "message", "m", f"{tenant}-live")


async def kept_days(database: Database, tenant: str) -> dict[str, set[float]]:
    """Return for how many days from now the documents of each collection are kept."""
    days: dict[str, set[float]] = {}
    for name in KINDS:
        found = await database.run(database.collection(name).find({"tenant": tenant}).to_list(None))
        days[name] = {round((each["kept_until"] - datetime.now(UTC)).total_seconds() / 86_400, 2) for each in found}
    return days


def days_of(days: dict[Kind, int]) -> dict[str, set[float]]:
    return {name: {float(days[kind])} for name, kind in KINDS.items()}


async def bring(stores: Stores, database: Database) -> None:
    """Have every change heard of, and brought to what is stored."""
    await stores.retention.apply()
    await database.run(
        database.collection("retention").update_many(
            {"due": {"$type": "date"}}, {"$set": {"due": datetime.fromtimestamp(0, UTC)}}
        )
    )
    while await stores.retention.apply():
        pass


@pytest.mark.requirement("retention:per-tenant-and-kind")
async def test_each_document_says_when_it_goes_as_its_tenant_wants_it(
    database: Database, tenant: str, other: str
) -> None:
    def days(whose: str, kind: Kind) -> int:
        return OWN[kind] if whose == tenant else default_days(whose, kind)

    async with open_stores(database, days=days) as stores:
        await fill(stores, tenant)
        await fill(stores, other)
    assert await kept_days(database, tenant) == days_of(OWN)
    plain: dict[Kind, int] = {kind: default_days(other, kind) for kind in OWN}
    assert await kept_days(database, other) == days_of(plain)


async def test_a_conversation_is_kept_from_its_last_change_on(database: Database, tenant: str) -> None:
    collection = database.collection("conversations")
    older = [{"$set": {"updated_at": LONG_AGO, "kept_until": LONG_AGO}}]
    async with open_stores(database) as stores:
        conversations = stores.conversations
        await conversations.create(tenant, "c", "one", agent=None)
        await conversations.take(tenant, "c", "two", b"", max_waiting=5)
        for change in (
            lambda: conversations.release(tenant, "c", "one"),
            lambda: conversations.take(tenant, "c", "three", b"", max_waiting=5),
            lambda: conversations.release(tenant, "c", "two"),
            lambda: conversations.release(tenant, "c", "three"),
            lambda: conversations.change(tenant, "c", title="A title"),
        ):
            await database.run(collection.update_many({"tenant": tenant}, older))
            await change()
            (document,) = await database.run(collection.find({"tenant": tenant}).to_list(None))
            assert document["updated_at"] > LONG_AGO
            if document["active"] is None:
                assert document["kept_until"] - document["updated_at"] == timedelta(days=30)
            else:
                # Its turn may be held for longer than such a conversation is kept.
                assert "kept_until" not in document


async def test_a_conversation_with_a_turn_in_it_stays_whatever_its_retention_is(
    database: Database, tenant: str
) -> None:
    collection = database.collection("conversations")
    async with open_stores(database) as stores:
        await stores.conversations.create(tenant, "c", "one", agent=None)
        await stores.conversations.release(tenant, "c", "one")
        await stores.conversations.take(tenant, "c", "two", b"", max_waiting=5)
        await stores.conversations.take(tenant, "c", "three", b"", max_waiting=5)
        await stores.conversations.change(tenant, "c", title="A title")
        await stores.tenants.put(TenantRecord(id=tenant, retention_days={"conversations": 1}))
        await bring(stores, database)
        held = await database.run(collection.find_one({"tenant": tenant}))
        assert (held["active"], len(held["waiting"]), "kept_until" in held) == ("two", 1, False)


@pytest.mark.requirement("retention:changes-are-applied")
async def test_a_changed_retention_is_brought_to_what_that_tenant_has_and_to_nothing_else(
    database: Database, tenant: str, other: str
) -> None:
    async with open_stores(database) as stores:
        for whose in (tenant, other):
            await fill(stores, whose)
            await stores.claims.claim(whose, "idem-chat", "k", f"{whose}-live")
        await stores.turns.bury(tenant, f"{tenant}-buried")
        await bring(stores, database)
        before = await kept_days(database, other)
        await stores.tenants.put(TenantRecord(id=tenant, retention_days=OWN))
        await stores.retention.apply()
        # Somebody may not have heard of it and write as before.
        assert await stores.retention.apply() is False
        assert (await kept_days(database, tenant))["ledger"] == {400.0}
        await bring(stores, database)
        brought = days_of(OWN)
        brought["turns"] |= {0.04}
        brought["claims"] |= {1.0}
        # Of what is written in the audit nothing is ever changed.
        brought["audit"] = {400.0}
        assert await kept_days(database, tenant) == brought
        assert await kept_days(database, other) == before
        await stores.tenants.remove(tenant)
        await bring(stores, database)
        assert (await kept_days(database, tenant))["ledger"] == {400.0}


@pytest.mark.requirement("retention:changes-are-applied")
async def test_a_changed_default_is_brought_to_all_who_have_nothing_of_their_own(
    database: Database, tenant: str, other: str
) -> None:
    async with open_stores(database) as stores:
        await fill(stores, tenant)
        await fill(stores, other)
        await stores.tenants.put(TenantRecord(id=tenant, retention_days={"turns": 2}))
        await stores.tenants.put(TenantRecord(id=DEFAULT_TENANT, retention_days={"turns": 9, "holds": 8}))
        await bring(stores, database)
    assert (await kept_days(database, tenant))["turns"] == {2.0}
    assert (await kept_days(database, tenant))["holds"] == {8.0}
    assert (await kept_days(database, other))["turns"] == {9.0}
    assert (await kept_days(database, other))["claims"] == {9.0}
    assert (await kept_days(database, other))["ledger"] == {400.0}


@pytest.mark.requirement("retention:old-documents")
async def test_what_an_earlier_release_stored_gets_its_date(database: Database, tenant: str) -> None:
    old: dict[str, dict[str, Any]] = {
        "turns": {"status": "completed", "stored_at": LONG_AGO},
        "conversations": {"updated_at": LONG_AGO},
        "holds": {"status": "decided", "ended_at": LONG_AGO},
        "ledger": {"dispatched_at": LONG_AGO},
        "audit": {"at": LONG_AGO},
        "claims": {"claimed_at": LONG_AGO},
    }
    for name, fields in old.items():
        collection = database.collection(name)
        await database.run(collection.insert_one({"_id": f"{tenant}:message:x", "tenant": tenant, **fields}))
    live = {"_id": f"{tenant}-live", "tenant": tenant, "status": "running", "live": True}
    erased = {"_id": f"{tenant}-erased", "tenant": tenant, "deleted": True, "deleted_at": LONG_AGO}
    await database.run(database.collection("turns").insert_many([live, erased]))
    claim = {"_id": f"{tenant}:idem-x:k", "tenant": tenant, "claimed_at": LONG_AGO, "expires_at": LONG_AGO}
    alike = {"_id": f"{tenant}:message:a:idem-x", "tenant": tenant, "claimed_at": LONG_AGO}
    await database.run(database.collection("claims").insert_many([claim, alike]))
    assert await date_audit(database) == 1
    assert await date_audit(database) == 0
    # A service of that release that has not been stopped yet.
    late = {"_id": f"{tenant}-late", "tenant": tenant, "at": LONG_AGO}
    await database.run(database.collection("audit").insert_one(late))
    assert await date_audit(database) == 1
    async with open_stores(database) as stores:
        await bring(stores, database)
    for name in old:
        document = await database.run(database.collection(name).find_one({"_id": f"{tenant}:message:x"}))
        assert document["kept_until"] == LONG_AGO + timedelta(days=default_days(tenant, KINDS[name]))
    turns = {each["_id"]: each for each in await database.run(database.collection("turns").find({}).to_list(None))}
    assert "kept_until" not in turns[f"{tenant}-live"]
    hour = turns[f"{tenant}-erased"]["kept_until"] - datetime.now(UTC)
    assert hour.total_seconds() == pytest.approx(3600, abs=30)
    kept = await database.run(database.collection("claims").find_one({"_id": claim["_id"]}))
    assert kept["kept_until"] == LONG_AGO
    kept = await database.run(database.collection("claims").find_one({"_id": alike["_id"]}))
    assert kept["kept_until"] == LONG_AGO + timedelta(days=30)


@pytest.mark.requirement("retention:old-documents")
async def test_nothing_is_brought_before_the_release_before_is_gone_whatever_is_said_meanwhile(
    database: Database, tenant: str
) -> None:
    plans = database.collection("retention")
    async with open_stores(database) as stores:
        # What `kitemesh bootstrap` says where the environment says it.
        await stores.tenants.put(TenantRecord(id=DEFAULT_TENANT, retention_days={"turns": 9}))
        await stores.retention.apply()
        await stores.tenants.put(TenantRecord(id=DEFAULT_TENANT, retention_days={"turns": 8}))
        await stores.retention.apply()
        plan = await database.run(plans.find_one({"_id": DEFAULT_TENANT}))
        assert plan["due"] - datetime.now(UTC) > timedelta(minutes=59)
        assert (plan["days"], len(plan["left"])) == ({"turns": 8}, 5)


@pytest.mark.requirement("retention:old-documents")
async def test_what_was_stored_while_an_earlier_release_was_gone_back_to_gets_its_date(
    database: Database, tenant: str
) -> None:
    turns = database.collection("turns")
    async with open_stores(database) as stores:
        await bring(stores, database)
        assert not await date_rest(database)
        await database.run(turns.create_index([("stored_at", 1)], name="retention_stored_at"))
        await database.run(
            turns.insert_one({"_id": tenant, "tenant": tenant, "status": "completed", "stored_at": LONG_AGO})
        )
        assert await date_rest(database)
        await ensure_indexes(database)
        assert not await date_rest(database)
        await bring(stores, database)
        assert (await database.run(turns.find_one({"_id": tenant})))["kept_until"] == LONG_AGO + timedelta(days=30)


async def test_only_the_kinds_that_were_changed_are_walked_over(database: Database, tenant: str) -> None:
    plans = database.collection("retention")
    async with open_stores(database) as stores:
        await bring(stores, database)
        for days, left in (
            ({"turns": 9}, {"turns", "claims"}),
            ({"turns": 9, "ledger": 8}, {"turns", "claims", "ledger"}),
        ):
            await stores.tenants.put(TenantRecord(id=tenant, retention_days=days))
            await stores.retention.apply()
            plan = await database.run(plans.find_one({"_id": tenant}))
            assert set(plan["left"]) == left


async def test_many_replicas_share_the_work_and_go_on_where_one_died(
    database: Database, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_walks_mongo, "PAGE", 3)
    monkeypatch.setattr(retention_walks_mongo, "PAGES", 2)
    turns = [
        {"_id": f"{tenant}-{n:03}", "tenant": tenant, "status": "completed", "stored_at": LONG_AGO} for n in range(40)
    ]
    await database.run(database.collection("turns").insert_many(turns))
    plans = database.collection("retention")
    async with open_stores(database) as stores, open_stores(database) as others:
        await stores.tenants.put(TenantRecord(id=tenant, retention_days={"turns": 2}))
        await stores.retention.apply()
        now = {"$set": {"due": datetime.fromtimestamp(0, UTC)}}
        await database.run(plans.update_many({"_id": tenant}, now))
        assert await stores.retention.apply()
        last = (await database.run(plans.find_one({"_id": tenant})))["last"]
        assert last == f"{tenant}-005"
        # Who takes a part and dies is waited for, and what it has done is done again.
        await database.run(plans.update_one({"_id": tenant}, {"$set": {"due": datetime.now(UTC) + timedelta(hours=1)}}))
        assert not await others.retention.apply()
        await database.run(plans.update_one({"_id": tenant}, now))
        async with asyncio.timeout(20):
            left = True
            while left:
                left = any(await asyncio.gather(stores.retention.apply(), others.retention.apply()))
    found = await database.run(database.collection("turns").find({"tenant": tenant}).to_list(None))
    assert {each["kept_until"] for each in found} == {LONG_AGO + timedelta(days=2)}


async def test_a_tenants_turns_are_walked_over_without_looking_at_others(
    database: Database, tenant: str, other: str
) -> None:
    turns = [
        {
            "_id": f"{n:04}",
            "tenant": tenant if n % 10 == 0 else other,
            "status": ("completed", "failed")[n % 2],
            "stored_at": LONG_AGO,
        }
        for n in range(400)
    ]
    await database.run(database.collection("turns").insert_many(turns))
    for collection, owned in (("turns", retention_walks_mongo._ended), ("claims", retention_walks_mongo._named)):
        find = {"find": collection, "filter": owned(tenant, "0100"), "sort": {"_id": 1}, "limit": 5}
        plan = await database.command({"explain": find, "verbosity": "executionStats"})
        assert "'SORT'" not in str(plan["queryPlanner"]["winningPlan"])
        assert plan["executionStats"]["totalDocsExamined"] <= 5


async def test_what_is_to_be_brought_is_found_among_many_tenants_that_have_it(database: Database) -> None:
    plans = [{"_id": f"t{n}", "days": {"turns": n}, "left": []} for n in range(200)]
    plans[7]["due"] = LONG_AGO
    await database.run(database.collection("retention").insert_many(plans))
    find = {"find": "retention", "filter": retention_walks_mongo.IS_DUE}
    plan = await database.command({"explain": find, "verbosity": "executionStats"})
    assert "'due'" in str(plan["queryPlanner"]["winningPlan"])
    assert (plan["executionStats"]["nReturned"], plan["executionStats"]["totalDocsExamined"]) == (1, 1)


def test_without_a_word_the_days_are_the_promised_ones() -> None:
    days: Days = default_days
    kinds: tuple[Kind, ...] = ("turns", "conversations", "holds", "ledger", "audit")
    assert [days("x", kind) for kind in kinds] == [30, 30, 30, 400, 400]


async def test_files_and_long_results_are_kept_longer_than_the_turns_that_name_them(
    database: Database, tenant: str, other: str
) -> None:
    def days(whose: str, kind: Kind) -> int:
        return OWN[kind] if whose == tenant else default_days(whose, kind)

    async with open_stores(database, days=days) as stores:
        for whose, least in ((tenant, 2), (other, 30)):
            blob = await stores.blobs.put(whose, b"x", keep_s=None, about="c")
            found = await database.run(database.collection("blobs").find_one({"_id": blob}))
            left = found["expires_at"] - datetime.now(UTC)
            assert timedelta(days=least + 4) < left <= timedelta(days=least + 5)
