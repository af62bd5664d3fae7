"""What people's answers do to held calls, whole and in part, and what the model is told of them."""

from typing import Final

import msgspec
import pytest

from kitemesh_contracts import canonical
from kitemesh_contracts.content import CallResult
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_orchestrator import calls
from kitemesh_orchestrator.happenings import HoldAnswered, OpenHold, Pause, Publish
from kitemesh_orchestrator.states import Asked, Calling, Generating
from kitemesh_orchestrator.turn import decide
from unit.orchestrator.turns import (
    GENERATING,
    HOLD,
    answered,
    asks,
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
FAILED: Final = ErrorInfo(code=ErrorCode.TOOL_FAILED, message="The tool failed")
EDITED: Final = '{"amount":4}'
CHANGED: Final = "A person changed the arguments before approving the call."


def asked_of(state: Calling, name: str) -> Asked:
    (asked,) = [each for each in state.asked if each.id == name]
    return asked


def test_ungated_calls_run_while_others_are_held_and_the_stream_closes_when_they_are_done() -> None:
    step = answered(asks("run", "read"), asks("hold", "pay"))
    state, followed = run(GENERATING, step)
    assert followed == [OpenHold(hold=HOLD), Publish(job=tool_job("read1"))]
    state, followed = run(state, returned(text("read1")))
    assert followed == [Pause()]
    assert isinstance(state, Calling)
    assert state.paused


def test_an_approved_call_runs_as_it_was_held() -> None:
    state = led_to_calling(answered(asks("hold", "pay", '{"amount":5}')))
    after, followed = run(state, decided(pay1=verdict("pay1", approved=True, arguments='{"amount":5}')))
    assert jobs_of(followed) == [tool_job("pay1")]
    assert isinstance(after, Calling)
    assert after.asked == (change(state.asked[0], do="run"),)


def test_an_approval_while_another_job_runs_publishes_the_new_job_only() -> None:
    state = led_to_calling(answered(asks("run", "read"), asks("hold", "pay")))
    _, followed = run(state, decided(pay1=verdict("pay1", approved=True)))
    assert followed == [Publish(job=tool_job("pay1", index=1))]


def test_an_answer_that_comes_again_runs_nothing_a_second_time() -> None:
    answer = decided(pay1=verdict("pay1", approved=True))
    state = led_to_calling(answered(asks("hold", "pay"), asks("hold", "drop")), answer)
    decision = decide(state, answer)
    assert decision.state is state
    assert decision.commands == ()


def test_a_partial_answer_runs_what_it_approves_and_then_holds_again() -> None:
    state = led_to_calling(answered(asks("hold", "pay"), asks("hold", "drop")))
    state, followed = run(state, decided(pay1=verdict("pay1", approved=True)))
    assert followed == [Publish(job=tool_job("pay1"))]
    state, followed = run(state, returned(text("pay1", "paid")))
    assert followed == [Pause()]
    both = decided(pay1=verdict("pay1", approved=True), drop1=verdict("drop1", approved=True))
    state, followed = run(state, both)
    assert followed == [Publish(job=tool_job("drop1", index=1))]
    state, followed = run(state, returned(text("drop1", "dropped"), job=1))
    assert isinstance(state, Generating)
    assert [result.text for result in state.steps[-1].results] == ["paid", "dropped"]


def test_a_partial_denial_alone_holds_again_at_once() -> None:
    state = led_to_calling(answered(asks("hold", "pay"), asks("hold", "drop")))
    state, followed = run(state, decided(pay1=verdict("pay1", approved=False)))
    assert followed == [Pause()]
    assert isinstance(state, Calling)
    assert [each.id for each in state.undecided] == ["drop1"]


def test_approved_calls_of_one_answer_are_one_job_for_each_pool() -> None:
    step = answered(asks("hold", "pay"), asks("hold", "pay", number=2), asks("hold", "drop", pool="slow"))
    names = ("pay1", "pay2", "drop1")
    _, followed = run(led_to_calling(step), decided(**{name: verdict(name, approved=True) for name in names}))
    assert jobs_of(followed) == [tool_job("pay1", "pay2"), tool_job("drop1", index=1, pool="slow")]


def test_one_of_two_is_denied_and_the_model_is_told_why() -> None:
    state = led_to_calling(answered(asks("hold", "pay"), asks("hold", "drop")))
    state, followed = run(
        state,
        decided(pay1=verdict("pay1", approved=True), drop1=verdict("drop1", approved=False, reason="not this record")),
    )
    assert jobs_of(followed) == [tool_job("pay1")]
    state, _ = run(state, returned(text("pay1")))
    assert isinstance(state, Generating)
    told = {result.call: result.error for result in state.steps[-1].results}
    assert told["pay1"] is None
    words = "A person denied the call: not this record"
    assert told["drop1"] == ErrorInfo(code=ErrorCode.TOOL_DENIED, message=words, approval=HOLD)


def test_expiry_denies_what_is_not_decided_and_nothing_else() -> None:
    state = led_to_calling(answered(asks("hold", "pay"), asks("hold", "drop")))
    late = HoldAnswered(hold=HOLD, answers=(verdict("pay1", approved=True),), expired=True)
    state, followed = run(state, late)
    assert jobs_of(followed) == [tool_job("pay1")]
    assert isinstance(state, Calling)
    assert state.said.results == (CallResult(call="drop1", error=change(calls.EXPIRED, approval=HOLD)),)
    assert state.undecided == ()


def test_expiry_after_an_approval_takes_nothing_back() -> None:
    state = led_to_calling(answered(asks("hold", "pay")), decided(pay1=verdict("pay1", approved=True)))
    assert decide(state, HoldAnswered(hold=HOLD, expired=True)) == (state, ())


@pytest.mark.parametrize("approved", [True, False])
def test_an_answer_about_other_arguments_than_those_held_is_refused(*, approved: bool) -> None:
    state = led_to_calling(answered(asks("hold", "pay", '{"amount":5}')))
    answer = decided(pay1=verdict("pay1", approved=approved, arguments='{"amount":5000}'))
    after, followed = run(state, answer)
    assert isinstance(after, Generating)
    assert after.steps[-1].results == (CallResult(call="pay1", error=calls.ALTERED),)
    assert [job.kind for job in jobs_of(followed)] == ["model"]


def edit() -> HoldAnswered:
    second = verdict("pay2", approved=True, arguments='{"amount":6}')
    return decided(
        pay1=verdict("pay1", approved=True, arguments='{"amount":5}'),
        pay2=change(second, arguments=EDITED, edited_sha256=canonical.sha256(EDITED)),
    )


def edited_and_approved() -> Calling:
    step = answered(asks("hold", "pay", '{"amount":5}'), asks("hold", "pay", '{"amount":6}', number=2))
    return led_to_calling(step, edit())


def test_edited_arguments_run_under_their_own_hash_and_the_models_own_stay_on_record() -> None:
    state = edited_and_approved()
    assert state.jobs == (tool_job("pay1", "pay2"),)
    kept, edited = asked_of(state, "pay1"), asked_of(state, "pay2")
    assert (kept.arguments, kept.edited) == ('{"amount":5}', False)
    assert (edited.arguments, edited.sha256, edited.edited) == (EDITED, canonical.sha256(EDITED), True)
    assert state.said.calls[1].arguments == '{"amount":6}'


def test_the_model_is_told_what_ran_instead_of_what_it_asked_for() -> None:
    after = calls.take_results(edited_and_approved(), returned(text("pay1", "paid 5"), text("pay2", "paid 4")))
    first, second = after.said.results
    assert first.text == "paid 5"
    assert second.text == f"{CHANGED} Result: paid 4"


def test_a_long_result_of_an_edited_call_stays_where_it_is() -> None:
    long = CallResult(call="pay2", blob="b-1")
    after = calls.take_results(edited_and_approved(), returned(text("pay1"), long))
    _, result = after.said.results
    assert (result.blob, result.error) == ("b-1", None)
    assert result.text == f"{CHANGED} Result: "


def test_a_failure_of_an_edited_call_stays_a_failure_and_says_what_was_tried() -> None:
    both = [CallResult(call=name, error=FAILED) for name in ("pay1", "pay2")]
    plain, result = calls.take_results(edited_and_approved(), returned(*both)).said.results
    assert plain.error == FAILED
    assert result.error == change(FAILED, message=f"{CHANGED} The tool failed")
    assert result.text == ""


def test_denied_edits_do_not_run() -> None:
    state = led_to_calling(answered(asks("hold", "pay")))
    no = change(verdict("pay1", approved=False), arguments=EDITED, edited_sha256=canonical.sha256(EDITED))
    after, followed = run(state, decided(pay1=no))
    assert isinstance(after, Generating)
    assert [job.kind for job in jobs_of(followed)] == ["model"]


def test_texts_of_an_answer_stand_behind_the_results_and_are_there_once() -> None:
    state = led_to_calling(answered(asks("hold", "pay"), asks("hold", "drop")))
    state, _ = run(state, change(decided(pay1=verdict("pay1", approved=False)), texts=("Wait.",)))
    both = decided(pay1=verdict("pay1", approved=False), drop1=verdict("drop1", approved=False))
    state, _ = run(state, change(both, texts=("Wait.", "Now go on.")))
    assert isinstance(state, Generating)
    assert state.steps[-1].texts == ("Wait.", "Now go on.")


def test_who_answers_a_paused_turn_is_who_waits_for_the_rest() -> None:
    state = led_to_calling(answered(asks("hold", "pay")))
    after, _ = run(state, change(decided(pay1=verdict("pay1", approved=True)), gateway="gateway-2", stream=True))
    assert isinstance(after, Calling)
    assert (after.start.gateway, after.start.stream) == ("gateway-2", True)
    assert (state.start.gateway, state.start.stream) == ("gateway-1", False)


def test_an_answer_that_nobody_waits_for_changes_who_does_not() -> None:
    state = led_to_calling(answered(asks("hold", "pay")))
    after, _ = run(state, decided(pay1=verdict("pay1", approved=True)))
    assert isinstance(after, Calling)
    assert after.start == state.start


@pytest.mark.parametrize(("asked", "answers", "stream"), [(True, False, True), (False, True, True), (False,) * 3])
def test_who_asked_still_waits_while_other_calls_run(*, asked: bool, answers: bool, stream: bool) -> None:
    state = led_to_calling(answered(asks("run", "read"), asks("hold", "pay")))
    state = change(state, start=change(state.start, stream=asked))
    yes = change(decided(pay1=verdict("pay1", approved=True)), gateway="gateway-2", stream=answers)
    after, _ = run(state, yes)
    assert isinstance(after, Calling)
    assert (after.start.gateway, after.start.stream) == ("gateway-1", stream)


@pytest.mark.parametrize("other", [{"name": "drop"}, {"name": ""}, {"version": "v2"}, {"version": ""}])
def test_an_answer_about_another_tool_or_about_none_approves_nothing(other: dict[str, str]) -> None:
    state = led_to_calling(answered(asks("hold", "pay")))
    after, followed = run(state, decided(pay1=verdict("pay1", approved=True, **other)))
    assert [job.kind for job in jobs_of(followed)] == ["model"]
    assert isinstance(after, Generating)
    assert [result.error for result in after.steps[-1].results] == [calls.ALTERED]
