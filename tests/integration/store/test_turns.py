"""Ended turns, on the twin and on both drivers."""

import asyncio

import msgspec
import pytest

from kitemesh_contracts.content import (
    AssistantMessage,
    CallResult,
    Step,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from kitemesh_contracts.errors import BadRequest, Bug, Conflict, ErrorCode, ErrorInfo
from kitemesh_contracts.events import StepTimings
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_mongo import open_stores
from kitemesh_runtime.turns import TurnRecord


def _record(
    tenant: str, turn: str, *, conversation: str | None = None, ordinal: int = 0, text: str = "Hi"
) -> TurnRecord:
    return TurnRecord(
        id=turn,
        tenant=tenant,
        status="completed",
        mode="classic",
        model="scripted",
        conversation=conversation,
        ordinal=ordinal,
        answer=AssistantMessage(text=text) if text else None,
    )


async def test_a_whole_record_comes_back_as_it_was_stored(stores: Stores, tenant: str, conversation: str) -> None:
    record = TurnRecord(
        id=f"{tenant}-whole",
        tenant=tenant,
        status="failed",
        mode="durable",
        model="group:x",
        conversation=conversation,
        ordinal=3,
        key="abcdefgh",
        agent="guide",
        served_by="scripted",
        request="req-1",
        input=(
            SystemMessage(text="Be kind."),
            UserMessage(parts=(TextPart(text="Grüße, 世界 🙂 \0 $where"), TextPart(text=""))),
            ToolMessage(call="c1", text="42"),
        ),
        answer=AssistantMessage(
            text="partial", reasoning="because", calls=(ToolCall(id="c1", name="add", arguments='{"a": 1}'),)
        ),
        usage=Usage(input_tokens=2**40, output_tokens=2, cached_tokens=1, reasoning_tokens=1),
        error=ErrorInfo(code=ErrorCode.UPSTREAM_CUT, message="the stream broke", retry_after_s=1.5),
        finish="length",
        timings=StepTimings(
            queued_ms=0.25, first_token_ms=None, total_ms=17.0, start_queued_ms=0.5, orchestrator_ms=1.5, runner_ms=2.5
        ),
        accepted_at_ms=1_750_000_000_123,
        ended_at_ms=1_750_000_001_456,
        gateway="g1",
        dialect="completions",
        include_usage=True,
        steps=(
            Step(
                step=0,
                attempt=1,
                last=4,
                text="Let me look.",
                calls=(ToolCall(id="c0", name="look", arguments="{}"),),
                results=(CallResult(call="c0", error=ErrorInfo(code=ErrorCode.TOOL_TIMEOUT, message="too slow")),),
                texts=("go on",),
            ),
        ),
    )
    await stores.turns.put(tenant, record)
    assert await stores.turns.get(tenant, record.id) == record


@pytest.mark.requirement("store:first-write-stays")
async def test_the_first_one_stored_under_an_id_stays(stores: Stores, tenant: str) -> None:
    await stores.turns.put(tenant, _record(tenant, f"{tenant}-1", text="first"))
    await stores.turns.put(tenant, _record(tenant, f"{tenant}-1", text="second"))
    kept = await stores.turns.get(tenant, f"{tenant}-1")
    assert kept is not None
    assert kept.answer == AssistantMessage(text="first")


async def test_a_turn_that_is_live_is_not_ended_from_the_side(stores: Stores, tenant: str) -> None:
    live = LiveTurn(
        id=f"{tenant}-1", tenant=tenant, version=1, status="held", mode="classic", model="scripted", state=b"{}"
    )
    await stores.live_turns.insert(tenant, live)
    with pytest.raises(Conflict) as raised:
        await stores.turns.put(tenant, _record(tenant, live.id))
    assert raised.value.code is ErrorCode.STALE
    kept = await stores.live_turns.get(tenant, live.id)
    assert isinstance(kept, LiveTurn)
    assert kept.version == 1
    ended = _record(tenant, live.id, text="first")
    await stores.live_turns.finish(tenant, ended, version=1)
    await stores.turns.put(tenant, _record(tenant, live.id, text="second"))
    assert await stores.turns.get(tenant, live.id) == ended


@pytest.mark.requirement("conversation:history-window")
async def test_the_newest_answered_turns_come_oldest_first(stores: Stores, tenant: str, conversation: str) -> None:
    for ordinal in (4, 1, 3, 2):
        record = _record(tenant, f"{tenant}-{ordinal}", conversation=conversation, ordinal=ordinal)
        await stores.turns.put(tenant, record)
    await stores.turns.put(tenant, _record(tenant, f"{tenant}-5", conversation=conversation, ordinal=5, text=""))
    await stores.turns.put(tenant, _record(tenant, f"{tenant}-x", conversation=f"{conversation}-x", ordinal=6))

    async def ordinals(limit: int) -> list[int]:
        return [record.ordinal for record in await stores.turns.recent(tenant, conversation, limit=limit)]

    assert await ordinals(3) == [2, 3, 4]
    assert await ordinals(50) == [1, 2, 3, 4]
    assert await ordinals(0) == []


@pytest.mark.requirement("conversation:history-window")
async def test_a_turn_that_ended_while_it_called_tools_is_among_the_newest(
    stores: Stores, tenant: str, conversation: str
) -> None:
    answered = _record(tenant, f"{tenant}-1", conversation=conversation, ordinal=1)
    silent = _record(tenant, f"{tenant}-2", conversation=conversation, ordinal=2, text="")
    step = Step(step=1, text="Let me look.", calls=(ToolCall(id="c1", name="look", arguments="{}"),))
    called = msgspec.structs.replace(silent, id=f"{tenant}-3", ordinal=3, steps=(step,))
    for record in (called, silent, answered):
        await stores.turns.put(tenant, record)
    assert await stores.turns.recent(tenant, conversation, limit=5) == [answered, called]
    assert await stores.turns.recent(tenant, conversation, limit=1) == [called]


@pytest.mark.requirement("store:groups-writes")
async def test_two_hundred_turns_at_once_are_all_stored(stores: Stores, tenant: str, conversation: str) -> None:
    records = [_record(tenant, f"{tenant}-{n}", conversation=conversation, ordinal=n) for n in range(200)]
    await asyncio.gather(*(stores.turns.put(tenant, record) for record in records))
    assert await stores.turns.recent(tenant, conversation, limit=300) == records


@pytest.mark.requirement("store:tenant-in-every-call")
async def test_another_tenants_turn_is_as_if_it_did_not_exist(
    stores: Stores, tenant: str, other: str, conversation: str
) -> None:
    record = _record(tenant, f"{tenant}-1", conversation=conversation, ordinal=1)
    await stores.turns.put(tenant, record)
    assert await stores.turns.get(other, record.id) is None
    assert await stores.turns.recent(other, conversation, limit=5) == []
    with pytest.raises(Conflict):
        await stores.turns.put(other, _record(other, record.id))
    with pytest.raises(Bug):
        await stores.turns.put(other, record)
    assert await stores.turns.get(tenant, record.id) == record


async def test_a_turn_that_cannot_be_stored_fails_alone(database: Database, tenant: str) -> None:
    async with open_stores(database) as stores:
        good = [_record(tenant, f"{tenant}-{n}") for n in range(10)]
        surrogate = _record(tenant, f"{tenant}-surrogate", text="\ud800")
        huge = _record(tenant, f"{tenant}-huge", text="x" * 17 * 1024 * 1024)
        outcomes = await asyncio.gather(
            *(stores.turns.put(tenant, record) for record in (*good[:5], surrogate, huge, *good[5:])),
            return_exceptions=True,
        )
        assert outcomes[:5] == outcomes[7:] == [None] * 5
        codes = [outcome.code for outcome in outcomes[5:7] if isinstance(outcome, BadRequest)]
        assert codes == [ErrorCode.REQUEST_INVALID, ErrorCode.REQUEST_TOO_LARGE]
        for record in good:
            assert await stores.turns.get(tenant, record.id) == record
