"""Live turns, on the twin and on both drivers."""

import asyncio
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from integration.store.backends import Backend
from kitemesh_contracts.content import AssistantMessage, CallResult, Step, ToolCall, Usage
from kitemesh_contracts.errors import BadRequest, Bug, Conflict, ErrorCode, ErrorInfo
from kitemesh_runtime.claims import Claim
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.live_turns import Job, LiveStatus, LiveTurn
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_mongo import open_stores
from kitemesh_runtime.turns import TurnRecord

MODEL = Job(kind="model", step=0, pool="default")


def _turn(tenant: str, name: str = "1", *, status: LiveStatus = "running", state: bytes = b"{}") -> LiveTurn:
    return LiveTurn(
        id=f"{tenant}-{name}",
        tenant=tenant,
        version=1,
        status=status,
        mode="durable",
        model="scripted",
        state=state,
        jobs=(MODEL,),
    )


def _record(tenant: str, name: str = "1") -> TurnRecord:
    return TurnRecord(
        id=f"{tenant}-{name}",
        tenant=tenant,
        status="completed",
        mode="durable",
        model="scripted",
        answer=AssistantMessage(text="Hi"),
    )


async def _live(stores: Stores, tenant: str, name: str = "1") -> LiveTurn:
    found = await stores.live_turns.get(tenant, f"{tenant}-{name}")
    assert isinstance(found, LiveTurn)
    return found


async def _due(stores: Stores, tenant: str, idle_s: float) -> list[str]:
    """Return whose turn it is, of this test's: what is due is due over all tenants."""
    found = await stores.live_turns.due(idle_s=idle_s, limit=10_000)
    return [turn.id.removeprefix(f"{tenant}-") for turn in found if turn.tenant == tenant]


async def _stale(call: Awaitable[None]) -> bool:
    try:
        await call
    except Conflict as exc:
        if exc.code is not ErrorCode.STALE:
            raise
        return True
    return False


async def test_a_whole_turn_comes_back_as_it_was_stored(stores: Stores, tenant: str, conversation: str) -> None:
    turn = LiveTurn(
        id=f"{tenant}-whole",
        tenant=tenant,
        version=1,
        status="held",
        mode="classic",
        model="group:x",
        state=bytes(range(256)),
        jobs=(
            Job(kind="model", step=2, attempt=3, pool="default"),
            Job(kind="tool", step=1, index=4, pool="slow", calls=("a", "$b")),
        ),
        conversation=conversation,
        ordinal=3,
        key="abcdefgh",
        agent="$agent",
        gateway="g1",
        request="req-1",
        hold="h1",
        cancelled="$$NOW",
        steps=(
            Step(
                step=0,
                text="Grüße 🙂 \0 $where",
                calls=(ToolCall(id="a", name="$add", arguments='{"$a": 1}'),),
                results=(CallResult(call="a", text="$$ROOT"),),
            ),
        ),
        usage=Usage(input_tokens=2**40, output_tokens=2),
        accepted_at_ms=1_750_000_000_123,
        look_at_s=1_750_000_000.125,
        dialect="completions",
        include_usage=True,
    )
    assert await stores.live_turns.insert(tenant, turn) is True
    kept = await stores.live_turns.get(tenant, turn.id)
    assert isinstance(kept, LiveTurn)
    assert kept.updated_at_s > 1_700_000_000
    assert replace(kept, updated_at_s=0.0) == turn


async def test_an_id_is_inserted_once_live_or_ended(stores: Stores, tenant: str) -> None:
    assert await stores.live_turns.insert(tenant, _turn(tenant)) is True
    assert await stores.live_turns.insert(tenant, _turn(tenant, state=b"other")) is False
    assert (await _live(stores, tenant)).state == b"{}"
    await stores.live_turns.finish(tenant, _record(tenant), version=1)
    assert await stores.live_turns.insert(tenant, _turn(tenant)) is False
    assert await stores.live_turns.get(tenant, f"{tenant}-1") == _record(tenant)
    with pytest.raises(Bug):
        await stores.live_turns.insert(tenant, replace(_turn(tenant, "2"), version=2))


async def test_of_fifty_inserts_of_an_id_at_once_one_wins(stores: Stores, tenant: str) -> None:
    turns = [_turn(tenant, state=b"%d" % n) for n in range(50)]
    won = await asyncio.gather(*(stores.live_turns.insert(tenant, turn) for turn in turns))
    assert won.count(True) == 1
    assert (await _live(stores, tenant)).state == b"%d" % won.index(True)


async def test_a_save_replaces_the_version_before_it(stores: Stores, tenant: str) -> None:
    await stores.live_turns.insert(tenant, _turn(tenant))
    seen = await _live(stores, tenant)
    saved = replace(seen, version=2, state=b"2", jobs=(), cancelled=None, hold="h", status="held")
    await stores.live_turns.save(tenant, saved)
    assert replace(await _live(stores, tenant), updated_at_s=0.0) == replace(saved, updated_at_s=0.0)
    await stores.live_turns.save(tenant, replace(saved, version=3, hold=None, status="running"))
    assert (await _live(stores, tenant)).hold is None


async def test_a_save_from_another_version_is_refused(stores: Stores, tenant: str) -> None:
    live_turns, turn = stores.live_turns, _turn(tenant)
    await live_turns.insert(tenant, turn)
    await live_turns.save(tenant, replace(turn, version=2))
    before = await _live(stores, tenant)
    for version in (1, 2, 4):
        assert await _stale(live_turns.save(tenant, replace(turn, version=version, state=b"no")))
    assert await _stale(live_turns.finish(tenant, _record(tenant), version=1))
    assert await _live(stores, tenant) == before


async def test_what_is_not_there_is_neither_saved_nor_finished(stores: Stores, tenant: str) -> None:
    assert await _stale(stores.live_turns.save(tenant, replace(_turn(tenant), version=2)))
    assert await _stale(stores.live_turns.save(tenant, _turn(tenant)))
    assert await _stale(stores.live_turns.finish(tenant, _record(tenant), version=1))
    assert await stores.live_turns.get(tenant, f"{tenant}-1") is None
    assert await stores.live_turns.insert(tenant, _turn(tenant)) is True


async def test_an_ended_turn_stays_as_it_ended(backend: Backend, tenant: str) -> None:
    live_turns, turn = backend.stores.live_turns, _turn(tenant)
    await live_turns.insert(tenant, turn)
    await live_turns.finish(tenant, _record(tenant), version=1)
    await backend.age(60)
    assert await _stale(live_turns.save(tenant, replace(turn, version=2)))
    assert await _stale(live_turns.finish(tenant, replace(_record(tenant), status="failed"), version=1))
    assert await live_turns.claim(tenant, turn.id, MODEL) is False
    assert await live_turns.touch(tenant, turn.id, version=1) is False
    assert await live_turns.cancel(tenant, turn.id, "late") == _record(tenant)
    assert await live_turns.get(tenant, turn.id) == _record(tenant)
    assert await backend.stores.turns.get(tenant, turn.id) == _record(tenant)
    assert await _due(backend.stores, tenant, 1) == []


async def test_a_live_turn_is_not_among_the_ended_ones(stores: Stores, tenant: str, conversation: str) -> None:
    turn = replace(_turn(tenant), conversation=conversation, ordinal=1)
    await stores.live_turns.insert(tenant, turn)
    assert await stores.turns.get(tenant, turn.id) is None
    assert await stores.turns.recent(tenant, conversation, limit=5) == []
    assert await _stale(stores.turns.put(tenant, _record(tenant)))
    assert replace(await _live(stores, tenant), updated_at_s=0.0) == turn
    record = replace(_record(tenant), conversation=conversation, ordinal=1)
    await stores.live_turns.finish(tenant, record, version=1)
    assert await stores.turns.get(tenant, turn.id) == record
    assert await stores.turns.recent(tenant, conversation, limit=5) == [record]
    await stores.turns.put(tenant, _record(tenant))
    assert await stores.turns.get(tenant, turn.id) == record


async def test_a_claim_whose_turn_is_live_is_not_taken_over(backend: Backend, tenant: str) -> None:
    claims, turn = backend.stores.claims, _turn(tenant)
    await claims.claim(tenant, "key", "k", turn.id)
    await backend.stores.live_turns.insert(tenant, turn)
    await backend.age(31)
    assert await claims.claim(tenant, "key", "k", "two") == Claim(won=False, turn=turn.id)


@pytest.mark.requirement("store:groups-writes")
async def test_in_one_group_only_the_stale_saves_are_refused(stores: Stores, tenant: str) -> None:
    names = [str(n) for n in range(60)]
    await asyncio.gather(*(stores.live_turns.insert(tenant, _turn(tenant, name)) for name in names))
    for name in names[::3]:
        await stores.live_turns.save(tenant, replace(_turn(tenant, name), version=2, state=b"first"))
    second = [replace(_turn(tenant, name), version=2, state=b"second") for name in names]
    stale = await asyncio.gather(*(_stale(stores.live_turns.save(tenant, turn)) for turn in second))
    assert stale == [n % 3 == 0 for n in range(60)]
    for n, name in enumerate(names):
        assert (await _live(stores, tenant, name)).state == (b"first" if n % 3 == 0 else b"second")


async def test_of_fifty_writes_of_one_version_at_once_one_wins(stores: Stores, tenant: str) -> None:
    live_turns, turn = stores.live_turns, _turn(tenant)
    await live_turns.insert(tenant, turn)
    saves = [live_turns.save(tenant, replace(turn, version=2, state=b"%d" % n)) for n in range(25)]
    ends = [live_turns.finish(tenant, replace(_record(tenant), served_by=f"{n}"), version=1) for n in range(25)]
    stale = await asyncio.gather(*(_stale(write) for pair in zip(saves, ends, strict=True) for write in pair))
    assert stale.count(False) == 1
    winner, is_end = divmod(stale.index(False), 2)
    kept = await live_turns.get(tenant, turn.id)
    assert (kept.served_by if isinstance(kept, TurnRecord) else kept and kept.state.decode()) == f"{winner}"
    assert isinstance(kept, TurnRecord) is bool(is_end)


async def test_of_inserts_saves_and_ends_by_many_processes_at_once_one_of_each_wins(
    database: Database, tenant: str
) -> None:
    names = [str(n) for n in range(30)]
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(open_stores(database)) for _ in range(4)]
        inserted = await asyncio.gather(
            *(stores.live_turns.insert(tenant, _turn(tenant, name)) for name in names for stores in processes)
        )
        stale = await asyncio.gather(
            *(
                _stale(stores.live_turns.save(tenant, replace(_turn(tenant, name), version=2)))
                for name in names
                for stores in processes
            ),
        )
        refused = await asyncio.gather(
            *(
                _stale(stores.live_turns.finish(tenant, _record(tenant, name), version=2))
                for name in names
                for stores in processes
            ),
        )
    for n in range(30):
        assert inserted[n * 4 : n * 4 + 4].count(True) == 1
        assert stale[n * 4 : n * 4 + 4].count(False) == 1
        assert refused[n * 4 : n * 4 + 4].count(False) == 1


async def test_a_claim_raises_one_jobs_attempt_once(stores: Stores, tenant: str) -> None:
    tool = Job(kind="tool", step=0, index=1, pool="slow", calls=("a",))
    turn = replace(_turn(tenant), jobs=(MODEL, tool, replace(tool, index=2, attempt=4)))
    await stores.live_turns.insert(tenant, turn)
    assert await stores.live_turns.claim(tenant, turn.id, tool) is True
    kept = await _live(stores, tenant)
    assert kept.version == 2
    assert kept.jobs == (MODEL, replace(tool, attempt=2), replace(tool, index=2, attempt=4))
    for missed in (tool, replace(tool, attempt=3), replace(tool, step=1), replace(tool, kind="model"), MODEL):
        expected = missed == MODEL
        assert await stores.live_turns.claim(tenant, turn.id, missed) is expected
    assert (await _live(stores, tenant)).version == 3
    assert await stores.live_turns.claim(tenant, f"{tenant}-none", MODEL) is False


async def test_a_claim_notes_which_delivery_of_which_message_made_it(stores: Stores, tenant: str) -> None:
    turn = _turn(tenant)
    await stores.live_turns.insert(tenant, turn)
    assert await stores.live_turns.claim(tenant, turn.id, replace(MODEL, message=2**40, deliveries=3)) is True
    assert (await _live(stores, tenant)).jobs == (replace(MODEL, attempt=2, message=2**40, deliveries=3),)


async def test_of_fifty_claims_at_once_one_wins(stores: Stores, tenant: str) -> None:
    await stores.live_turns.insert(tenant, _turn(tenant))
    won = await asyncio.gather(*(stores.live_turns.claim(tenant, f"{tenant}-1", MODEL) for _ in range(50)))
    assert won.count(True) == 1
    kept = await _live(stores, tenant)
    assert (kept.version, kept.jobs) == (2, (replace(MODEL, attempt=2),))


async def test_of_a_claim_and_a_save_of_the_same_version_one_wins(stores: Stores, tenant: str) -> None:
    for n in range(20):
        turn = _turn(tenant, str(n))
        await stores.live_turns.insert(tenant, turn)
        claimed, stale = await asyncio.gather(
            stores.live_turns.claim(tenant, turn.id, MODEL),
            _stale(stores.live_turns.save(tenant, replace(turn, version=2, jobs=()))),
        )
        assert claimed is stale
        kept = await _live(stores, tenant, str(n))
        assert (kept.version, kept.jobs) == (2, (replace(MODEL, attempt=2),) if claimed else ())


@pytest.mark.parametrize("status", ["queued", "running", "held"])
async def test_cancelling_marks_a_live_turn_once_and_its_first_reason_stays(
    stores: Stores, tenant: str, status: LiveStatus
) -> None:
    turn = _turn(tenant, status=status)
    await stores.live_turns.insert(tenant, turn)
    first = await stores.live_turns.cancel(tenant, turn.id, "$reason")
    assert isinstance(first, LiveTurn)
    assert (first.status, first.cancelled, first.version, first.jobs) == ("cancelling", "$reason", 2, (MODEL,))
    assert await stores.live_turns.cancel(tenant, turn.id, "again") == first
    assert await _stale(stores.live_turns.save(tenant, replace(turn, version=2)))
    assert await stores.live_turns.cancel(tenant, f"{tenant}-none", "x") is None


async def test_cancels_and_saves_at_once_leave_the_turn_being_cancelled(stores: Stores, tenant: str) -> None:
    turn = _turn(tenant)
    await stores.live_turns.insert(tenant, turn)
    (*answers, stale) = await asyncio.gather(
        *(stores.live_turns.cancel(tenant, turn.id, f"{n}") for n in range(20)),
        _stale(stores.live_turns.save(tenant, replace(turn, version=2, state=b"saved"))),
    )
    kept = await _live(stores, tenant)
    assert kept.status == "cancelling"
    assert (kept.version, kept.state) == ((2, b"{}") if stale else (3, b"saved"))
    assert {answer.cancelled for answer in answers if isinstance(answer, LiveTurn)} == {kept.cancelled}


def _accepted(tenant: str, name: str = "1") -> LiveTurn:
    first = Job(kind="model", step=1, attempt=1, pool="default")
    return replace(_turn(tenant, name, status="queued"), jobs=(first,), dialect="completions")


async def test_a_queued_turn_begins_without_a_new_version(backend: Backend, tenant: str) -> None:
    live_turns, stores = backend.stores.live_turns, backend.stores
    turn = _accepted(tenant)
    await live_turns.insert(tenant, turn)
    await backend.age(10)
    before_s = (await _live(stores, tenant)).updated_at_s
    assert await _due(stores, tenant, 5) == ["1"]
    await live_turns.begin(tenant, turn.id, ordinal=7)
    kept = await _live(stores, tenant)
    assert replace(kept, updated_at_s=0.0) == replace(turn, status="running", ordinal=7)
    assert kept.updated_at_s > before_s + 9
    assert await _due(stores, tenant, 5) == []
    await live_turns.begin(tenant, turn.id, ordinal=8)
    assert (await _live(stores, tenant)).ordinal == 7
    await live_turns.save(tenant, replace(kept, version=2))


async def test_nothing_but_a_queued_turn_begins(stores: Stores, tenant: str, other: str) -> None:
    live_turns = stores.live_turns
    others: tuple[LiveStatus, ...] = ("running", "held", "cancelling")
    for status in others:
        await live_turns.insert(tenant, _turn(tenant, status, status=status))
    await live_turns.insert(tenant, _accepted(tenant, "queued"))
    await live_turns.insert(tenant, _accepted(tenant, "ended"))
    await live_turns.finish(tenant, _record(tenant, "ended"), version=1)
    before = [await live_turns.get(tenant, f"{tenant}-{name}") for name in (*others, "queued", "ended")]
    for name in (*others, "ended", "none"):
        await live_turns.begin(tenant, f"{tenant}-{name}", ordinal=7)
    await live_turns.begin(other, f"{tenant}-queued", ordinal=7)
    assert [await live_turns.get(tenant, f"{tenant}-{name}") for name in (*others, "queued", "ended")] == before
    assert await live_turns.get(tenant, f"{tenant}-none") is None


@pytest.mark.requirement("store:groups-writes")
async def test_a_beginning_and_a_save_of_the_same_turn_travel_in_any_order(stores: Stores, tenant: str) -> None:
    live_turns = stores.live_turns
    turns = [_accepted(tenant, str(n)) for n in range(40)]
    await asyncio.gather(*(live_turns.insert(tenant, turn) for turn in turns))
    writes: list[Awaitable[None]] = []
    for n, turn in enumerate(turns):
        pair = (
            live_turns.begin(tenant, turn.id, ordinal=1),
            live_turns.save(tenant, replace(turn, version=2, status="running", ordinal=1, state=b"saved", jobs=())),
        )
        writes += pair if n % 2 else reversed(pair)
    await asyncio.gather(*writes)
    for n, turn in enumerate(turns):
        saved = replace(turn, version=2, status="running", ordinal=1, state=b"saved", jobs=())
        assert replace(await _live(stores, tenant, str(n)), updated_at_s=0.0) == saved


async def test_an_end_stays_whether_the_turn_began_before_or_after_it(stores: Stores, tenant: str) -> None:
    live_turns = stores.live_turns
    for n in range(20):
        turn = _accepted(tenant, str(n))
        await live_turns.insert(tenant, turn)
        begun, ended = (
            live_turns.begin(tenant, turn.id, ordinal=1),
            live_turns.finish(tenant, _record(tenant, str(n)), version=1),
        )
        await asyncio.gather(*((begun, ended) if n % 2 else (ended, begun)))
        assert await live_turns.get(tenant, turn.id) == _record(tenant, str(n))


async def test_a_turn_that_was_refused_is_discarded_for_good(backend: Backend, tenant: str, other: str) -> None:
    live_turns, turn = backend.stores.live_turns, _accepted(tenant)
    await live_turns.insert(tenant, turn)
    assert await live_turns.discard(other, turn.id) is True
    assert await live_turns.get(tenant, turn.id) is not None
    assert await live_turns.discard(tenant, turn.id) is True
    assert await live_turns.get(tenant, turn.id) is None
    await backend.age(60)
    assert await _due(backend.stores, tenant, 1) == []
    # What somebody who has seen it wants to do comes too late, and discarding again says so too.
    await live_turns.begin(tenant, turn.id, ordinal=1)
    assert await _stale(live_turns.save(tenant, replace(turn, version=2)))
    assert await _stale(live_turns.finish(tenant, _record(tenant), version=1))
    assert await live_turns.claim(tenant, turn.id, turn.jobs[0]) is False
    assert await live_turns.cancel(tenant, turn.id, "x") is None
    assert await live_turns.discard(tenant, turn.id) is True
    assert await live_turns.get(tenant, turn.id) is None


async def test_a_turn_that_somebody_took_up_is_not_discarded(stores: Stores, tenant: str) -> None:
    live_turns = stores.live_turns
    for name in ("begun", "claimed", "cancelled", "saved", "ended"):
        await live_turns.insert(tenant, _accepted(tenant, name))
    await live_turns.begin(tenant, f"{tenant}-begun", ordinal=1)
    assert await live_turns.claim(tenant, f"{tenant}-claimed", _accepted(tenant).jobs[0]) is True
    await live_turns.cancel(tenant, f"{tenant}-cancelled", "x")
    await live_turns.save(tenant, replace(_accepted(tenant, "saved"), version=2))
    await live_turns.finish(tenant, _record(tenant, "ended"), version=1)
    for name in ("begun", "claimed", "cancelled", "saved", "ended"):
        before = await live_turns.get(tenant, f"{tenant}-{name}")
        assert before is not None
        assert await live_turns.discard(tenant, f"{tenant}-{name}") is False
        assert await live_turns.get(tenant, f"{tenant}-{name}") == before


async def test_of_a_discard_and_what_takes_the_turn_up_at_once_one_wins(stores: Stores, tenant: str) -> None:
    live_turns = stores.live_turns
    for n in range(20):
        turn = _accepted(tenant, str(n))
        await live_turns.insert(tenant, turn)
        gone, claimed = await asyncio.gather(
            live_turns.discard(tenant, turn.id), live_turns.claim(tenant, turn.id, turn.jobs[0])
        )
        assert gone is not claimed
        assert (await live_turns.get(tenant, turn.id) is None) is gone


async def test_a_queued_turn_is_claimed_cancelled_and_due_as_it_was_accepted(backend: Backend, tenant: str) -> None:
    live_turns, stores = backend.stores.live_turns, backend.stores
    for name in ("claimed", "cancelled", "idle"):
        await live_turns.insert(tenant, _accepted(tenant, name))
    await backend.age(10)
    assert sorted(await _due(stores, tenant, 5)) == ["cancelled", "claimed", "idle"]
    [first] = _accepted(tenant).jobs
    assert await live_turns.claim(tenant, f"{tenant}-claimed", replace(first, message=9, deliveries=2)) is True
    claimed = await _live(stores, tenant, "claimed")
    assert (claimed.status, claimed.version) == ("queued", 2)
    assert claimed.jobs == (replace(first, attempt=2, message=9, deliveries=2),)
    cancelled = await live_turns.cancel(tenant, f"{tenant}-cancelled", "x")
    assert isinstance(cancelled, LiveTurn)
    assert (cancelled.status, cancelled.version, cancelled.jobs) == ("cancelling", 2, (first,))
    assert await _due(stores, tenant, 5) == ["idle"]
    await live_turns.begin(tenant, claimed.id, ordinal=1)
    begun = await _live(stores, tenant, "claimed")
    assert (begun.status, begun.version, begun.jobs) == ("running", 2, claimed.jobs)


async def _filled(stores: Stores, tenant: str, conversation: str) -> None:
    """Store seven turns, 1 to 7: 1, 4 and 7 completed, 2 and 5 running, 3 and 6 queued; even ones in a conversation."""
    for n in (3, 1, 7, 2, 6, 5, 4):
        status: LiveStatus = ("queued", "running", "running")[n % 3]  # type: ignore[assignment]  a literal of three
        within = conversation if n % 2 == 0 else None
        turn = replace(_turn(tenant, str(n), status=status), conversation=within)
        await stores.live_turns.insert(tenant, turn)
        if n % 3 == 1:
            await stores.live_turns.finish(tenant, replace(_record(tenant, str(n)), conversation=within), version=1)


async def test_turns_are_paged_newest_first(stores: Stores, tenant: str, other: str, conversation: str) -> None:
    await _filled(stores, tenant, conversation)
    await stores.live_turns.insert(other, replace(_turn(tenant, "9"), tenant=other, conversation=conversation))

    async def page(
        *,
        limit: int = 10,
        statuses: tuple[str, ...] = (),
        conversation: str | None = None,
        before: int | None = None,
    ) -> str:
        found = await stores.live_turns.page(
            tenant,
            statuses=statuses,
            conversation=conversation,
            before=None if before is None else f"{tenant}-{before}",
            limit=limit,
        )
        return "".join(turn.id.removeprefix(f"{tenant}-") for turn in found)

    assert await page() == "7654321"
    assert await page(limit=3) == "765"
    assert await page(limit=3, before=5) == "432"
    assert await page(before=1) == ""
    assert await page(limit=0) == ""
    assert await page(statuses=("queued",)) == "63"
    assert await page(statuses=("running", "completed"), limit=4) == "7542"
    assert await page(statuses=("running", "completed"), before=4) == "21"
    assert await page(statuses=("failed",)) == ""
    assert await page(conversation=conversation) == "642"
    assert await page(conversation=conversation, statuses=("queued", "completed"), before=6) == "4"
    kinds = [isinstance(turn, LiveTurn) for turn in await stores.live_turns.page(tenant, limit=10)]
    assert kinds == [False, True, True, False, True, True, False]
    assert await stores.live_turns.page(tenant, limit=1) == [_record(tenant, "7")]


async def test_turns_that_cannot_be_read_leave_no_page_short(database: Database, tenant: str) -> None:
    async with open_stores(database) as stores:
        for n in range(1, 8):
            await stores.live_turns.insert(tenant, _turn(tenant, str(n)))
        for n in (2, 5, 6, 7):
            broken = {"$set": {"version": "last"}}
            await database.run(database.collection("turns").update_one({"_id": f"{tenant}-{n}"}, broken))
        with capture_logs() as logs:
            found = [turn.id for turn in await stores.live_turns.page(tenant, limit=2)]
        assert found == [f"{tenant}-4", f"{tenant}-3"]
        assert [(line["event"], line["id"]) for line in logs] == [
            ("store.unreadable", f"{tenant}-{n}") for n in (7, 6, 5)
        ]
        assert [turn.id for turn in await stores.live_turns.page(tenant, before=found[-1], limit=2)] == [f"{tenant}-1"]


async def test_turns_left_alone_are_due_oldest_first_but_held_ones_are_not(backend: Backend, tenant: str) -> None:
    live_turns, stores = backend.stores.live_turns, backend.stores
    for name, status in (("queued", "queued"), ("running", "running"), ("held", "held"), ("cancelling", "cancelling")):
        await live_turns.insert(tenant, replace(_turn(tenant, name), status=status))
        await backend.age(10)
    assert await _due(stores, tenant, 15) == ["queued", "running"]
    assert await _due(stores, tenant, 5) == ["queued", "running", "cancelling"]
    assert await live_turns.touch(tenant, f"{tenant}-queued", version=1) is True
    assert await live_turns.touch(tenant, f"{tenant}-running", version=2) is False
    assert await live_turns.touch(tenant, f"{tenant}-held", version=1) is True
    await backend.age(3)
    assert await _due(stores, tenant, 5) == ["running", "cancelling"]
    assert await _due(stores, tenant, 1) == ["running", "cancelling", "queued"]
    assert len(await live_turns.due(idle_s=1, limit=2)) == 2
    touched = await _live(stores, tenant, "queued")
    assert touched.version == 1


async def test_every_write_puts_a_turn_off(backend: Backend, tenant: str) -> None:
    live_turns, stores = backend.stores.live_turns, backend.stores
    for name in ("saved", "claimed", "cancelled", "holds", "resumes"):
        await live_turns.insert(tenant, _turn(tenant, name))
    await live_turns.save(tenant, replace(_turn(tenant, "resumes"), version=2, status="held"))
    await backend.age(10)
    before_s = (await _live(stores, tenant, "saved")).updated_at_s
    await live_turns.save(tenant, replace(_turn(tenant, "saved"), version=2))
    await live_turns.save(tenant, replace(_turn(tenant, "holds"), version=2, status="held"))
    await live_turns.save(tenant, replace(_turn(tenant, "resumes"), version=3))
    await live_turns.claim(tenant, f"{tenant}-claimed", MODEL)
    await live_turns.cancel(tenant, f"{tenant}-cancelled", "x")
    assert await _due(stores, tenant, 5) == []
    assert (await _live(stores, tenant, "saved")).updated_at_s > before_s + 9
    await backend.age(10)
    assert sorted(await _due(stores, tenant, 5)) == ["cancelled", "claimed", "resumes", "saved"]


async def test_a_claim_or_a_touch_makes_no_held_turn_due(backend: Backend, tenant: str) -> None:
    live_turns = backend.stores.live_turns
    await live_turns.insert(tenant, _turn(tenant, status="held"))
    assert await live_turns.claim(tenant, f"{tenant}-1", MODEL) is True
    assert await live_turns.touch(tenant, f"{tenant}-1", version=2) is True
    await backend.age(60)
    assert await _due(backend.stores, tenant, 1) == []
    await live_turns.cancel(tenant, f"{tenant}-1", "x")
    await backend.age(60)
    assert await _due(backend.stores, tenant, 1) == ["1"]


async def _holds_until(stores: Stores, tenant: str, ahead_s: float) -> LiveTurn:
    """Hold a turn that is to be looked at so far ahead, by the store's own clock."""
    await stores.live_turns.insert(tenant, _turn(tenant))
    seen = await _live(stores, tenant)
    held = replace(seen, version=2, status="held", hold="h", look_at_s=seen.updated_at_s + ahead_s)
    await stores.live_turns.save(tenant, held)
    return held


async def test_a_held_turn_is_due_once_its_time_to_be_looked_at_has_passed(backend: Backend, tenant: str) -> None:
    stores, live_turns = backend.stores, backend.stores.live_turns
    held = await _holds_until(stores, tenant, 100)
    assert held.look_at_s is not None
    assert (await _live(stores, tenant)).look_at_s == pytest.approx(held.look_at_s, abs=0.001)
    await backend.age(90)
    assert await live_turns.touch(tenant, held.id, version=2) is True
    assert await live_turns.claim(tenant, held.id, MODEL) is True
    assert await _due(stores, tenant, 1) == []
    await backend.age(13)
    assert await _due(stores, tenant, 5) == []
    assert await _due(stores, tenant, 1) == ["1"]
    assert await live_turns.touch(tenant, held.id, version=3) is True
    assert await _due(stores, tenant, 1) == []
    await backend.age(2)
    assert await _due(stores, tenant, 1) == ["1"]


async def test_a_held_turn_saved_past_its_time_is_put_off_like_any(backend: Backend, tenant: str) -> None:
    stores = backend.stores
    held = await _holds_until(stores, tenant, 1)
    await backend.age(60)
    assert await _due(stores, tenant, 5) == ["1"]
    seen = await _live(stores, tenant)
    await stores.live_turns.save(tenant, replace(seen, version=3))
    assert await _due(stores, tenant, 5) == []
    await backend.age(6)
    assert await _due(stores, tenant, 5) == ["1"]
    await stores.live_turns.save(tenant, replace(seen, version=4, look_at_s=None))
    await backend.age(60)
    assert await _due(stores, tenant, 5) == []
    await stores.live_turns.finish(tenant, _record(tenant), version=4)
    assert await stores.turns.get(tenant, held.id) == _record(tenant)


async def test_a_turn_that_is_not_held_is_due_whenever_it_is_to_be_looked_at(backend: Backend, tenant: str) -> None:
    stores, live_turns = backend.stores, backend.stores.live_turns
    held = await _holds_until(stores, tenant, 3600)
    await live_turns.cancel(tenant, held.id, "x")
    await backend.age(6)
    assert await _due(stores, tenant, 5) == ["1"]
    seen = await _live(stores, tenant)
    await live_turns.save(tenant, replace(seen, version=4, status="running"))
    await backend.age(6)
    assert await _due(stores, tenant, 5) == ["1"]


async def test_turns_that_cannot_be_read_neither_stop_nor_fill_what_is_due(database: Database, tenant: str) -> None:
    turns = database.collection("turns")
    await database.run(turns.delete_many({}))
    broken = {"1": {"status": "sleeping"}, "2": {"updated_at": "yesterday"}, "4": {"state": None}}
    async with open_stores(database) as stores:
        for name in ("1", "2", "3", "4", "5"):
            await stores.live_turns.insert(tenant, _turn(tenant, name))
            past = {"$set": {"touched_at": datetime.fromtimestamp(1_000 + int(name), UTC), **broken.get(name, {})}}
            await database.run(turns.update_one({"_id": f"{tenant}-{name}"}, past))
        with capture_logs() as logs:
            found = [[turn.id for turn in await stores.live_turns.due(idle_s=1, limit=2)] for _ in range(2)]
        assert found == [[], [f"{tenant}-3"]]
        assert [(line["event"], line["collection"], line["id"]) for line in logs] == [
            ("store.unreadable", "turns", f"{tenant}-{name}") for name in ("1", "2", "4")
        ]
        assert await _due(stores, tenant, 1) == ["3", "5"]
        passed = [{"$set": {"touched_at": {"$subtract": ["$touched_at", 62_000]}}}]
        await database.run(turns.update_many({}, passed))
        with capture_logs() as logs:
            assert await _due(stores, tenant, 1) == ["3", "5"]
        assert len(logs) == 3


@pytest.mark.requirement("store:tenant-in-every-call")
async def test_another_tenants_turn_is_as_if_it_did_not_exist(stores: Stores, tenant: str, other: str) -> None:
    live_turns, turn = stores.live_turns, _turn(tenant)
    await live_turns.insert(tenant, turn)
    before = await _live(stores, tenant)
    foreign = replace(turn, tenant=other)
    assert await live_turns.get(other, turn.id) is None
    assert await live_turns.cancel(other, turn.id, "x") is None
    assert await live_turns.claim(other, turn.id, MODEL) is False
    assert await live_turns.touch(other, turn.id, version=1) is False
    assert await _stale(live_turns.save(other, replace(foreign, version=2)))
    assert await _stale(live_turns.finish(other, replace(_record(tenant), tenant=other), version=1))
    with pytest.raises(Conflict) as raised:
        await live_turns.insert(other, foreign)
    assert raised.value.code is ErrorCode.DUPLICATE
    for wrong in (live_turns.insert(other, turn), live_turns.save(other, turn)):
        with pytest.raises(Bug):
            await wrong
    with pytest.raises(Bug):
        await live_turns.finish(other, _record(tenant), version=1)
    assert await _live(stores, tenant) == before


async def test_a_turn_that_cannot_be_stored_fails_alone(database: Database, tenant: str) -> None:
    async with open_stores(database) as stores:
        good = [_turn(tenant, str(n)) for n in range(10)]
        await asyncio.gather(*(stores.live_turns.insert(tenant, turn) for turn in good))
        saves = [replace(turn, version=2, state=b"saved") for turn in good]
        saves[3] = replace(saves[3], model="\ud800")
        saves[5] = replace(saves[5], state=b"x" * 17 * 1024 * 1024)
        outcomes = await asyncio.gather(
            *(stores.live_turns.save(tenant, turn) for turn in saves), return_exceptions=True
        )
        codes = {n: outcome.code for n, outcome in enumerate(outcomes) if isinstance(outcome, BadRequest)}
        assert codes == {3: ErrorCode.REQUEST_INVALID, 5: ErrorCode.REQUEST_TOO_LARGE}
        assert [outcome for outcome in outcomes if outcome is not None] == [outcomes[3], outcomes[5]]
        states = [(await _live(stores, tenant, str(n))).state for n in range(10)]
        assert states == [b"{}" if n in (3, 5) else b"saved" for n in range(10)]


async def test_a_turn_just_below_the_bound_is_stored(database: Database, tenant: str) -> None:
    async with open_stores(database) as stores:
        turn = _turn(tenant, state=b"x" * (15 * 1024 * 1024 - 10_000))
        assert await stores.live_turns.insert(tenant, turn) is True
        await stores.live_turns.save(tenant, replace(turn, version=2))
        assert len((await _live(stores, tenant)).state) == len(turn.state)
        assert isinstance(await stores.live_turns.cancel(tenant, turn.id, "x"), LiveTurn)
        await stores.live_turns.finish(tenant, _record(tenant), version=3)


def _given_up(tenant: str, before: LiveTurn) -> TurnRecord:
    error = ErrorInfo(code=ErrorCode.TURN_EXHAUSTED, message="given up")
    return TurnRecord(
        id=before.id,
        tenant=tenant,
        status="failed",
        mode="durable",
        model="scripted",
        conversation=before.conversation,
        error=error,
    )


@pytest.mark.requirement("dead:requeue")
async def test_a_turn_that_was_given_up_is_live_again_once_as_it_was(stores: Stores, tenant: str) -> None:
    turn = replace(_turn(tenant, state=bytes(range(256))), steps=(Step(step=1, text="$Hi"),), spared=2)
    await stores.live_turns.insert(tenant, turn)
    await stores.live_turns.finish(tenant, _given_up(tenant, turn), version=1, before=turn)
    ended = await stores.live_turns.get(tenant, turn.id)
    assert isinstance(ended, TurnRecord)
    assert ended.status == "failed"
    (found,) = (await stores.live_turns.given_up([turn.id, f"{tenant}-never"])).values()
    assert (found.turn, found.before) == (ended, turn)
    (brief,) = (await stores.live_turns.given_up([turn.id], is_whole=False)).values()
    assert brief.before is not None
    assert (brief.turn.status, brief.before.jobs, brief.before.version) == ("failed", turn.jobs, 1)
    again = replace(turn, version=2)
    revivals = await asyncio.gather(*(_stale(stores.live_turns.revive(tenant, again)) for _ in range(10)))
    assert revivals.count(False) == 1
    live = await _live(stores, tenant)
    assert replace(live, updated_at_s=0.0) == again
    # It need not wait until it has been idle.
    assert await _due(stores, tenant, 60) == ["1"]
    for is_whole in (True, False):
        assert (await stores.live_turns.given_up([turn.id], is_whole=is_whole))[turn.id].before is None
    # Whoever still has the turn of before can do nothing to it.
    assert await _stale(stores.live_turns.save(tenant, replace(turn, version=2)))
    await stores.live_turns.save(tenant, replace(turn, version=3))


async def test_a_turn_that_ended_otherwise_or_elsewhere_or_was_erased_is_not_revived(
    stores: Stores, tenant: str, conversation: str
) -> None:
    plain, other, gone = (replace(_turn(tenant, name), conversation=conversation) for name in ("a", "b", "c"))
    for turn in (plain, other, gone):
        await stores.live_turns.insert(tenant, turn)
    await stores.live_turns.finish(tenant, _given_up(tenant, plain), version=1)
    await stores.live_turns.finish(tenant, _given_up(tenant, other), version=1, before=other)
    assert (await stores.live_turns.given_up([plain.id]))[plain.id].before is None
    assert await _stale(stores.live_turns.revive(tenant, replace(plain, version=2)))
    assert await _stale(stores.live_turns.revive(tenant, replace(other, version=3)))
    stranger = f"{tenant}-other"
    assert await _stale(stores.live_turns.revive(stranger, replace(other, version=2, tenant=stranger)))
    assert await _stale(stores.live_turns.revive(tenant, replace(gone, version=2)))
    await stores.turns.erase(tenant, conversation=conversation)
    assert await stores.live_turns.given_up([plain.id, other.id, gone.id]) == {}
    assert await _stale(stores.live_turns.revive(tenant, replace(other, version=2)))


async def test_a_turn_too_large_to_be_kept_with_its_end_ends_all_the_same(stores: Stores, tenant: str) -> None:
    turn = _turn(tenant, state=b"x" * (9 * 1024 * 1024))
    await stores.live_turns.insert(tenant, turn)
    long = replace(_given_up(tenant, turn), answer=AssistantMessage(text="y" * (9 * 1024 * 1024)))
    await stores.live_turns.finish(tenant, long, version=1, before=turn)
    found = await stores.live_turns.get(tenant, turn.id)
    assert isinstance(found, TurnRecord)
    assert found.status == "failed"
