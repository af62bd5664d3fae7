"""The numbered rows of agents' histories, on the twin and on both drivers."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from kitemesh_contracts.content import (
    AssistantMessage,
    CallResult,
    Step,
    SystemMessage,
    TextPart,
    ToolCall,
    UserMessage,
)
from kitemesh_contracts.errors import Conflict, ErrorCode, ErrorInfo
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.indexes_mongo import ensure_indexes
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.rows import BLOCK, Row, RowQuery
from kitemesh_runtime.rows_mongo import counting, numbered
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_mongo import open_stores
from kitemesh_runtime.turns import TurnRecord

AGENT = "clerk"
STEP = Step(
    step=1,
    text="Let me look.",
    calls=(ToolCall(id="a", name="f", arguments="{}"), ToolCall(id="b", name="g", arguments="{}")),
    results=(CallResult(call="b", text="second"), CallResult(call="a", text="first")),
)


def _live(tenant: str, row: int, *, conversation: str = "c", agent: str = AGENT) -> LiveTurn:
    return LiveTurn(
        id=f"{tenant}-{agent}-{row:06d}",
        tenant=tenant,
        version=1,
        status="running",
        mode="durable",
        model=f"agent:{agent}",
        agent=agent,
        state=b"{}",
        conversation=conversation,
        accepted_at_ms=1_790_000_000_500,
        row=row,
        details='{"source":"web"}',
        input=(SystemMessage(text="Context"), UserMessage(parts=(TextPart(text=f"question {row}"),))),
    )


def _ended(live: LiveTurn, text: str = "Hi", *, steps: tuple[Step, ...] = (), **fields: Any) -> TurnRecord:
    values: dict[str, Any] = {"status": "completed", "answer": AssistantMessage(text=text), **fields}
    return TurnRecord(
        id=live.id,
        tenant=live.tenant,
        mode="durable",
        model=live.model,
        agent=live.agent,
        conversation=live.conversation,
        input=live.input,
        row=live.row,
        details=live.details,
        accepted_at_ms=live.accepted_at_ms,
        ended_at_ms=1_790_000_007_250,
        steps=steps,
        **values,
    )


async def _say(
    stores: Stores, tenant: str, row: int, *, conversation: str = "c", agent: str = AGENT, **more: Any
) -> None:
    live = _live(tenant, row, conversation=conversation, agent=agent)
    assert await stores.live_turns.insert(tenant, live)
    await stores.live_turns.finish(tenant, _ended(live, **more), version=1)


async def _ids(stores: Stores, tenant: str, **query: Any) -> list[int]:
    return [row.id for row in (await stores.rows.page(tenant, AGENT, RowQuery(**query))).rows]


@pytest.mark.requirement("agents:ids-by-reservation")
async def test_blocks_do_not_overlap_and_grow_for_each_tenant_and_agent(
    stores: Stores, tenant: str, other: str
) -> None:
    firsts = await asyncio.gather(*(stores.rows.reserve(tenant, AGENT) for _ in range(20)))
    assert sorted(firsts) == [1 + n * BLOCK for n in range(20)]
    assert await stores.rows.reserve(tenant, AGENT) == 1 + 20 * BLOCK
    assert await stores.rows.reserve(tenant, "another") == 1
    assert await stores.rows.reserve(other, AGENT) == 1


async def test_a_turn_is_its_question_its_calls_their_results_and_its_answer(stores: Stores, tenant: str) -> None:
    await _say(stores, tenant, 1, text="Two things.", steps=(STEP,))
    page = await stores.rows.page(tenant, AGENT, RowQuery())
    assert not page.has_more
    shared = {"turn": f"{tenant}-{AGENT}-000001", "conversation": "c", "at_s": 1_790_000_000.0}
    assert list(page.rows) == [
        Row(id=1, role="user", text="question 1", details='{"source":"web"}', **shared),
        Row(id=2, role="assistant", calls=STEP.calls, **shared),
        Row(id=3, role="tool", result=STEP.results[1], **shared),
        Row(id=4, role="tool", result=STEP.results[0], **shared),
        Row(id=BLOCK, role="assistant", text="Let me look.\n\nTwo things.", **{**shared, "at_s": 1_790_000_007.25}),
    ]
    assert await stores.rows.count(tenant, AGENT) == 5


@pytest.mark.requirement("agents:user-row-first")
async def test_what_is_said_so_far_of_a_turn_that_runs_is_there_under_numbers_that_stay(
    stores: Stores, tenant: str
) -> None:
    live = _live(tenant, 1)
    await stores.live_turns.insert(tenant, live)
    assert await _ids(stores, tenant) == [1]
    assert await stores.rows.count(tenant, AGENT) == 1
    early = replace(STEP, results=STEP.results[:1])
    held = replace(live, version=2, status="held", hold="h", steps=(early,))
    await stores.live_turns.save(tenant, held)
    page = await stores.rows.page(tenant, AGENT, RowQuery())
    assert [(row.id, row.hold) for row in page.rows] == [(1, None), (2, "h"), (4, None)]
    assert await stores.rows.count(tenant, AGENT) == 3
    said = replace(STEP, texts=("Go on.",))
    following = Step(step=2, calls=(ToolCall(id="c", name="f", arguments="{}"),))
    await stores.live_turns.save(tenant, replace(live, version=3, steps=(said, following)))
    assert await _ids(stores, tenant) == [1, 2, 3, 4, 5, 6]
    await stores.live_turns.finish(tenant, _ended(live, steps=(said, following)), version=3)
    assert await _ids(stores, tenant) == [1, 2, 3, 4, 5, 6, BLOCK]
    assert await stores.rows.count(tenant, AGENT) == 7


async def test_what_a_failed_turn_said_is_there_and_of_a_refused_one_nothing(stores: Stores, tenant: str) -> None:
    failed = ErrorInfo(code=ErrorCode.UPSTREAM_CUT, message="cut")
    await _say(stores, tenant, 1, text="Hal", status="failed", error=failed)
    await _say(stores, tenant, 1 + BLOCK, status="failed", error=failed, answer=None)
    refused = ErrorInfo(code=ErrorCode.CONVERSATION_FULL, message="full")
    await _say(stores, tenant, 1 + 2 * BLOCK, status="failed", error=refused, answer=None)
    assert await _ids(stores, tenant) == [1, BLOCK, 1 + BLOCK]
    assert await stores.rows.count(tenant, AGENT) == 3


async def test_more_calls_than_a_block_has_room_for_leave_the_answer_its_place(stores: Stores, tenant: str) -> None:
    calls = tuple(ToolCall(id=f"c{n}", name="f", arguments="{}") for n in range(200))
    results = tuple(CallResult(call=call.id, text="x") for call in calls)
    await _say(stores, tenant, 1, steps=(Step(step=1, calls=calls, results=results),))
    await _say(stores, tenant, 1 + BLOCK)
    assert await _ids(stores, tenant, limit=200) == [*range(1, BLOCK + 2), 2 * BLOCK]


@pytest.mark.requirement("agents:paging")
async def test_pages_are_the_newest_rows_or_the_oldest_behind_one(stores: Stores, tenant: str) -> None:
    firsts = [1 + n * BLOCK for n in range(5)]
    for row in firsts:
        await _say(stores, tenant, row)
    every = [number for row in firsts for number in (row, row + BLOCK - 1)]
    wanted: list[tuple[dict[str, int], list[int], bool]] = [
        ({"limit": 50}, every, False),
        ({"limit": 10}, every, False),
        ({"limit": 9}, every[1:], True),
        ({"limit": 3}, every[7:], True),
        ({"limit": 3, "before": every[7]}, every[4:7], True),
        ({"limit": 3, "before": every[3]}, every[:3], False),
        ({"limit": 3, "before": every[4]}, every[1:4], True),
        ({"limit": 3, "before": 1}, [], False),
        ({"limit": 3, "after": 0}, every[:3], True),
        ({"limit": 3, "after": every[0]}, every[1:4], True),
        ({"limit": 3, "after": every[1]}, every[2:5], True),
        ({"limit": 3, "after": every[6]}, every[7:], False),
        ({"limit": 3, "after": every[-1]}, [], False),
        ({"limit": 3, "after": 2**53}, [], False),
        ({"limit": 3, "before": 2**53}, every[7:], True),
        ({"limit": 3, "after": every[2], "before": every[6]}, every[3:6], False),
        ({"limit": 2, "after": every[2], "before": every[6]}, every[3:5], True),
        ({"limit": 2, "after": every[2] + 5, "before": every[3] - 5}, [], False),
        ({"limit": 2, "after": every[6], "before": every[2]}, [], False),
    ]
    for query, ids, has_more in wanted:
        page = await stores.rows.page(tenant, AGENT, RowQuery(**query))
        assert ([row.id for row in page.rows], page.has_more) == (ids, has_more), query


@pytest.mark.requirement("agents:conversation-filter", "store:tenant-in-every-call")
async def test_a_page_is_of_one_tenant_one_agent_and_one_conversation(stores: Stores, tenant: str, other: str) -> None:
    await _say(stores, tenant, 1)
    await _say(stores, tenant, 1 + BLOCK, conversation="d")
    await _say(stores, tenant, 1, agent="another")
    await _say(stores, other, 1)
    assert await _ids(stores, tenant) == [1, BLOCK, 1 + BLOCK, 2 * BLOCK]
    assert await _ids(stores, tenant, conversation="d") == [1 + BLOCK, 2 * BLOCK]
    assert await _ids(stores, tenant, conversation="unknown") == []
    counts = [await stores.rows.count(tenant, AGENT, conversation=each) for each in (None, "c", "d", "unknown")]
    assert counts == [4, 2, 2, 0]
    assert await stores.rows.count(tenant, "another") == 2
    assert await stores.rows.count(tenant, "nobody") == 0
    await stores.live_turns.insert(tenant, replace(_live(tenant, 1), id=f"{tenant}-other", row=0))
    assert await stores.rows.count(tenant, AGENT) == 4


async def test_the_turns_that_have_not_ended_are_known_by_agent_and_conversation(stores: Stores, tenant: str) -> None:
    await _say(stores, tenant, 1)
    turns = [
        _live(tenant, 1 + BLOCK),
        _live(tenant, 1 + 2 * BLOCK, conversation="d"),
        _live(tenant, 1, agent="another"),
    ]
    for live in turns:
        await stores.live_turns.insert(tenant, live)
    await stores.live_turns.cancel(tenant, turns[0].id, "x")
    assert await stores.rows.unended(tenant, AGENT) == [turns[0].id, turns[1].id]
    assert await stores.rows.unended(tenant, AGENT, conversation="d") == [turns[1].id]
    assert await stores.rows.unended(tenant, "nobody") == []


@pytest.mark.requirement("agents:cleared-for-good")
async def test_what_is_erased_is_counted_once_leaves_what_runs_and_does_not_come_back(
    stores: Stores, tenant: str, other: str
) -> None:
    await _say(stores, tenant, 1, steps=(STEP,))
    await _say(stores, tenant, 1 + BLOCK, conversation="d")
    await _say(stores, tenant, 1, agent="another", conversation="e")
    await _say(stores, other, 1)
    live = _live(tenant, 1 + 2 * BLOCK)
    await stores.live_turns.insert(tenant, live)
    assert await _erase(stores, tenant, "d") == 2
    assert await stores.rows.count(tenant, AGENT) == 6
    both = await asyncio.gather(_erase(stores, tenant), _erase(stores, tenant))
    assert sum(both) == 5
    assert await _erase(stores, tenant) == 0
    assert await _ids(stores, tenant) == [live.row]
    ended = _live(tenant, 1)
    assert not await stores.live_turns.insert(tenant, ended)
    with pytest.raises(Conflict):
        await stores.live_turns.save(tenant, replace(ended, version=2))
    with pytest.raises(Conflict):
        await stores.live_turns.finish(tenant, _ended(ended), version=1)
    assert await stores.rows.count(tenant, AGENT) == 1
    assert await stores.turns.recent(tenant, "c", limit=10) == []
    assert await stores.rows.count(tenant, "another") == 2
    assert await stores.rows.count(other, AGENT) == 2
    assert await stores.rows.reserve(tenant, AGENT) == 1


async def _erase(stores: Stores, tenant: str, conversation: str | None = None) -> int:
    deleted = 0
    while erased := await stores.turns.erase(tenant, conversation=conversation, agent=AGENT, limit=2):
        deleted += sum(each.rows for each in erased)
    return deleted


async def test_a_turn_that_cannot_be_read_is_left_out_and_logged(database: Database, tenant: str) -> None:
    await ensure_indexes(database)
    async with open_stores(database) as stores:
        for n in range(3):
            await _say(stores, tenant, 1 + n * BLOCK)
        broken = {"tenant": tenant, "row": 1 + BLOCK}
        await database.run(database.collection("turns").update_one(broken, {"$set": {"steps": "?"}}))
        with capture_logs() as logs:
            page = await stores.rows.page(tenant, AGENT, RowQuery(limit=3))
    assert [row.id for row in page.rows] == [1 + 2 * BLOCK, 3 * BLOCK]
    assert page.has_more
    assert [entry["event"] for entry in logs] == ["store.unreadable"]


async def _explain(database: Database, command: Mapping[str, Any]) -> tuple[int, int]:
    answer = await database.command({"explain": command, "verbosity": "executionStats"})
    stats = answer.get("executionStats") or answer["stages"][0]["$cursor"]["executionStats"]
    return stats["totalDocsExamined"], stats["totalKeysExamined"]


async def test_counting_and_finding_a_page_read_the_index_and_no_document(database: Database, tenant: str) -> None:
    await database.command({"dropDatabase": 1})
    await ensure_indexes(database)
    async with open_stores(database) as stores:
        for n in range(40):
            conversation = f"c{n % 4}"
            await _say(stores, tenant, 1 + n * BLOCK, conversation=conversation)
        for n in range(40):
            plain = replace(_live(tenant, 1), id=f"{tenant}-plain-{n}", row=0)
            await stores.live_turns.insert(tenant, plain)
    for conversation, turns in ((None, 40), ("c1", 10)):
        documents, keys = await _explain(database, counting(tenant, AGENT, conversation))
        assert documents == 0
        assert keys <= turns + 1
        match = numbered(tenant, AGENT, RowQuery(conversation))
        projection = {"_id": 0, "row": 1, "rows": 1}
        page = {"find": "turns", "filter": match, "projection": projection, "sort": {"row": -1}, "limit": 5}
        assert await _explain(database, page) == (0, 5)
