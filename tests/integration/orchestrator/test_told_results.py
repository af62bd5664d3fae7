"""What came of calls is told to who streams: with the next step's job, or with the closing event of a hold."""

import pytest

from integration.orchestrator.held_turns import with_tools
from integration.orchestrator.rig import Rig
from kitemesh_contracts.content import CallResult
from kitemesh_contracts.deltas import RESULT_SHOWN_CHARS
from kitemesh_contracts.events import CallsReturned


@pytest.mark.requirement("stream:results-are-told-first")
@pytest.mark.parametrize("stream", [True, False])
async def test_the_next_steps_job_has_the_results_for_who_streams(rig: Rig, stream: bool) -> None:
    await rig.start(with_tools(stream=stream))
    first = await rig.job()
    assert first.results == ()
    (call,) = await rig.call(first, ("look", "{}"))
    tool = await rig.tool_job()
    blob = await rig.stores.blobs.put("acme", b"z" * (2 * RESULT_SHOWN_CHARS), keep_s=60.0)
    await rig.event(
        CallsReturned(
            turn=tool.turn,
            tenant="acme",
            step=1,
            attempt=1,
            results=(CallResult(call=call, blob=blob),),
            carry=tool.carry,
        )
    )
    second = await rig.job()
    told = (CallResult(call=call, text="z" * (RESULT_SHOWN_CHARS + 1)),)
    assert second.results == (told if stream else ())


async def test_a_stream_that_ends_as_held_is_told_what_the_other_calls_came_to(rig: Rig) -> None:
    await rig.start(with_tools(stream=True))
    job = await rig.job()
    look, wipe = await rig.call(job, ("look", "{}"), ("wipe", "{}"))
    tool = await rig.tool_job()
    blob = await rig.stores.blobs.put("acme", b"found", keep_s=60.0)
    await rig.event(
        CallsReturned(
            turn=tool.turn,
            tenant="acme",
            step=1,
            attempt=tool.attempt,
            results=(CallResult(call=look, blob=blob),),
            job=tool.job,
        )
    )
    closing = await rig.closing()
    assert (closing.outcome, [call.id for call in closing.calls]) == ("held", [wipe])
    assert closing.results == (CallResult(call=look, text="found"),)


async def test_the_prompt_of_a_turns_own_and_its_client_ids_are_kept_with_it(rig: Rig) -> None:
    begun = with_tools(
        prompt="Be brief.", message="msg_1", row=129, details='{"a":1}', conversation="c-given", fresh=True
    )
    await rig.start(begun)
    job = await rig.job()
    assert job.messages[0].text == "Be brief."  # type: ignore[union-attr]  # a system message
    await rig.answer(job, "Yes.")
    await rig.closing()
    record = await rig.stores.turns.get("acme", begun.turn)
    assert record is not None
    assert (record.prompt, record.message, record.row, record.details) == ("Be brief.", "msg_1", 129, '{"a":1}')


async def test_where_nobody_can_approve_the_turn_goes_on_without_a_hold(rig: Rig) -> None:
    await rig.start(with_tools(denies_holds=True))
    await rig.call(await rig.job(), ("wipe", "{}"))
    job = await rig.job()
    assert job.step == 2
    assert "nobody can approve it here" in job.messages[-1].text  # type: ignore[union-attr]  # a result
