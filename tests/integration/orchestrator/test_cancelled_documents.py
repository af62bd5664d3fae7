"""Stored turns that are cancelled: their calls never begin, whoever ends them, and also if nobody can read them."""

import msgspec
import pytest

from integration.orchestrator.held_turns import held, hold_of, live_of, record_of, with_tools
from integration.orchestrator.rig import Rig
from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.ids import call_id
from kitemesh_runtime.ledger import LedgerRow


async def garble(rig: Rig, turn: str) -> None:
    """Make a turn's state one that no version here has written."""
    live = await live_of(rig, turn)
    state = live.state.replace(b'"calling"', b'"waiting"')
    assert state != live.state
    rig.stores.live_turns._kept[turn] = msgspec.structs.replace(live, state=state)  # type: ignore[attr-defined]


async def cannot_begin(rig: Rig, turn: str, call: str) -> bool:
    """Tell whether an executor that takes the call's job now finds it cancelled."""
    row = LedgerRow(
        id=call,
        tenant="acme",
        turn=turn,
        tool="post",
        effect="keyed",
        state="dispatched",
        by="executor",
        args_sha256="s",
    )
    return (await rig.stores.ledger.dispatch("acme", row)).state == "cancelled"


@pytest.mark.parametrize("readable", [True, False])
async def test_a_queued_call_of_a_turn_that_a_sweep_ends_as_cancelled_never_begins(rig: Rig, *, readable: bool) -> None:
    begun = with_tools()
    await rig.start(begun)
    await rig.call(await rig.job(), ("look", "{}"), ("post", "{}"))
    if not readable:
        await garble(rig, begun.turn)
    # The gateway that marked it died before it took the calls.
    await rig.stores.live_turns.cancel("acme", begun.turn, "enough")
    rig.later(7.0)
    await rig.sweeper.sweep()
    assert (await record_of(rig, begun.turn)).status == "cancelled"
    assert await cannot_begin(rig, begun.turn, call_id(begun.turn, 1, 1))


async def test_a_held_turn_that_nobody_can_read_is_ended_by_its_document_when_it_is_cancelled(rig: Rig) -> None:
    begun = with_tools(conversation="c-unreadable", fresh=True)
    await held(rig, begun, ("wipe", "{}"))
    await garble(rig, begun.turn)
    await rig.cancel(begun.turn)
    closing = await rig.closing()
    assert closing.error is not None
    assert (closing.outcome, closing.error.code) == ("cancelled", ErrorCode.TURN_CANCELLED)
    record = await record_of(rig, begun.turn)
    assert [call.name for call in record.steps[0].calls] == ["wipe"]
    assert (await hold_of(rig, begun.turn)).status == "cancelled"
    assert await rig.holder("c-unreadable") is None
