"""How the calls of a step go on: jobs by pool, results in any order, the caller's own tools."""

from typing import Any, Final

import msgspec
import pytest

from kitemesh_contracts.errors import ErrorCode
from kitemesh_orchestrator import calls
from kitemesh_orchestrator.happenings import Finish, OpenHold, Pause, Publish, TurnCancelled
from kitemesh_orchestrator.states import Calling, Ended, Generating
from kitemesh_orchestrator.turn import decide
from unit.orchestrator.turns import (
    GENERATING,
    HOLD,
    answered,
    asks,
    call,
    calling,
    decided,
    jobs_of,
    led_to_calling,
    returned,
    run,
    text,
    tool_job,
    verdict,
)

change: Final = msgspec.structs.replace


def test_calls_of_one_pool_are_one_job_and_of_two_pools_two_that_are_stored() -> None:
    one = answered(asks("run", "read"), asks("run", "find"))
    two = answered(asks("run", "read"), asks("run", "find", pool="slow"), asks("run", "read", number=2))
    state, followed = run(GENERATING, one)
    assert jobs_of(followed) == [tool_job("read1", "find1")]
    assert isinstance(state, Calling)
    assert (state.durable, state.held) == (False, False)
    state, followed = run(GENERATING, two)
    assert jobs_of(followed) == [tool_job("read1", "read2"), tool_job("find1", index=1, pool="slow")]
    assert isinstance(state, Calling)
    assert (state.durable, state.held) == (True, False)


@pytest.mark.parametrize(
    ("rulings", "durable", "held"),
    [
        ([asks("run", "read")], False, False),
        ([asks("run", "read"), asks("client", "draw")], False, False),
        ([asks("run", "read"), asks("refused", "rm")], False, False),
        ([asks("run", "read"), asks("run", "find", pool="slow")], True, False),
        ([asks("hold", "pay")], True, True),
        ([asks("run", "read"), asks("hold", "pay")], True, True),
    ],
)
def test_what_a_message_cannot_carry_makes_a_turn_durable(rulings: list[Any], *, durable: bool, held: bool) -> None:
    state = led_to_calling(answered(*rulings))
    assert (state.durable, state.held) == (durable, held)
    assert state.hold == (HOLD if held else None)


def test_a_turn_that_was_durable_or_held_stays_so() -> None:
    before = change(GENERATING, durable=True, held=True)
    state, _ = decide(before, answered(asks("run", "read")))
    assert isinstance(state, Calling)
    assert (state.durable, state.held, state.hold) == (True, True, None)
    state, _ = decide(state, returned(text("read1")))
    assert isinstance(state, Generating)
    assert (state.durable, state.held) == (True, True)


def test_only_calls_that_may_run_count_against_the_turn() -> None:
    step = answered(asks("run", "read"), asks("hold", "pay"), asks("refused", "rm"), asks("client", "draw"))
    assert led_to_calling(step).calls_made == GENERATING.calls_made + 2


def test_results_of_several_jobs_are_joined_in_any_order_before_the_next_step() -> None:
    step = answered(asks("run", "read"), asks("run", "find", pool="slow"), asks("refused", "rm"))
    events = [returned(text("read1")), returned(text("find1", "7"), job=1)]
    for order in (events, events[::-1]):
        state, followed = run(GENERATING, step, *order)
        assert isinstance(state, Generating)
        assert state.step == 3
        told = {result.call: result.text for result in state.steps[-1].results}
        assert told == {"read1": "42", "find1": "7", "rm1": ""}
        assert [job.kind for job in jobs_of(followed)] == ["tool", "tool", "model"]


def test_a_result_that_comes_again_changes_nothing() -> None:
    two = led_to_calling(answered(asks("run", "read"), asks("run", "find", pool="slow")))
    once, _ = decide(two, returned(text("read1")))
    again = decide(once, returned(text("read1", "other")))
    assert again == (once, ())
    assert again.state is once


def test_a_result_of_a_call_that_has_one_is_not_taken_again() -> None:
    state = calling(asks("run", "read"), asks("run", "find"), jobs=(tool_job("read1", "find1"),))
    known = change(state, said=change(state.said, results=(text("read1"),)))
    after = calls.take_results(known, returned(text("read1", "other"), text("find1")))
    assert after.said.results == (text("read1"), text("find1"))


def test_only_the_results_of_a_jobs_own_calls_are_taken() -> None:
    two = led_to_calling(answered(asks("run", "read"), asks("run", "find", pool="slow"), asks("client", "draw")))
    after = calls.take_results(two, returned(text("find1"), text("read1"), text("draw1"), text("made-up")))
    assert after.said.results == (text("read1"),)
    assert [each.do for each in after.asked] == ["done", "run", "client"]
    assert after.jobs == (tool_job("find1", index=1, pool="slow"),)


def test_the_first_of_two_results_of_one_call_counts() -> None:
    state = led_to_calling(answered(asks("run", "read")))
    after = calls.take_results(state, returned(text("read1", "first"), text("read1", "second")))
    assert after.said.results == (text("read1", "first"),)


def test_a_call_that_a_job_told_nothing_of_has_failed_and_the_turn_goes_on() -> None:
    state = led_to_calling(answered(asks("run", "read"), asks("run", "find")))
    after, followed = run(state, returned(text("find1")))
    assert isinstance(after, Generating)
    silent, told = after.steps[-1].results
    assert told == text("find1")
    assert silent.error is not None
    assert (silent.call, silent.error.code) == ("read1", ErrorCode.TOOL_FAILED)
    assert [job.kind for job in jobs_of(followed)] == ["model"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_jobs_that_run_at_the_same_time_count_as_the_longest_of_them(order: tuple[int, int]) -> None:
    state = led_to_calling(answered(asks("run", "read"), asks("run", "find", pool="slow")))
    events = [returned(text("read1"), total_ms=200.0), returned(text("find1"), job=1, total_ms=500.0)]
    after, _ = run(state, *(events[number] for number in order))
    assert isinstance(after, Generating)
    assert after.spent_s == pytest.approx(state.spent_s + 0.5)


def test_client_calls_are_returned_after_the_servers_own_have_run() -> None:
    draw = call("draw", '{"x": 1}')
    step = answered(asks("run", "read"), asks("client", "draw", '{"x": 1}'), asks("refused", "rm"))
    state, followed = run(GENERATING, step)
    assert followed == [Publish(job=tool_job("read1"))]
    state, (finish,) = run(state, returned(text("read1")))
    assert isinstance(state, Ended)
    assert isinstance(finish, Finish)
    assert (finish.outcome, finish.finish, finish.calls) == ("completed", "tool_calls", (draw,))
    assert finish.said is not None
    assert {result.call for result in finish.said.results} == {"read1", "rm1"}
    assert [each.name for each in finish.said.calls] == ["read", "draw", "rm"]


def test_client_calls_alone_are_returned_at_once() -> None:
    state, (finish,) = run(GENERATING, answered(asks("client", "draw"), asks("client", "draw", number=2)))
    assert isinstance(state, Ended)
    assert isinstance(finish, Finish)
    assert finish.calls == (call("draw"), call("draw", number=2))
    assert finish.usage.output_tokens == GENERATING.usage.output_tokens + 1


def test_client_calls_beside_a_held_one_wait_for_its_answer() -> None:
    state, followed = run(GENERATING, answered(asks("hold", "pay"), asks("client", "draw")))
    assert followed == [OpenHold(hold=HOLD), Pause()]
    state, (finish,) = run(state, decided(pay1=verdict("pay1", approved=False)))
    assert isinstance(state, Ended)
    assert isinstance(finish, Finish)
    assert (finish.outcome, finish.calls) == ("completed", (call("draw"),))


def test_what_a_stopped_job_did_return_is_kept_when_the_turn_ends() -> None:
    state = led_to_calling(answered(asks("run", "read"), asks("run", "find", pool="slow")))
    ended, (finish,) = run(state, returned(text("read1"), cancelled="the client went away"))
    assert isinstance(ended, Ended)
    assert isinstance(finish, Finish)
    assert finish.outcome == "cancelled"
    assert finish.said is not None
    results = {result.call: result for result in finish.said.results}
    assert results["read1"] == text("read1")
    assert results["find1"].error is not None
    assert results["find1"].error.code is ErrorCode.TOOL_CANCELLED


def test_client_calls_that_are_no_longer_handed_out_get_a_result_too() -> None:
    state = led_to_calling(answered(asks("run", "read"), asks("client", "draw")))
    ended, (finish,) = run(state, TurnCancelled(reason="the client went away"))
    assert isinstance(ended, Ended)
    assert isinstance(finish, Finish)
    assert (finish.outcome, finish.calls) == ("cancelled", ())
    assert finish.said is not None
    codes = {result.call: result.error.code for result in finish.said.results if result.error is not None}
    assert codes == dict.fromkeys(["read1", "draw1"], ErrorCode.TOOL_CANCELLED)


def test_a_turn_without_a_first_token_has_the_next_steps() -> None:
    none = msgspec.structs.replace(GENERATING.timings, first_token_ms=None)
    assert calls.add_timings(none, GENERATING.timings).first_token_ms == 20.0
    assert calls.add_timings(GENERATING.timings, none).first_token_ms == 20.0
