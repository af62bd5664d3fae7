"""Turns that call tools: the loop, several jobs at once, holds, and every way in which a hold may end."""

import asyncio

import msgspec
import pytest

from integration.orchestrator.held_turns import (
    decide,
    held,
    hold_of,
    live_of,
    queued,
    record_of,
    results_in,
    with_tools,
)
from integration.orchestrator.rig import Rig, given
from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import CancelTurn
from kitemesh_contracts.content import UserMessage
from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.ids import hold_id
from kitemesh_orchestrator import judging
from kitemesh_runtime.holds import Verdict
from kitemesh_runtime.worker import Done


async def test_a_model_is_offered_its_agents_tools_and_given_their_results(rig: Rig) -> None:
    begun = with_tools()
    await rig.start(begun)
    job = await rig.job()
    assert [tool.name for tool in job.tools] == ["look", "wipe", "post"]
    await rig.call(job, ("look", '{"at": 1}'), ("look", '{"at": 2}'), text="Let me see.")
    tool_job = await rig.tool_job()
    assert [(call.name, call.arguments) for call in tool_job.calls] == [("look", '{"at":1}'), ("look", '{"at":2}')]
    await rig.returned(tool_job, "one", "two")
    second = await rig.job()
    assert (second.step, second.attempt) == (2, 1)
    assert results_in(second) == ["one", "two"]
    assert second.after is not None
    await rig.answer(second, "Both seen.")
    closing = await rig.closing()
    assert (closing.outcome, closing.text) == ("completed", "Both seen.")
    assert [step.text for step in closing.earlier] == ["Let me see."]
    # With one job at a time the state travels: nothing was stored on the way.
    assert not tool_job.stored


async def test_in_its_last_step_a_model_is_offered_no_call_and_a_turn_that_still_calls_fails(rig: Rig) -> None:
    await rig.start(with_tools())
    for _ in range(2):
        job = await rig.job()
        await rig.call(job, ("look", "{}"))
        await rig.returned(await rig.tool_job(), "seen")
    last = await rig.job()
    assert (last.step, last.tool_choice) == (3, "none")
    await rig.call(last, ("look", "{}"))
    closing = await rig.closing()
    assert closing.error is not None
    assert closing.error.code == ErrorCode.TURN_BUDGET
    await rig.bus.barrier()
    assert rig.tools.empty()


async def test_what_a_model_makes_up_is_answered_without_running_anything(rig: Rig) -> None:
    await rig.start(with_tools())
    await rig.call(await rig.job(), ("no_such_tool", "{}"), ("look", "not json"))
    second = await rig.job()
    assert "tool.unknown" in results_in(second)[0]
    assert "tool.arguments" in results_in(second)[1]
    assert rig.tools.empty()


async def test_calls_of_two_pools_are_two_jobs_whose_results_join_in_the_store(rig: Rig) -> None:
    begun = with_tools()
    await rig.start(begun)
    await rig.call(await rig.job(), ("look", "{}"), ("post", "{}"))
    jobs = sorted([await rig.tool_job(), await rig.tool_job()], key=lambda job: job.job)
    assert [(job.stored, job.mode) for job in jobs] == [(True, "classic")] * 2
    await asyncio.gather(rig.returned(jobs[0], "looked"), rig.returned(jobs[1], "posted"))
    second = await rig.job()
    assert sorted(results_in(second)) == ["looked", "posted"]
    await rig.answer(second, "Done.")
    assert (await rig.closing()).text == "Done."
    assert (await record_of(rig, begun.turn)).status == "completed"


async def test_a_held_call_runs_nothing_and_is_stored_exactly_as_it_will_run(rig: Rig) -> None:
    begun = with_tools(conversation="talk-held", fresh=True)
    _, (call,) = await held(rig, begun, ("wipe", '{"b": 2, "a": 1}'))
    assert rig.tools.empty()
    hold = await hold_of(rig, begun.turn)
    (kept,) = hold.calls
    assert (kept.id, kept.arguments, hold.status) == (call, '{"a":1,"b":2}', "open")
    live = await live_of(rig, begun.turn)
    assert (live.status, live.hold, live.jobs) == ("held", hold.id, ())
    # Nobody may take the conversation while a person thinks.
    found = await rig.stores.conversations.get("acme", "talk-held")
    assert found is not None
    assert found.active_until_s is not None
    assert found.active_until_s >= hold.expires_at_s


@pytest.mark.parametrize("times", [1, 2])
async def test_an_approved_call_runs_once_however_often_the_hold_is_applied(rig: Rig, times: int) -> None:
    begun = with_tools()
    await held(rig, begun, ("wipe", '{"id": 7}'))
    hold = await decide(rig, await hold_of(rig, begun.turn), wipe=Verdict(approved=True, by="k1"))
    for _ in range(times):
        await rig.apply(begun.turn, hold.id, gateway="engine-test", stream=True)
    job = await rig.tool_job()
    assert [(call.name, call.arguments) for call in job.calls] == [("wipe", '{"id":7}')]
    assert (job.mode, job.stored) == ("durable", True)
    assert await queued(rig, begun.turn) == 1
    await rig.returned(job, "wiped")
    second = await rig.job()
    assert second.stream
    await rig.answer(second, "It is gone.")
    assert (await rig.closing()).text == "It is gone."
    record = await record_of(rig, begun.turn)
    assert (record.mode, record.steps[0].results[0].text) == ("durable", "wiped")
    assert [row.what for row in await rig.stores.audit.about("acme", hold.id)] == [
        "approval.requested",
        "approval.decided",
    ]


async def test_one_of_two_may_be_denied_and_the_model_hears_why(rig: Rig) -> None:
    begun = with_tools()
    _, (first, second) = await held(rig, begun, ("wipe", '{"id": 1}'), ("wipe", '{"id": 2}'))
    hold = await hold_of(rig, begun.turn)
    verdicts = {first: Verdict(approved=True), second: Verdict(approved=False, reason="not that one")}
    assert (await rig.stores.holds.decide("acme", hold.id, verdicts, texts=("Go on.",))).won
    await rig.apply(begun.turn, hold.id)
    job = await rig.tool_job()
    assert [call.id for call in job.calls] == [first]
    await rig.returned(job, "wiped")
    following = await rig.job()
    assert sorted(results_in(following)) == ["Error (tool.denied): A person denied the call: not that one", "wiped"]
    assert isinstance(following.messages[-1], UserMessage)


async def test_a_part_may_be_decided_first_and_the_rest_stays_held(rig: Rig) -> None:
    begun = with_tools()
    _, (first, second) = await held(rig, begun, ("wipe", '{"id": 1}'), ("wipe", '{"id": 2}'))
    hold = await hold_of(rig, begun.turn)
    assert (await rig.stores.holds.decide("acme", hold.id, {first: Verdict(approved=True)})).won
    await rig.apply(begun.turn, hold.id)
    await rig.returned(await rig.tool_job(), "wiped")
    again = await rig.closing()
    assert again.outcome == "held"
    assert [call.id for call in again.calls] == [second]
    assert (await rig.stores.holds.decide("acme", hold.id, {second: Verdict(approved=True)})).won
    await rig.apply(begun.turn, hold.id)
    await rig.returned(await rig.tool_job(), "wiped too")
    assert results_in(await rig.job()) == ["wiped", "wiped too"]


async def test_a_call_that_runs_beside_one_that_is_held_ends_before_the_answer_does(rig: Rig) -> None:
    begun = with_tools()
    await rig.start(begun)
    await rig.call(await rig.job(), ("look", "{}"), ("wipe", "{}"))
    job = await rig.tool_job()
    assert job.stored
    assert rig.closings.empty()
    await rig.returned(job, "looked")
    closing = await rig.closing()
    assert (closing.outcome, [call.name for call in closing.calls]) == ("held", ["wipe"])


async def test_edited_arguments_are_what_runs_and_the_model_is_told_without_them(rig: Rig) -> None:
    begun = with_tools()
    await held(rig, begun, ("wipe", '{"id": 1}'))
    hold = await decide(
        rig,
        await hold_of(rig, begun.turn),
        wipe=Verdict(approved=True, arguments='{"id":9}', sha256="x"),
    )
    await rig.apply(begun.turn, hold.id)
    job = await rig.tool_job()
    assert [(call.arguments, call.sha256) for call in job.calls] == [('{"id":9}', "x")]
    await rig.returned(job, "wiped")
    # Not to what: a person may have written what nobody else is shown.
    (told,) = results_in(await rig.job())
    assert told == "A person changed the arguments before approving the call. Result: wiped"


async def test_a_hold_whose_arguments_were_changed_in_the_store_is_refused(rig: Rig) -> None:
    begun = with_tools()
    await held(rig, begun, ("wipe", '{"id": 1}'))
    hold = await hold_of(rig, begun.turn)
    forged = msgspec.structs.replace(
        hold,
        calls=(msgspec.structs.replace(hold.calls[0], arguments='{"id":2}', verdict=Verdict(approved=True)),),
        status="decided",
        version=2,
    )
    rig.stores.holds._holds[hold.id] = forged  # type: ignore[attr-defined]
    await rig.apply(begun.turn, hold.id)
    assert "tool.changed" in results_in(await rig.job())[0]
    assert rig.tools.empty()


async def test_a_new_message_takes_the_place_of_a_held_turn(rig: Rig) -> None:
    first = with_tools(conversation="talk-supersede", fresh=True)
    await held(rig, first, ("wipe", "{}"))
    newer = with_tools(conversation="talk-supersede")
    await rig.start(newer)
    closing = await rig.closing()
    assert (closing.turn, closing.outcome) == (first.turn, "cancelled")
    job = await rig.job()
    assert job.turn == newer.turn
    assert (await hold_of(rig, first.turn)).status == "cancelled"
    assert await rig.holder("talk-supersede") == newer.turn
    late = await rig.stores.holds.decide(
        "acme", hold_id(first.turn, 1), {(await hold_of(rig, first.turn)).calls[0].id: Verdict(approved=True)}
    )
    assert not late.won


async def test_a_new_message_may_be_refused_while_a_turn_is_held(rig: Rig) -> None:
    first = with_tools("strict", conversation="talk-strict", fresh=True)
    await held(rig, first, ("wipe", "{}"))
    newer = with_tools("strict", conversation="talk-strict")
    await rig.start(newer)
    closing = await rig.closing()
    assert closing.error is not None
    assert (closing.error.code, closing.error.approval) == (ErrorCode.CONVERSATION_HELD, hold_id(first.turn, 1))
    assert (await hold_of(rig, first.turn)).status == "open"


async def test_a_new_message_may_wait_until_the_hold_has_ended(rig: Rig) -> None:
    first = with_tools("patient", conversation="talk-patient", fresh=True)
    await held(rig, first, ("wipe", "{}"))
    newer = with_tools("patient", conversation="talk-patient")
    await rig.start(newer)
    hold = await decide(rig, await hold_of(rig, first.turn), wipe=Verdict(approved=False))
    await rig.apply(first.turn, hold.id)
    job = await rig.job()
    assert job.turn == first.turn
    await rig.answer(job, "As you wish.")
    assert (await rig.closing()).turn == first.turn
    assert (await rig.promote()).turn == newer.turn


async def test_cancelling_a_held_turn_ends_it_and_its_hold(rig: Rig) -> None:
    begun = with_tools()
    await held(rig, begun, ("wipe", "{}"))
    await rig.stores.live_turns.cancel("acme", begun.turn, "enough")
    cancel = CancelTurn(turn=begun.turn, tenant="acme", reason="enough")
    delivery = given(subjects.control_cancel(begun.turn), codec.encode(cancel))
    assert await rig.engine.on_control(delivery) == Done()
    closing = await rig.closing()
    assert (closing.outcome, (await hold_of(rig, begun.turn)).status) == ("cancelled", "cancelled")
    record = await record_of(rig, begun.turn)
    assert record.steps[0].results[0].error is not None


async def test_a_turn_that_is_being_cancelled_takes_no_decision(rig: Rig) -> None:
    begun = with_tools()
    await held(rig, begun, ("wipe", "{}"))
    hold = await decide(rig, await hold_of(rig, begun.turn), wipe=Verdict(approved=True))
    await rig.stores.live_turns.cancel("acme", begun.turn, "enough")
    await rig.apply(begun.turn, hold.id)
    assert (await rig.closing()).outcome == "cancelled"
    assert rig.tools.empty()


async def test_a_second_delivery_of_what_was_saved_publishes_it_again_under_the_same_ids(rig: Rig) -> None:
    begun = with_tools()
    await rig.start(begun)
    job = await rig.job()
    for _ in range(3):
        await rig.call(job, ("look", "{}"), ("post", "{}"))
    first, second = await rig.tool_job(), await rig.tool_job()
    assert {first.job, second.job} == {0, 1}
    assert (await live_of(rig, begun.turn)).version == 1


async def test_the_sweep_publishes_again_what_no_queue_has_and_leaves_alone_what_waits(rig: Rig) -> None:
    begun = with_tools()
    await rig.start(begun)
    await rig.call(await rig.job(), ("look", "{}"), ("post", "{}"))
    await rig.tool_job()
    await rig.tool_job()
    live = await live_of(rig, begun.turn)
    await rig.sweeper._look_after(live)
    await rig.bus.barrier()
    assert rig.tools.empty()
    await rig.bus.request("$JS.API.STREAM.PURGE.KM_TOOL", b"{}", timeout_s=2.0)
    await rig.sweeper._look_after(live)
    again = await rig.tool_job()
    assert again.attempt == 2


async def test_arguments_too_long_to_be_kept_are_refused_before_a_hold_is_opened_for_them(rig: Rig) -> None:
    begun = with_tools()
    await rig.start(begun)
    long = msgspec.json.encode({"id": "\\" * judging.ARGUMENTS_MAX_CHARS}).decode()
    await rig.call(await rig.job(), ("wipe", long), ("look", long))
    assert ["too long" in text for text in results_in(await rig.job())] == [True, True]
    assert rig.tools.empty()
    assert await rig.stores.holds.count_open() == 0
