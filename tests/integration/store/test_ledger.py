"""The tool ledger, on the twin and on both drivers."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from msgspec.structs import replace

from integration.store.backends import Backend
from kitemesh_contracts.content import CallResult
from kitemesh_contracts.errors import BadRequest, Bug, Conflict, ErrorCode, ErrorInfo, NotFound
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.ledger import GIVEN_UP, LedgerRow
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_mongo import open_stores

DONE = CallResult(call="c", text="$done")
FAILED = CallResult(call="c", blob="b1", error=ErrorInfo(code=ErrorCode.TOOL_FAILED, message="$no", retry_after_s=1.5))


def _row(tenant: str, by: str = "me", *, name: str = "c", sha256: str = "00") -> LedgerRow:
    return LedgerRow(
        id=f"{tenant}-{name}",
        tenant=tenant,
        turn=f"{tenant}-turn",
        tool="$tool",
        effect="once",
        state="dispatched",
        by=by,
        args_sha256=sha256,
    )


async def _kept(stores: Stores, tenant: str, name: str = "c") -> LedgerRow:
    kept = await stores.ledger.get(tenant, f"{tenant}-{name}")
    assert kept is not None
    return kept


async def test_a_dispatch_is_stored_with_its_time(stores: Stores, tenant: str) -> None:
    row = _row(tenant)
    assert await stores.ledger.dispatch(tenant, row) == row
    kept = await _kept(stores, tenant)
    assert kept.dispatched_at_s > 1_700_000_000
    assert replace(kept, dispatched_at_s=0.0) == row


async def test_a_second_dispatch_learns_whose_the_call_is(stores: Stores, tenant: str) -> None:
    await stores.ledger.dispatch(tenant, _row(tenant))
    kept = await _kept(stores, tenant)
    assert await stores.ledger.dispatch(tenant, _row(tenant, "you")) == kept
    assert await stores.ledger.dispatch(tenant, _row(tenant)) == kept


async def test_other_arguments_are_refused_and_change_nothing(stores: Stores, tenant: str) -> None:
    await stores.ledger.dispatch(tenant, _row(tenant))
    kept = await _kept(stores, tenant)
    for by in ("me", "you"):
        with pytest.raises(Conflict) as raised:
            await stores.ledger.dispatch(tenant, _row(tenant, by, sha256="ff"))
        assert raised.value.code is ErrorCode.DUPLICATE
    assert await _kept(stores, tenant) == kept


async def test_of_fifty_dispatches_at_once_one_owns_the_call(stores: Stores, tenant: str) -> None:
    rows = await asyncio.gather(*(stores.ledger.dispatch(tenant, _row(tenant, f"{n}")) for n in range(50)))
    assert len({row.by for row in rows}) == 1
    assert (await _kept(stores, tenant)).by == rows[0].by


async def test_of_dispatches_by_many_processes_at_once_one_owns_each_call(database: Database, tenant: str) -> None:
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(open_stores(database)) for _ in range(5)]
        owned = await asyncio.gather(
            *(
                stores.ledger.dispatch(tenant, _row(tenant, f"{process}", name=f"{n}"))
                for n in range(40)
                for process, stores in enumerate(processes)
            ),
        )
        for n in range(40):
            rows = owned[n * 5 : n * 5 + 5]
            assert len({row.by for row in rows}) == 1
            assert [row.by == f"{process}" for process, row in enumerate(rows)].count(True) == 1


@pytest.mark.requirement("store:groups-writes")
async def test_two_hundred_calls_at_once_are_all_their_dispatchers_own(stores: Stores, tenant: str) -> None:
    await stores.ledger.dispatch(tenant, _row(tenant, "first", name="7"))
    rows = await asyncio.gather(*(stores.ledger.dispatch(tenant, _row(tenant, name=f"{n}")) for n in range(200)))
    assert [row.by for row in rows] == ["first" if n == 7 else "me" for n in range(200)]
    assert [(await _kept(stores, tenant, f"{n}")).by for n in (6, 7, 8)] == ["me", "first", "me"]


async def test_a_cancelled_call_is_never_dispatched(stores: Stores, tenant: str) -> None:
    cancelled = replace(_row(tenant, "canceller"), state="cancelled")
    assert await stores.ledger.dispatch(tenant, cancelled) == cancelled
    kept = await _kept(stores, tenant)
    assert (kept.state, kept.ended_at_s) == ("cancelled", kept.dispatched_at_s)
    assert await stores.ledger.dispatch(tenant, _row(tenant)) == kept
    assert await stores.ledger.dispatch(tenant, _row(tenant, sha256="ff")) == kept
    assert await stores.ledger.finish(tenant, kept.id, "canceller", DONE) == kept
    assert await stores.ledger.give_up(tenant, kept) == kept
    assert await stores.ledger.take_over(tenant, kept, "me") == kept


async def test_a_cancel_does_not_win_against_a_dispatch_that_came_first(stores: Stores, tenant: str) -> None:
    await stores.ledger.dispatch(tenant, _row(tenant))
    kept = await _kept(stores, tenant)
    late = replace(_row(tenant, "canceller", sha256=""), state="cancelled")
    assert await stores.ledger.dispatch(tenant, late) == kept


async def test_of_dispatching_and_cancelling_at_once_one_wins(stores: Stores, tenant: str) -> None:
    for n in range(20):
        dispatched, cancelled = await asyncio.gather(
            stores.ledger.dispatch(tenant, _row(tenant, name=f"{n}")),
            stores.ledger.dispatch(tenant, replace(_row(tenant, "canceller", name=f"{n}"), state="cancelled")),
        )
        kept = await _kept(stores, tenant, f"{n}")
        assert {(row.by, row.state) for row in (dispatched, cancelled)} == {(kept.by, kept.state)}


@pytest.mark.parametrize("result", [DONE, FAILED], ids=["done", "failed"])
async def test_finishing_stores_the_result_once(stores: Stores, tenant: str, result: CallResult) -> None:
    await stores.ledger.dispatch(tenant, _row(tenant))
    finished = await stores.ledger.finish(tenant, f"{tenant}-c", "me", result)
    assert (finished.state, finished.result, finished.late) == ("finished", result, False)
    assert finished.ended_at_s is not None
    assert finished.ended_at_s >= finished.dispatched_at_s
    again = CallResult(call="c", text="again")
    assert await stores.ledger.finish(tenant, f"{tenant}-c", "me", again) == finished
    assert await _kept(stores, tenant) == finished


async def test_only_who_dispatched_a_call_finishes_it(stores: Stores, tenant: str) -> None:
    await stores.ledger.dispatch(tenant, _row(tenant))
    kept = await _kept(stores, tenant)
    assert await stores.ledger.finish(tenant, kept.id, "you", DONE) == kept
    with pytest.raises(NotFound) as raised:
        await stores.ledger.finish(tenant, f"{tenant}-none", "me", DONE)
    assert raised.value.code is ErrorCode.EXECUTION_UNKNOWN


async def test_a_result_after_giving_up_is_kept_as_late(stores: Stores, tenant: str) -> None:
    await stores.ledger.dispatch(tenant, _row(tenant))
    unknown = await stores.ledger.give_up(tenant, await _kept(stores, tenant))
    assert (unknown.state, unknown.result, unknown.late) == ("unknown", None, False)
    assert unknown.ended_at_s is not None
    assert await stores.ledger.finish(tenant, unknown.id, "you", FAILED) == unknown
    late = await stores.ledger.finish(tenant, unknown.id, "me", DONE)
    assert late == replace(unknown, result=DONE, late=True)
    assert await stores.ledger.finish(tenant, unknown.id, "me", FAILED) == late
    assert await stores.ledger.give_up(tenant, unknown) == late
    assert await stores.ledger.take_over(tenant, unknown, "you") == late


async def test_a_call_is_taken_over_only_as_it_was_seen(stores: Stores, tenant: str) -> None:
    await stores.ledger.dispatch(tenant, _row(tenant))
    seen = await _kept(stores, tenant)
    taken = await stores.ledger.take_over(tenant, seen, "you")
    assert taken == replace(seen, by="you")
    assert await stores.ledger.take_over(tenant, seen, "third") == taken
    assert await stores.ledger.give_up(tenant, seen) == taken
    assert await stores.ledger.finish(tenant, seen.id, "me", FAILED) == taken
    assert (await stores.ledger.finish(tenant, seen.id, "you", DONE)).state == "finished"


async def test_of_fifty_who_take_over_at_once_one_gets_it(stores: Stores, tenant: str) -> None:
    await stores.ledger.dispatch(tenant, _row(tenant))
    seen = await _kept(stores, tenant)
    rows = await asyncio.gather(*(stores.ledger.take_over(tenant, seen, f"{n}") for n in range(50)))
    assert len({row.by for row in rows}) == 1
    assert [row.by == f"{n}" for n, row in enumerate(rows)].count(True) == 1


async def test_of_finishing_and_giving_up_at_once_no_result_is_lost(stores: Stores, tenant: str) -> None:
    for n in range(20):
        await stores.ledger.dispatch(tenant, _row(tenant, name=f"{n}"))
        seen = await _kept(stores, tenant, f"{n}")
        finished, given_up = await asyncio.gather(
            stores.ledger.finish(tenant, seen.id, "me", DONE),
            stores.ledger.give_up(tenant, seen),
        )
        kept = await _kept(stores, tenant, f"{n}")
        assert kept == finished
        assert (kept.result, kept.late) == (DONE, kept.state == "unknown")
        assert given_up.state == kept.state


async def test_calls_of_unknown_outcome_are_listed_newest_first(backend: Backend, tenant: str, other: str) -> None:
    ledger = backend.stores.ledger
    for name in ("1", "2", "3", "4"):
        await ledger.dispatch(tenant, _row(tenant, name=name))
        await backend.age(1)
    await ledger.dispatch(other, _row(other))
    await ledger.give_up(other, await _kept(backend.stores, other))
    for name in ("1", "4", "3"):
        await ledger.give_up(tenant, await _kept(backend.stores, tenant, name))

    async def listed(limit: int) -> list[str]:
        return [row.id.removeprefix(f"{tenant}-") for row in await ledger.unknown(tenant, limit=limit)]

    assert await listed(10) == ["4", "3", "1"]
    assert await listed(2) == ["4", "3"]
    await ledger.finish(tenant, f"{tenant}-4", "me", DONE)
    assert await listed(1) == ["4"]


@pytest.mark.requirement("store:tenant-in-every-call")
async def test_another_tenants_call_is_as_if_it_did_not_exist(stores: Stores, tenant: str, other: str) -> None:
    ledger, row = stores.ledger, _row(tenant)
    await ledger.dispatch(tenant, row)
    kept = await _kept(stores, tenant)
    assert await ledger.get(other, row.id) is None
    for wrong in (
        ledger.finish(other, row.id, "me", DONE),
        ledger.take_over(other, kept, "you"),
        ledger.give_up(other, kept),
    ):
        with pytest.raises(NotFound):
            await wrong
    for state in ("dispatched", "cancelled"):
        with pytest.raises(Conflict) as raised:
            await ledger.dispatch(other, replace(row, tenant=other, state=state))
        assert raised.value.code is ErrorCode.DUPLICATE
    with pytest.raises(Bug):
        await ledger.dispatch(other, row)
    assert await ledger.unknown(other) == []
    assert await _kept(stores, tenant) == kept


@pytest.mark.parametrize("backend", ["motor", "pymongo"], indirect=True)
async def test_a_call_that_cannot_be_stored_fails_alone(stores: Stores, tenant: str) -> None:
    rows = [_row(tenant, name=f"{n}") for n in range(5)]
    rows[2] = replace(rows[2], tool="\ud800")
    outcomes = await asyncio.gather(*(stores.ledger.dispatch(tenant, row) for row in rows), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [LedgerRow, LedgerRow, BadRequest, LedgerRow, LedgerRow]
    with pytest.raises(BadRequest):
        await stores.ledger.finish(tenant, rows[0].id, "me", CallResult(call="c", text="\ud800"))
    assert (await _kept(stores, tenant, "0")).state == "dispatched"


async def test_only_a_call_that_was_stopped_as_its_turn_was_given_up_may_begin_again(
    stores: Stores, tenant: str
) -> None:
    stopped = replace(_row(tenant, GIVEN_UP), state="cancelled", args_sha256="")
    asked = replace(_row(tenant, "somebody", name="asked"), state="cancelled")
    begun = _row(tenant, GIVEN_UP, name="begun")
    for row in (stopped, asked, begun):
        await stores.ledger.dispatch(tenant, row)
    for row in (stopped, asked, begun):
        await stores.ledger.reopen(f"{tenant}-other", row.id)
    assert (await _kept(stores, tenant)).state == "cancelled"
    for row in (stopped, asked, begun):
        await stores.ledger.reopen(tenant, row.id)
        await stores.ledger.reopen(tenant, row.id)
    assert await stores.ledger.get(tenant, stopped.id) is None
    assert (await _kept(stores, tenant, "asked")).state == "cancelled"
    assert (await _kept(stores, tenant, "begun")).state == "dispatched"
    mine = _row(tenant)
    assert await stores.ledger.dispatch(tenant, mine) == mine
