"""Holds, on the twin and on both drivers."""

import asyncio
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from integration.store.backends import Backend
from kitemesh_contracts.errors import BadRequest, Bug, Conflict, ErrorCode
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.holds import Decided, HeldCall, Hold, HoldStatus, Verdict
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_mongo import open_stores

YES = Verdict(approved=True, by="key", origin="192.0.2.1")
NO = Verdict(approved=False, reason="$no")


def _call(name: str) -> HeldCall:
    return HeldCall(
        id=name,
        name="drop",
        version="v1",
        effect="once",
        arguments='{"$where":"a.b"}',
        sha256="00",
        sentence="Drop a.b",
        shown='{"$where":"***"}',
    )


def _hold(tenant: str, name: str = "h", *, calls: tuple[str, ...] = ("a", "b")) -> Hold:
    return Hold(
        id=f"{tenant}-{name}",
        tenant=tenant,
        turn=f"{tenant}-turn",
        step=1,
        model="scripted",
        calls=tuple(_call(call) for call in calls),
    )


async def _opened(stores: Stores, tenant: str, name: str = "h", *, expires_after_s: float = 600.0) -> Hold:
    return await stores.holds.open(tenant, _hold(tenant, name), expires_after_s=expires_after_s)


async def _kept(stores: Stores, tenant: str, name: str = "h") -> Hold:
    kept = await stores.holds.get(tenant, f"{tenant}-{name}")
    assert kept is not None
    return kept


async def _due(stores: Stores, tenant: str) -> list[str]:
    """Return this test's own: what is due is due over all tenants."""
    found = await stores.holds.due(limit=10_000)
    return [hold.id.removeprefix(f"{tenant}-") for hold in found if hold.tenant == tenant]


def _won(answer: Decided) -> Hold:
    assert answer.won
    assert answer.hold is not None
    return answer.hold


async def test_a_whole_hold_comes_back_as_it_was_opened_with_its_end(
    stores: Stores, tenant: str, conversation: str
) -> None:
    hold = replace(
        _hold(tenant),
        scope="approve:money",
        together=True,
        conversation=conversation,
        agent="$$ROOT",
        texts=("$text",),
    )
    opened = await stores.holds.open(tenant, hold, expires_after_s=90.5)
    assert opened.expires_at_s - opened.created_at_s == pytest.approx(90.5, abs=0.002)
    assert opened.created_at_s > 1_700_000_000
    assert replace(opened, created_at_s=0.0, expires_at_s=0.0) == hold
    assert await stores.holds.get(tenant, hold.id) == opened


async def test_opening_again_changes_nothing_and_returns_what_is_stored(backend: Backend, tenant: str) -> None:
    holds = backend.stores.holds
    await _opened(backend.stores, tenant)
    decided = _won(await holds.decide(tenant, f"{tenant}-h", {"a": YES}))
    again = await holds.open(tenant, replace(_hold(tenant), model="other"), expires_after_s=1.0)
    assert again == decided == await _kept(backend.stores, tenant)


@pytest.mark.parametrize("change", ["nothing", "part", "whole", "cancel", "expire"])
async def test_other_calls_never_take_the_place_of_those_that_somebody_may_have_seen(
    backend: Backend, tenant: str, change: str
) -> None:
    stores, holds = backend.stores, backend.stores.holds
    opened = await _opened(stores, tenant)
    if change == "cancel":
        await holds.cancel(tenant, opened.id, "x")
    elif change == "expire":
        await backend.age(601)
        await holds.expire(tenant, opened.id)
    elif change != "nothing":
        await holds.decide(tenant, opened.id, {"a": YES} if change == "part" else {"a": YES, "b": YES})
    before = await _kept(stores, tenant)
    others = replace(_hold(tenant), calls=(_call("c"),), scope="approve:money", together=True)
    assert await holds.open(tenant, others, expires_after_s=600) == before
    assert await _kept(stores, tenant) == before


async def test_holds_that_cannot_be_read_neither_stop_nor_fill_what_is_due(database: Database, tenant: str) -> None:
    collection = database.collection("holds")
    await database.run(collection.delete_many({}))
    broken = {"1": {"status": "sleeping"}, "2": {"created_at": 1}, "4": {"calls": [{"id": "a"}]}}
    async with open_stores(database) as stores:
        for name in ("1", "2", "3", "4", "5"):
            await _opened(stores, tenant, name)
            past = {"$set": {"due_at": datetime.fromtimestamp(1_000 + int(name), UTC), **broken.get(name, {})}}
            await database.run(collection.update_one({"_id": f"{tenant}-{name}"}, past))
        with capture_logs() as logs:
            found = [[hold.id for hold in await stores.holds.due(limit=2)] for _ in range(2)]
        assert found == [[], [f"{tenant}-3"]]
        assert [(line["event"], line["collection"], line["id"]) for line in logs] == [
            ("store.unreadable", "holds", f"{tenant}-{name}") for name in ("1", "2", "4")
        ]
        assert await _due(stores, tenant) == ["3", "5"]
        await database.run(collection.update_many({}, [{"$set": {"due_at": {"$subtract": ["$due_at", 61_000]}}}]))
        with capture_logs() as logs:
            assert await _due(stores, tenant) == ["3", "5"]
        assert len(logs) == 3


async def test_many_openings_at_once_are_one(stores: Stores, tenant: str) -> None:
    opened = await asyncio.gather(*(_opened(stores, tenant, expires_after_s=n + 1) for n in range(50)))
    assert {hold.expires_at_s for hold in opened} == {(await _kept(stores, tenant)).expires_at_s}


async def test_a_partial_answer_leaves_the_hold_open_and_the_last_call_decides_it(stores: Stores, tenant: str) -> None:
    opened = await _opened(stores, tenant)
    edited = Verdict(approved=True, arguments='{"$x":1}', sha256="ff")
    part = _won(await stores.holds.decide(tenant, opened.id, {"b": edited}, texts=["$first", "second"]))
    assert (part.status, part.version, part.applied, part.texts) == ("open", 2, 1, ("$first", "second"))
    assert part.calls[0] == opened.calls[0]
    verdict = part.calls[1].verdict
    assert verdict is not None
    assert verdict.at_s == pytest.approx(opened.created_at_s, abs=60)
    assert replace(verdict, at_s=0.0) == edited
    whole = _won(await stores.holds.decide(tenant, opened.id, {"a": NO}, texts=["third"]))
    assert (whole.status, whole.version, whole.texts) == ("decided", 3, ("$first", "second", "third"))
    assert [call.verdict.approved for call in whole.calls if call.verdict is not None] == [False, True]
    assert whole.calls[1] == part.calls[1]
    assert await _kept(stores, tenant) == whole


async def test_nothing_is_decided_twice_or_without_being_held(stores: Stores, tenant: str) -> None:
    opened = await _opened(stores, tenant)
    decide = stores.holds.decide
    part = _won(await decide(tenant, opened.id, {"a": YES}))
    for verdicts in ({"a": NO}, {"a": NO, "b": NO}, {"b": NO, "c": NO}, {"c": YES}, {}):
        assert await decide(tenant, opened.id, verdicts, texts=["lost"]) == Decided(won=False, hold=part)
    assert await decide(tenant, f"{tenant}-none", {"a": YES}) == Decided(won=False, hold=None)
    whole = _won(await decide(tenant, opened.id, {"b": YES}))
    assert await decide(tenant, opened.id, {"b": NO}) == Decided(won=False, hold=whole)


@pytest.mark.parametrize("calls", [("a",), ("a", "b")], ids=["partial", "whole"])
async def test_of_fifty_decisions_at_once_one_wins(stores: Stores, tenant: str, calls: tuple[str, ...]) -> None:
    opened = await _opened(stores, tenant)
    answers = await asyncio.gather(
        *(
            stores.holds.decide(
                tenant,
                opened.id,
                {call: Verdict(approved=n % 2 == 0, by=f"{n}") for call in calls},
                texts=[f"{n}"],
            )
            for n in range(50)
        ),
    )
    (winner,) = [n for n, answer in enumerate(answers) if answer.won]
    kept = await _kept(stores, tenant)
    assert (kept.version, kept.texts) == (2, (f"{winner}",))
    assert {call.verdict.by for call in kept.calls if call.verdict is not None} == {f"{winner}"}
    assert all(answer.hold == kept for answer in answers)


async def test_decisions_of_different_calls_at_once_all_win(stores: Stores, tenant: str) -> None:
    names = [f"call-{n}" for n in range(20)]
    opened = await stores.holds.open(tenant, _hold(tenant, calls=tuple(names)), expires_after_s=60)
    answers = await asyncio.gather(*(stores.holds.decide(tenant, opened.id, {name: YES}) for name in names))
    assert [answer.won for answer in answers] == [True] * 20
    assert sorted(answer.hold.version for answer in answers if answer.hold is not None) == list(range(2, 22))
    assert (await _kept(stores, tenant)).status == "decided"


async def test_a_hold_that_has_run_out_is_not_decided_but_expires_once(backend: Backend, tenant: str) -> None:
    holds = backend.stores.holds
    opened = await _opened(backend.stores, tenant)
    assert await holds.expire(tenant, opened.id) == opened
    await backend.age(601)
    assert (await holds.decide(tenant, opened.id, {"a": YES})).won is False
    expired = await holds.expire(tenant, opened.id)
    assert expired is not None
    assert (expired.status, expired.version, expired.applied) == ("expired", 2, 1)
    assert await holds.expire(tenant, opened.id) == expired
    assert await holds.cancel(tenant, opened.id, "late") == expired
    assert await holds.decide(tenant, opened.id, {"a": YES}) == Decided(won=False, hold=expired)
    assert await holds.expire(tenant, f"{tenant}-none") is None


async def test_what_was_decided_before_it_ran_out_stays_decided_in_part(backend: Backend, tenant: str) -> None:
    holds = backend.stores.holds
    opened = await _opened(backend.stores, tenant)
    await holds.decide(tenant, opened.id, {"a": YES})
    await backend.age(601)
    expired = await holds.expire(tenant, opened.id)
    assert expired is not None
    assert (expired.status, expired.version) == ("expired", 3)
    assert [call.verdict is not None for call in expired.calls] == [True, False]


async def test_a_hold_is_cancelled_while_it_is_open_or_its_decision_is_not_applied(stores: Stores, tenant: str) -> None:
    for name in ("open", "decided", "applied"):
        await _opened(stores, tenant, name)
        if name != "open":
            await stores.holds.decide(tenant, f"{tenant}-{name}", {"a": YES, "b": NO})
    await stores.holds.applied(tenant, f"{tenant}-applied", version=2)
    for name, version in (("open", 2), ("decided", 3)):
        cancelled = await stores.holds.cancel(tenant, f"{tenant}-{name}", "$why")
        assert cancelled is not None
        assert (cancelled.status, cancelled.reason, cancelled.version) == ("cancelled", "$why", version)
        assert await stores.holds.cancel(tenant, f"{tenant}-{name}", "again") == cancelled
        assert (await stores.holds.decide(tenant, f"{tenant}-{name}", {"a": YES})).won is False
    kept = await stores.holds.cancel(tenant, f"{tenant}-applied", "late")
    assert kept is not None
    assert (kept.status, kept.version) == ("decided", 2)
    assert await stores.holds.cancel(tenant, f"{tenant}-none", "x") is None


async def test_what_is_decided_can_be_kept_from_being_cancelled(stores: Stores, tenant: str) -> None:
    decided, opened = await _opened(stores, tenant, "decided"), await _opened(stores, tenant, "open")
    await stores.holds.decide(tenant, decided.id, {call.id: YES for call in decided.calls})
    kept = await stores.holds.cancel(tenant, decided.id, "x", only_open=True)
    ended = await stores.holds.cancel(tenant, opened.id, "x", only_open=True)
    assert [each and each.status for each in (kept, ended)] == ["decided", "cancelled"]


async def test_of_deciding_and_cancelling_at_once_the_order_decides(stores: Stores, tenant: str) -> None:
    for n in range(20):
        opened = await _opened(stores, tenant, f"{n}")
        answer, cancelled = await asyncio.gather(
            stores.holds.decide(tenant, opened.id, {"a": YES, "b": YES}),
            stores.holds.cancel(tenant, opened.id, "x"),
        )
        assert cancelled is not None
        assert (cancelled.status, cancelled.version) == ("cancelled", 3 if answer.won else 2)
        assert await _kept(stores, tenant, f"{n}") == cancelled


async def test_of_expiring_cancelling_and_deciding_what_has_run_out_nothing_is_decided(
    backend: Backend, tenant: str
) -> None:
    holds = backend.stores.holds
    names = [f"{tenant}-{n}" for n in range(20)]
    for n in range(20):
        await _opened(backend.stores, tenant, f"{n}")
    await backend.age(601)
    for name in names:
        answer, *_ = await asyncio.gather(
            holds.decide(tenant, name, {"a": YES, "b": YES}),
            holds.expire(tenant, name),
            holds.cancel(tenant, name, "x"),
        )
        assert answer.won is False
        kept = await holds.get(tenant, name)
        assert kept is not None
        assert kept.status in ("expired", "cancelled")
        assert kept.version == 2


async def test_an_open_hold_is_due_only_when_it_has_run_out(backend: Backend, tenant: str) -> None:
    await _opened(backend.stores, tenant, "late", expires_after_s=60)
    await _opened(backend.stores, tenant, "early", expires_after_s=30)
    await _opened(backend.stores, tenant, "never", expires_after_s=3600)
    assert await _due(backend.stores, tenant) == []
    await backend.age(61)
    assert await _due(backend.stores, tenant) == ["early", "late"]
    assert len(await backend.stores.holds.due(limit=1)) == 1
    await backend.stores.holds.expire(tenant, f"{tenant}-early")
    await backend.stores.holds.applied(tenant, f"{tenant}-early", version=2)
    assert await _due(backend.stores, tenant) == ["late"]


@pytest.mark.parametrize("change", ["part", "whole", "cancel"])
async def test_a_change_is_due_after_five_seconds_until_it_is_applied(
    backend: Backend, tenant: str, change: str
) -> None:
    stores, holds = backend.stores, backend.stores.holds
    opened = await _opened(stores, tenant)
    if change == "cancel":
        await holds.cancel(tenant, opened.id, "x")
    else:
        await holds.decide(tenant, opened.id, {"a": YES} if change == "part" else {"a": YES, "b": YES})
    await backend.age(3)
    assert await _due(stores, tenant) == []
    await holds.applied(tenant, opened.id, version=1)
    await backend.age(3)
    assert await _due(stores, tenant) == ["h"]
    await holds.applied(tenant, opened.id, version=2)
    assert await _due(stores, tenant) == []
    await holds.applied(tenant, opened.id, version=1)
    kept = await _kept(stores, tenant)
    assert (kept.applied, kept.version) == (2, 2)
    await backend.age(3600)
    assert await _due(stores, tenant) == (["h"] if change == "part" else [])


async def test_an_open_hold_with_an_unapplied_answer_is_due_when_it_runs_out_at_the_latest(
    backend: Backend, tenant: str
) -> None:
    opened = await _opened(backend.stores, tenant, expires_after_s=2)
    await backend.stores.holds.decide(tenant, opened.id, {"a": YES})
    await backend.age(2.5)
    assert await _due(backend.stores, tenant) == ["h"]


async def test_applying_an_earlier_version_leaves_a_later_change_due(backend: Backend, tenant: str) -> None:
    holds = backend.stores.holds
    opened = await _opened(backend.stores, tenant)
    await holds.decide(tenant, opened.id, {"a": YES})
    await holds.decide(tenant, opened.id, {"b": YES})
    await holds.applied(tenant, opened.id, version=2)
    await backend.age(6)
    assert await _due(backend.stores, tenant) == ["h"]
    await holds.applied(tenant, f"{tenant}-none", version=2)


async def test_holds_are_paged_newest_first_by_status(backend: Backend, tenant: str) -> None:
    holds = backend.stores.holds
    for name in ("1", "2", "3", "4", "5"):
        await _opened(backend.stores, tenant, name)
        await backend.age(1)
    await holds.decide(tenant, f"{tenant}-2", {"a": YES, "b": YES})
    await holds.cancel(tenant, f"{tenant}-4", "x")

    async def page(status: HoldStatus | None, before: str | None, limit: int = 2) -> list[str]:
        last = None if before is None else f"{tenant}-{before}"
        found = await holds.page(tenant, status=status, before=last, limit=limit)
        return [hold.id.removeprefix(f"{tenant}-") for hold in found]

    assert [await page(None, before) for before in (None, "4", "2", "1")] == [["5", "4"], ["3", "2"], ["1"], []]
    assert [await page("open", before) for before in (None, "3", "1")] == [["5", "3"], ["1"], []]
    assert await page("open", "4", 10) == ["3", "1"]
    assert await page("decided", None) == ["2"]
    assert await page("expired", None) == []
    assert await page(None, "unknown") == []
    assert await page(None, None, 0) == []


async def test_open_holds_are_counted_over_all_tenants(backend: Backend, tenant: str, other: str) -> None:
    holds = backend.stores.holds
    before = await holds.count_open()
    for name in ("1", "2", "3"):
        await _opened(backend.stores, tenant, name)
    await _opened(backend.stores, other)
    await holds.decide(tenant, f"{tenant}-1", {"a": YES})
    await holds.decide(tenant, f"{tenant}-2", {"a": YES, "b": NO})
    assert await holds.count_open() == before + 3


async def test_the_oldest_open_hold_of_all_tenants_tells_how_long_it_has_waited(
    backend: Backend, tenant: str, other: str
) -> None:
    holds = backend.stores.holds
    await _opened(backend.stores, tenant)
    # Other tests' holds may be older.
    before_s = await holds.oldest_open_s()
    await backend.age(500)
    await _opened(backend.stores, other)
    assert await holds.oldest_open_s() - before_s == pytest.approx(500, abs=20)


@pytest.mark.requirement("store:tenant-in-every-call")
async def test_another_tenants_hold_is_as_if_it_did_not_exist(backend: Backend, tenant: str, other: str) -> None:
    holds = backend.stores.holds
    await _opened(backend.stores, tenant)
    await backend.age(601)
    before, name = await _kept(backend.stores, tenant), f"{tenant}-h"
    assert await holds.get(other, name) is None
    assert await holds.decide(other, name, {"a": YES}) == Decided(won=False, hold=None)
    assert await holds.expire(other, name) is None
    assert await holds.cancel(other, name, "x") is None
    await holds.applied(other, name, version=9)
    assert await holds.page(other, status=None, before=None, limit=5) == []
    assert await holds.page(other, status=None, before=name, limit=5) == []
    with pytest.raises(Conflict) as raised:
        await holds.open(other, replace(_hold(tenant), tenant=other), expires_after_s=60)
    assert raised.value.code is ErrorCode.DUPLICATE
    with pytest.raises(Bug):
        await holds.open(other, _hold(tenant), expires_after_s=60)
    assert await _kept(backend.stores, tenant) == before


@pytest.mark.parametrize("backend", ["motor", "pymongo"], indirect=True)
async def test_text_that_cannot_be_stored_is_the_callers_mistake(stores: Stores, tenant: str) -> None:
    opened = await _opened(stores, tenant)
    with pytest.raises(BadRequest):
        await stores.holds.decide(tenant, opened.id, {"a": Verdict(approved=False, reason="\ud800")})
    with pytest.raises(BadRequest):
        await stores.holds.open(tenant, replace(_hold(tenant, "x"), model="\ud800"), expires_after_s=1)
    with pytest.raises(BadRequest):
        await stores.holds.open(tenant, replace(_hold(tenant, "x"), texts=("x" * 17 * 1024 * 1024,)), expires_after_s=1)
    assert await _kept(stores, tenant) == opened
