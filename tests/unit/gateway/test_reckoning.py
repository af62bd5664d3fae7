import asyncio
from contextlib import suppress
from typing import Any

import pytest

from kitemesh_contracts.content import Usage
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_gateway import reckoning
from kitemesh_gateway.finding import Finding
from kitemesh_gateway.reckoning import Reckoning
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_memory import memory_stores
from kitemesh_runtime.turns import TurnRecord
from unit.gateway.rig import DeafBus


class Ledger:
    """Turns that are counted, and what became of them."""

    def __init__(self, *turns: str) -> None:
        self.open = dict.fromkeys(turns, "acme")
        self.used: dict[str, int | None] = {}
        self.changed = asyncio.Event()

    def open_turns(self) -> list[tuple[str, str]]:
        return [(tenant, turn) for turn, tenant in self.open.items()]

    def ended(self, turn: str, used_tokens: int | None = None) -> None:
        del self.open[turn]
        self.used[turn] = used_tokens
        self.changed.set()


async def put_ended(stores: Stores, turn: str) -> None:
    record = TurnRecord(
        id=turn,
        tenant="acme",
        status="completed",
        mode="durable",
        model="m",
        usage=Usage(input_tokens=3, output_tokens=4),
    )
    await stores.turns.put("acme", record)


@pytest.mark.requirement("limits:no-slot-leaks")
async def test_a_turn_that_ended_while_nobody_could_tell_is_over_when_the_bus_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stores, bus = memory_stores(), DeafBus()
    await put_ended(stores, "ended")
    live = LiveTurn(
        id="live", tenant="acme", version=1, status="queued", mode="durable", model="m", state=b"{}", jobs=()
    )
    await stores.live_turns.insert("acme", live)
    get, asked = stores.live_turns.get, 0

    async def get_at_last(*which: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise Unavailable(ErrorCode.STORE_DOWN, "down")
        return await get(*which)

    monkeypatch.setattr(stores.live_turns, "get", get_at_last)
    monkeypatch.setattr(reckoning, "AGAIN_S", 0.0)
    ledger = Ledger("ended", "live", "not-stored-yet")
    looking = asyncio.create_task(Reckoning(ledger, Finding(stores.live_turns, stores.holds), bus.as_bus()).run())
    bus.reconnect()
    async with asyncio.timeout(5):
        await ledger.changed.wait()
    looking.cancel()
    with suppress(asyncio.CancelledError):
        await looking
    assert ledger.used == {"ended": 7}
    assert set(ledger.open) == {"live", "not-stored-yet"}
