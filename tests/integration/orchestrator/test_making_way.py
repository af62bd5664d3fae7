"""A new message and the turn in its way: nobody is stopped for nothing, and nobody waits for a turn that is over."""

import asyncio
from typing import Any

import pytest

from integration.orchestrator.held_turns import held, hold_of, with_tools
from integration.orchestrator.rig import Rig
from integration.orchestrator.test_repeats import fail
from kitemesh_contracts import subjects
from kitemesh_contracts.commands import CancelTurn, StartTurn
from kitemesh_contracts.errors import ErrorCode
from kitemesh_runtime.holds import Hold


def hasty(**more: Any) -> StartTurn:
    return with_tools("hasty", **more)


async def test_a_lock_that_a_dead_process_kept_after_its_turns_end_is_released_by_the_next_message(rig: Rig) -> None:
    begun = with_tools(conversation="c-kept", fresh=True)
    await held(rig, begun, ("wipe", "{}"))
    failing = fail(rig, "release")
    await rig.stores.live_turns.cancel("acme", begun.turn, "enough")
    with pytest.raises(type(failing.error)):
        await rig.engine.end_cancelled(CancelTurn(turn=begun.turn, tenant="acme", reason="enough"))
    assert (await rig.closing()).outcome == "cancelled"
    failing.calls.clear()
    assert await rig.holder("c-kept") == begun.turn
    newer = with_tools(conversation="c-kept")
    await rig.start(newer)
    assert (await rig.job()).turn == newer.turn
    assert await rig.holder("c-kept") == newer.turn


async def test_a_message_that_would_be_refused_runs_when_the_hold_ends_before_it_is(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = with_tools("strict", conversation="c-promoted", fresh=True)
    await held(rig, first, ("wipe", "{}"))
    newer = with_tools("strict", conversation="c-promoted")
    read = rig.stores.holds.get

    async def get(tenant: str, hold: str) -> Hold | None:
        found = await read(tenant, hold)
        monkeypatch.setattr(rig.stores.holds, "get", read)
        await rig.cancel(first.turn)
        return found

    monkeypatch.setattr(rig.stores.holds, "get", get)
    await rig.start(newer)
    assert (await rig.closing()).turn == first.turn
    assert (await rig.job()).turn == newer.turn
    assert (await rig.promote()).turn == newer.turn
    await rig.bus.barrier()
    assert rig.closings.empty()
    assert await rig.holder("c-promoted") == newer.turn


async def test_nobody_is_stopped_for_a_message_that_finds_no_place(rig: Rig) -> None:
    asked: asyncio.Queue[str] = asyncio.Queue()

    def stop(subject: str, _: bytes) -> bytes:
        asked.put_nowait(subject)
        return b"true"

    await rig.bus.answer(subjects.ASK_CANCEL_ALL, stop)
    await rig.bus.barrier()
    await rig.start(hasty(conversation="c-full", fresh=True))
    running = await rig.job()
    for _ in range(2):
        await rig.start(hasty(conversation="c-full"))
        assert asked.get_nowait() == subjects.ask_cancel(running.turn)
    await rig.start(hasty(conversation="c-full"))
    closing = await rig.closing()
    assert closing.error is not None
    assert closing.error.code is ErrorCode.CONVERSATION_FULL
    assert asked.empty()


@pytest.mark.parametrize("ahead_s", [300.0, -300.0])
async def test_a_held_conversation_is_locked_until_the_hold_ends_by_the_stores_clock(rig: Rig, ahead_s: float) -> None:
    rig.clock.ahead_s = ahead_s
    begun = with_tools(conversation="c-clock", fresh=True)
    await held(rig, begun, ("wipe", "{}"))
    hold = await hold_of(rig, begun.turn)
    found = await rig.stores.conversations.get("acme", "c-clock")
    assert found is not None
    assert found.active_until_s == pytest.approx(hold.expires_at_s + 60.0, abs=0.01)
