"""What is told of a turn that travelled in messages, once the turn is in the store: only the stored one changes."""

import pytest

from integration.orchestrator.held_turns import decide, held, hold_of, live_of, record_of, with_tools
from integration.orchestrator.rig import Rig, generated, start
from integration.orchestrator.test_repeats import DOWN, Failing
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_contracts.events import StepFailed
from kitemesh_runtime.holds import Verdict


@pytest.mark.parametrize("disconnect", [True, False])
async def test_a_turn_cancelled_before_its_models_calls_are_taken_holds_and_runs_nothing(
    rig: Rig, *, disconnect: bool
) -> None:
    for conversation, calls in (("c-heard-1", ("wipe",)), ("c-heard-2", ("look",)), ("c-heard-3", ("look", "post"))):
        begun = with_tools(conversation=conversation, fresh=True)
        await rig.start(begun)
        job = await rig.job()
        await rig.hear(begun.turn, disconnect=disconnect)
        await rig.call(job, *((name, "{}") for name in calls), text="Let me see.")
        closing = await rig.closing()
        assert (closing.outcome, closing.text) == ("cancelled", "Let me see.")
        assert (await record_of(rig, begun.turn)).status == "cancelled"
        assert await rig.holder(conversation) is None
    await rig.bus.barrier()
    assert rig.tools.empty()
    assert await rig.stores.holds.count_open() == 0


async def test_a_carried_answer_that_comes_late_does_not_end_a_stored_turn_from_the_side(rig: Rig) -> None:
    begun = with_tools(conversation="c-late", fresh=True)
    job, _ = await held(rig, begun, ("wipe", "{}"))
    await rig.answer(job, "No need.")
    # What the stored turn waits for is said again, and nothing else.
    assert (await rig.closing()).outcome == "held"
    assert rig.closings.empty()
    assert (await live_of(rig, begun.turn)).status == "held"
    assert await rig.holder("c-late") == begun.turn


@pytest.mark.parametrize("conversation", [None, "c-late-failure"])
async def test_a_carried_failure_that_comes_late_leaves_the_hold_of_a_stored_turn_open(
    rig: Rig, conversation: str | None
) -> None:
    begun = with_tools(conversation=conversation, fresh=conversation is not None)
    job, _ = await held(rig, begun, ("wipe", "{}"))
    error = ErrorInfo(code=ErrorCode.UPSTREAM_FAILED, message="The model failed")
    await rig.event(StepFailed(turn=job.turn, tenant="acme", step=1, attempt=1, error=error, carry=job.carry))
    assert (await rig.closing()).outcome == "held"
    assert (await live_of(rig, begun.turn)).status == "held"
    hold = await decide(rig, await hold_of(rig, begun.turn), wipe=Verdict(approved=True))
    await rig.apply(begun.turn, hold.id)
    assert (await rig.tool_job()).calls[0].name == "wipe"


@pytest.mark.parametrize("conversation", [None, "c-left"])
async def test_a_held_turn_whose_client_left_is_held_though_what_led_to_it_comes_again(
    rig: Rig, conversation: str | None
) -> None:
    begun = with_tools(conversation=conversation, fresh=conversation is not None)
    job, _ = await held(rig, begun, ("wipe", "{}"))
    await rig.hear(begun.turn, disconnect=True)
    await rig.event(generated(job, ("wipe", "{}")))
    assert (await rig.closing()).outcome == "held"
    await rig.start(begun, deliveries=2)
    await rig.bus.barrier()
    assert rig.closings.empty()
    assert (await live_of(rig, begun.turn)).status == "held"
    assert (await hold_of(rig, begun.turn)).status == "open"
    if conversation is not None:
        assert await rig.holder(conversation) == begun.turn


async def test_a_start_that_comes_again_leaves_the_lock_of_its_held_turn_as_long_as_the_hold(rig: Rig) -> None:
    first = start("one", conversation="c-start-again", fresh=True)
    await rig.start(first)
    await rig.answer(await rig.job(), "1")
    await rig.closing()
    begun = with_tools(conversation="c-start-again")
    await held(rig, begun, ("wipe", "{}"))
    await rig.start(begun, deliveries=2)
    hold = await hold_of(rig, begun.turn)
    found = await rig.stores.conversations.get("acme", "c-start-again")
    assert found is not None
    assert found.active_until_s is not None
    assert found.active_until_s >= hold.expires_at_s


@pytest.mark.parametrize("conversation", [None, "c-no-store"])
async def test_the_failure_of_a_turn_with_tools_is_told_while_the_store_is_down(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, conversation: str | None
) -> None:
    begun = with_tools(conversation=conversation, fresh=conversation is not None)
    await rig.start(begun)
    job = await rig.job()
    for store in (rig.stores.holds, rig.stores.live_turns, rig.stores.turns):
        failing = Failing(store, "get", "cancel", "put", error=DOWN)
        for call in ("get", "cancel", "put"):
            if hasattr(store, call):
                monkeypatch.setattr(store, call, getattr(failing, call))
    error = ErrorInfo(code=ErrorCode.UPSTREAM_FAILED, message="The model failed")
    await rig.event(StepFailed(turn=job.turn, tenant="acme", step=1, attempt=1, error=error, carry=job.carry))
    closing = await rig.closing()
    assert (closing.outcome, closing.error) == ("failed", error)
