"""The sweep drives on what is lost, goes past what breaks it, and leaves alone what only could not be renewed."""

import asyncio

import pytest

from integration.orchestrator.held_turns import decide, held, hold_of, record_of, with_tools
from integration.orchestrator.rig import Rig
from integration.orchestrator.test_cancelled_documents import garble
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_orchestrator import sweeper
from kitemesh_runtime.holds import Verdict
from kitemesh_runtime.live_turns import LiveTurn


class Swept:
    """A sweep that fails while the store is down."""

    def __init__(self) -> None:
        self.down = True
        self.sweeps: asyncio.Queue[float] = asyncio.Queue()

    async def sweep(self) -> None:
        self.sweeps.put_nowait(asyncio.get_running_loop().time())
        if self.down:
            raise Unavailable(ErrorCode.STORE_DOWN, "gone")


@pytest.mark.requirement("conversation:renewed-by-its-gateway")
async def test_after_an_outage_those_who_hold_locks_renew_them_before_the_next_sweep(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "SETTLE_S", 0.5)
    conversations = Swept()
    rig.store_state.mark_down("gone")
    sweeping = asyncio.create_task(sweeper.sweep_forever(conversations.sweep, rig.store_state, every_s=0.01))
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


async def test_two_lost_jobs_of_a_turn_are_published_again_in_one_sweep(rig: Rig) -> None:
    begun = with_tools()
    await rig.start(begun)
    await rig.call(await rig.job(), ("look", "{}"), ("post", "{}"))
    for _ in range(2):
        await rig.tool_job()
    await rig.bus.request("$JS.API.STREAM.PURGE.KM_TOOL", b"{}", timeout_s=2.0)
    rig.later(7.0)
    await rig.sweeper.sweep()
    again = [await rig.tool_job(), await rig.tool_job()]
    assert sorted((job.calls[0].name, job.attempt) for job in again) == [("look", 2), ("post", 2)]


async def test_a_sweep_goes_on_past_turns_and_holds_that_nobody_can_read(rig: Rig) -> None:
    broken, whole = with_tools(), with_tools()
    for begun in (broken, whole):
        await held(rig, begun, ("wipe", "{}"))
        await decide(rig, await hold_of(rig, begun.turn), wipe=Verdict(approved=True))
    await garble(rig, broken.turn)
    rig.later(3600.0)
    await rig.sweeper.sweep()
    assert (await rig.tool_job()).turn == whole.turn


async def test_a_sweep_ends_and_gets_to_the_last_turn_though_pages_of_others_fail(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "PAGE", 2)
    for number in range(5):
        failing = LiveTurn(
            id=f"broken-{number}",
            tenant="acme",
            version=1,
            status="running",
            mode="classic",
            model="m",
            state=b"{}",
            conversation="c-broken",
        )
        assert await rig.stores.live_turns.insert("acme", failing)
    last = with_tools()
    await rig.start(last)
    await rig.call(await rig.job(), ("look", "{}"), ("post", "{}"))
    await rig.stores.live_turns.cancel("acme", last.turn, "enough")

    async def break_down(*_: object) -> None:
        await rig.bus.barrier()
        raise Unavailable(ErrorCode.STORE_DOWN, "gone")

    monkeypatch.setattr(rig.stores.conversations, "renew", break_down)
    rig.later(7.0)
    async with asyncio.timeout(5):
        await rig.sweeper.sweep()
    assert (await record_of(rig, last.turn)).status == "cancelled"
