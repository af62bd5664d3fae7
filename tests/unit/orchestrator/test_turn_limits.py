"""What bounds a turn: attempts, steps, tokens, time; and what a saved state leads to once more."""

from typing import Any

import msgspec
import pytest

from kitemesh_contracts.content import CallResult, Usage
from kitemesh_contracts.errors import ErrorCode
from kitemesh_orchestrator import turn
from kitemesh_orchestrator.happenings import Event, Finish, JobReleased, Pause, Publish
from kitemesh_orchestrator.states import Calling, Ended, Generating, Limits, State, is_durable, outstanding
from kitemesh_orchestrator.turn import decide, pending
from kitemesh_runtime.live_turns import Job
from unit.orchestrator.turns import GENERATING, START, answered, asks, calling, generated, returned, tool_job

change = msgspec.structs.replace
RESULT = returned(CallResult(call="read1", text="42"))


def reading(**more: Any) -> Calling:
    return calling(asks("run", "read"), jobs=(tool_job("read1"),), **more)


def ends_with(state: State, event: Event) -> Finish:
    after, (finish,) = decide(state, event)
    assert isinstance(after, Ended)
    assert isinstance(finish, Finish)
    return finish


@pytest.mark.requirement("classic:first-result-wins")
def test_the_first_result_of_a_carried_step_wins_whatever_its_attempt() -> None:
    late = answered(text="late", attempt=4)
    state, commands = decide(GENERATING, late)
    assert [type(command) for command in commands] == [Finish]
    assert decide(state, answered(text="first")) == (state, ())


@pytest.mark.requirement("classic:too-many-hand-backs")
@pytest.mark.parametrize(
    ("state", "kind"), [(change(GENERATING, attempt=1), "model"), (reading(), "tool")], ids=["model", "tool"]
)
def test_a_job_handed_back_too_often_fails_the_turn(state: State, kind: Any) -> None:
    commands: tuple[Any, ...] = ()
    for attempt in range(1, turn.MAX_ATTEMPTS):
        state, commands = decide(state, JobReleased(kind=kind, step=2, index=0, attempt=attempt))
        assert [command.job.attempt for command in commands] == [attempt + 1]
    finish = ends_with(state, JobReleased(kind=kind, step=2, index=0, attempt=turn.MAX_ATTEMPTS))
    assert finish.error is not None
    assert finish.error.code is ErrorCode.TURN_EXHAUSTED


def test_another_jobs_attempts_are_its_own() -> None:
    two = calling(
        asks("run", "read"),
        asks("run", "find", pool="slow"),
        jobs=(tool_job("read1"), tool_job("find1", index=1, pool="slow")),
        durable=True,
    )
    after, commands = decide(two, JobReleased(kind="tool", step=2, index=1, attempt=1))
    raised = tool_job("find1", index=1, attempt=2, pool="slow")
    assert commands == (Publish(job=raised),)
    assert after == change(two, jobs=(tool_job("read1"), raised))


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("kinds", [["run"], ["hold"], ["refused"], ["client", "run"], ["client", "hold"]])
def test_a_turn_whose_last_step_still_calls_tools_fails_before_anything_runs_or_is_held(
    kinds: list[str], steps: int
) -> None:
    step = answered(*(asks(kind, kind) for kind in kinds))
    finish = ends_with(GENERATING, change(step, limits=Limits(steps=steps)))
    assert (finish.outcome, finish.error) == ("failed", turn.TOO_MANY_STEPS)
    assert turn.TOO_MANY_STEPS.code is ErrorCode.TURN_BUDGET
    assert (finish.text, finish.calls, finish.said) == ("Let me see.", (), None)
    assert isinstance(decide(GENERATING, change(step, limits=Limits(steps=3))).state, Calling | Generating)


def test_the_last_step_may_still_hand_calls_to_the_client() -> None:
    step = answered(asks("client", "draw"), asks("client", "draw", number=2))
    finish = ends_with(GENERATING, change(step, limits=Limits(steps=2)))
    assert (finish.outcome, finish.finish, finish.error) == ("completed", "tool_calls", None)
    assert [each.id for each in finish.calls] == ["draw1", "draw2"]


@pytest.mark.parametrize(("bound", "ends"), [(15, True), (16, True), (17, False), (None, False)])
def test_no_step_is_begun_beyond_the_tokens_of_the_turn(bound: int | None, *, ends: bool) -> None:
    spent = Usage(input_tokens=10, output_tokens=6, reasoning_tokens=4, cached_tokens=9)
    after, (command,) = decide(reading(usage=spent, limits=Limits(tokens=bound)), RESULT)
    assert isinstance(after, Ended if ends else Generating)
    if ends:
        assert isinstance(command, Finish)
        assert (command.outcome, command.finish, command.error, command.calls) == ("completed", "length", None, ())
        assert command.said is not None
        assert command.said.results == RESULT.results


@pytest.mark.parametrize(("spent_s", "ends"), [(599.7, False), (599.8, True), (700.0, True)])
def test_no_step_is_begun_after_the_time_of_the_turn(spent_s: float, *, ends: bool) -> None:
    after, (command,) = decide(reading(spent_s=spent_s), RESULT)
    assert isinstance(after, Ended if ends else Generating)
    if ends:
        assert isinstance(command, Finish)
        assert (command.outcome, command.error) == ("failed", turn.TOO_LONG)


def test_time_in_queues_and_in_work_counts_and_a_hold_does_not() -> None:
    timings = msgspec.structs.replace(generated().timings, queued_ms=400.0)
    step = answered(asks("run", "read"), timings=timings)
    state, _ = decide(GENERATING, step)
    assert isinstance(state, Calling)
    assert state.spent_s == pytest.approx(GENERATING.spent_s + 0.5)
    state, _ = decide(state, RESULT)
    assert isinstance(state, Generating)
    assert state.spent_s == pytest.approx(GENERATING.spent_s + 0.7)


def test_what_a_saved_state_leads_to_is_all_that_is_outstanding() -> None:
    job = tool_job("read1", attempt=2)
    assert pending(GENERATING) == (Publish(job=Job(kind="model", step=2, attempt=2, pool="fast")),)
    assert pending(calling(asks("run", "read"), asks("hold", "pay"), jobs=(job,))) == (Publish(job=job),)
    assert pending(calling(asks("hold", "pay"))) == (Pause(),)
    assert pending(Ended(start=START)) == ()
    assert outstanding(Ended(start=START)) == ()


def test_only_a_turn_under_way_can_be_in_the_store() -> None:
    assert [is_durable(state) for state in (GENERATING, change(GENERATING, durable=True))] == [False, True]
    assert not is_durable(Ended(start=START))
