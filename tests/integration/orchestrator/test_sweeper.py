"""The sweep leaves locks alone that could not be renewed while the store was away."""

import asyncio

import pytest

from integration.orchestrator.rig import Rig
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_orchestrator import sweeper
from kitemesh_runtime.stores import Promoted


class Swept:
    """Conversations of which only sweeping is asked."""

    def __init__(self) -> None:
        self.down = True
        self.sweeps: asyncio.Queue[float] = asyncio.Queue()

    async def sweep(self, *, limit: int = 100) -> list[Promoted]:
        del limit
        self.sweeps.put_nowait(asyncio.get_running_loop().time())
        if self.down:
            raise Unavailable(ErrorCode.STORE_DOWN, "gone")
        return []


@pytest.mark.requirement("conversation:renewed-by-its-gateway")
async def test_after_an_outage_those_who_hold_locks_renew_them_before_the_next_sweep(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "SETTLE_S", 0.5)
    conversations = Swept()
    rig.store_state.mark_down("gone")
    sweeping = asyncio.create_task(
        sweeper.sweep_forever(conversations, rig.endings, rig.store_state, every_s=0.01)  # type: ignore[arg-type]  only sweeps
    )
    async with asyncio.timeout(5):
        await conversations.sweeps.get()
        conversations.down = False
        await rig.bus.barrier()
        assert conversations.sweeps.empty()
        back_s = asyncio.get_running_loop().time()
        rig.store_state.mark_up()
        assert await conversations.sweeps.get() - back_s >= 0.5
        await conversations.sweeps.get()
    sweeping.cancel()
