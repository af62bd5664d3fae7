"""Clearing an agent's history: what is waited for, what goes with it, and what a client that leaves changes."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
from msgspec.structs import replace

from kitemesh_contracts.content import AssistantMessage, CallResult, Step, TextPart, ToolCall, UserMessage
from kitemesh_contracts.errors import ErrorCode, NotFound, Unavailable
from kitemesh_gateway.agents_clearing import AgentsClearing
from kitemesh_gateway.auth import Principal
from kitemesh_gateway.cancelling import Cancelling
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.clearing import Clearing
from kitemesh_runtime.holds import Hold
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.rows import RowQuery
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_memory import memory_stores
from kitemesh_runtime.turns import TurnRecord
from unit.gateway.holding import handle, held_call, person
from unit.gateway.rig import ManualClock

TENANT, AGENT = "acme", "clerk"


class HastyClock(ManualClock):
    """Goes on by half a second whenever somebody looks at it."""

    def monotonic(self) -> float:
        self.now_s += 0.5
        return self.now_s


class Canceller:
    """Takes cancels; the test says what each leads to."""

    def __init__(self, then: Callable[[str], object] = lambda _: None) -> None:
        self.asked: list[str] = []
        self.was_asked = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self._then = then

    async def cancel(self, principal: Principal, turn: str, *, origin: str) -> None:
        assert (principal.tenant, origin) == (TENANT, "1.2.3.4")
        self.asked.append(turn)
        self.was_asked.set()
        await self.may_go_on.wait()
        done = self._then(turn)
        if asyncio.iscoroutine(done):
            await done


def live(name: str, row: int) -> LiveTurn:
    return LiveTurn(
        id=name,
        tenant=TENANT,
        version=1,
        status="running",
        mode="durable",
        model=f"agent:{AGENT}",
        agent=AGENT,
        state=b"{}",
        conversation="c",
        input=(UserMessage(parts=(TextPart(text="Hello!"),)),),
        row=row,
    )


def ended(turn: LiveTurn, *steps: Step) -> TurnRecord:
    return TurnRecord(
        id=turn.id,
        tenant=turn.tenant,
        status="completed",
        mode="durable",
        model=turn.model,
        agent=turn.agent,
        conversation=turn.conversation,
        row=turn.row,
        steps=steps,
        answer=AssistantMessage(text="Hi"),
    )


def clearing(stores: Stores, canceller: Canceller) -> AgentsClearing:
    return AgentsClearing(
        stores.rows,
        stores.turns,
        cancelling=cast("Cancelling", canceller),
        clearing=Clearing(stores, cast("Bus", SimpleNamespace()), handle()),
        clock=HastyClock(),
    )


async def clear(cleared: AgentsClearing, conversation: str | None = None) -> int:
    async with asyncio.timeout(10):
        return await cleared.clear(person("chat"), AGENT, conversation, origin="1.2.3.4")


async def test_what_a_cleared_turn_leaves_goes_with_it() -> None:
    stores = memory_stores()
    blob = await stores.blobs.put(TENANT, b"long", keep_s=60)
    kept = await stores.blobs.put(TENANT, b"another's", keep_s=60, about="c")
    call = ToolCall(id="a", name="f", arguments="{}")
    step = Step(step=1, calls=(call,), results=(CallResult(call="a", blob=blob),))
    await stores.turns.put(TENANT, ended(live("one", 1), step))
    held = Hold(id="h", tenant=TENANT, turn="one", step=1, model=f"agent:{AGENT}", calls=(held_call(),))
    await stores.holds.open(TENANT, held, expires_after_s=60)
    assert await clear(clearing(stores, Canceller())) == 4
    assert [await stores.blobs.get(TENANT, each) for each in (blob, kept)] == [None, b"another's"]
    assert await stores.holds.get(TENANT, "h") is None
    assert await stores.turns.get(TENANT, "one") is None
    assert await clear(clearing(stores, Canceller())) == 0


@pytest.mark.requirement("agents:cleared-for-good")
async def test_what_was_cancelled_is_cleared_only_once_it_has_ended() -> None:
    stores = memory_stores()
    one, two = live("one", 1), live("two", 129)
    for turn in (one, two):
        await stores.live_turns.insert(TENANT, turn)
    canceller = Canceller(lambda name: stores.live_turns.finish(TENANT, ended(replace(one, id=name)), version=1))
    await stores.live_turns.insert(TENANT, replace(live("apart", 257), conversation="d"))
    assert await clear(clearing(stores, canceller), "c") == 4
    assert canceller.asked == ["one", "two"]
    assert [row.turn for row in (await stores.rows.page(TENANT, AGENT, RowQuery())).rows] == ["apart"]


async def test_a_turn_that_nobody_ends_is_not_cleared_and_the_client_may_try_again() -> None:
    stores = memory_stores()
    await stores.live_turns.insert(TENANT, live("one", 1))
    await stores.turns.put(TENANT, ended(live("two", 129)))
    cleared = clearing(stores, Canceller())
    with pytest.raises(Unavailable) as caught:
        await clear(cleared)
    assert (caught.value.code, caught.value.retry_after_s) == (ErrorCode.STORE_DOWN, 1)
    assert await stores.rows.count(TENANT, AGENT) == 3


async def test_a_turn_that_somebody_else_removed_is_no_matter() -> None:
    stores = memory_stores()
    await stores.live_turns.insert(TENANT, live("one", 1))

    async def remove(_: str) -> None:
        await stores.turns.erase(TENANT, conversation="c")
        raise NotFound(ErrorCode.EXECUTION_UNKNOWN, "gone")

    assert await clear(clearing(stores, Canceller(remove))) == 0


async def test_a_client_that_leaves_has_it_cleared_all_the_same() -> None:
    stores = memory_stores()
    await stores.live_turns.insert(TENANT, live("one", 1))
    canceller = Canceller(lambda _: stores.live_turns.finish(TENANT, ended(live("one", 1)), version=1))
    canceller.may_go_on.clear()
    cleared = clearing(stores, canceller)
    waiting = asyncio.create_task(clear(cleared))
    async with asyncio.timeout(5):
        await canceller.was_asked.wait()
        (work,) = [task for task in asyncio.all_tasks() if task.get_name() == "clear-history"]
        waiting.cancel()
        await asyncio.wait([waiting])
        canceller.may_go_on.set()
        assert await work == 2
    assert await stores.rows.count(TENANT, AGENT) == 0
