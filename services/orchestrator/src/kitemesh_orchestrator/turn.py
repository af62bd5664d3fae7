"""What a turn does next: `decide(state, event)`, a pure function over values.

It never raises, reads no clock and makes no ids. A late, duplicate or foreign event returns the state unchanged and no
commands, so that every message may be delivered any number of times.
"""

from typing import Final, NamedTuple, assert_never

import msgspec

from kitemesh_contracts.content import CallResult, Step
from kitemesh_contracts.deltas import TurnOutcome
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_contracts.events import CallsReturned, StepCancelled, StepFailed, StepGenerated
from kitemesh_orchestrator import calls
from kitemesh_orchestrator.choices import permitted
from kitemesh_orchestrator.happenings import (
    Command,
    Event,
    Finish,
    HoldAnswered,
    JobReleased,
    OpenHold,
    Pause,
    Publish,
    StepAnswered,
    TurnCancelled,
    TurnRefused,
    TurnSeated,
    WorkLost,
)
from kitemesh_orchestrator.states import Accepted, Calling, Ended, Generating, Running, State, outstanding
from kitemesh_runtime.live_turns import Job

MAX_ATTEMPTS: Final = 6
"""A step that was handed back or broke this often fails its turn."""

TOO_LONG: Final = ErrorInfo(code=ErrorCode.TURN_TIMEOUT, message="The turn took longer than it may")
TOO_MANY_STEPS: Final = ErrorInfo(
    code=ErrorCode.TURN_BUDGET, message="The model still called tools in the last step that the turn may take"
)
NOT_OFFERED: Final = ErrorInfo(code=ErrorCode.TOOL_UNKNOWN, message="The model called a tool it was not given")
HANDED_BACK: Final = ErrorInfo(code=ErrorCode.TURN_EXHAUSTED, message="A job of the turn was handed back too often")


class Decision(NamedTuple):
    """The next state and what must be done because of it."""

    state: State
    commands: tuple[Command, ...] = ()


def decide(state: State, event: Event) -> Decision:
    """Return what follows from an event."""
    match state:
        case Accepted():
            return _decide_accepted(state, event)
        case Generating():
            return _decide_generating(state, event)
        case Calling():
            return _decide_calling(state, event)
        case Ended():
            return Decision(state)
        case _:
            assert_never(state)


def pending(state: State) -> tuple[Command, ...]:
    """Return what a state that was saved leads to; all of it may be done again."""
    published: tuple[Command, ...] = tuple(Publish(job=job) for job in outstanding(state))
    return (*published, Pause()) if isinstance(state, Calling) and state.paused else published


def cancelled(reason: str) -> ErrorInfo:
    """Say why a turn was cancelled."""
    return ErrorInfo(code=ErrorCode.TURN_CANCELLED, message=f"The turn was cancelled: {reason}")


def _decide_accepted(state: Accepted, event: Event) -> Decision:
    match event:
        case TurnSeated():
            running = Generating(
                start=state.start,
                ordinal=event.ordinal,
                durable=state.start.mode == "durable",
                step=1,
                attempt=1,
            )
            return Decision(running, pending(running))
        case TurnRefused() | WorkLost():
            return Decision(Ended(start=state.start), (Finish(outcome="failed", error=event.error),))
        case TurnCancelled():
            return Decision(Ended(start=state.start), (Finish(outcome="cancelled", error=cancelled(event.reason)),))
        case StepAnswered() | StepFailed() | StepCancelled() | JobReleased() | CallsReturned() | HoldAnswered():
            return Decision(state)
        case _:
            assert_never(event)


def _decide_generating(state: Generating, event: Event) -> Decision:
    match event:
        case StepAnswered() if _counts(state, event.generated):
            return _on_answer(state, event)
        case StepFailed() if _counts(state, event):
            return _end_with(state, event, "failed", event.error)
        case StepCancelled() if _counts(state, event):
            return _end_with(state, event, "cancelled", cancelled(event.reason))
        case JobReleased() if (event.kind, event.step) == ("model", state.step) and event.attempt >= state.attempt:
            if event.attempt - state.spared >= MAX_ATTEMPTS:
                return _end(state, "failed", HANDED_BACK)
            again = msgspec.structs.replace(state, attempt=event.attempt + 1)
            return Decision(again, pending(again))
        case WorkLost():
            return _end(state, "failed", event.error)
        case TurnCancelled():
            return _end(state, "cancelled", cancelled(event.reason))
        case (
            StepAnswered()
            | StepFailed()
            | StepCancelled()
            | JobReleased()
            | CallsReturned()
            | HoldAnswered()
            | TurnSeated()
            | TurnRefused()
        ):
            return Decision(state)
        case _:
            assert_never(event)


def _decide_calling(state: Calling, event: Event) -> Decision:
    match event:
        case CallsReturned() if event.step == state.said.step and _job_of(state, "tool", event.job) is not None:
            if event.attempt <= state.spared and _was_stopped(event):
                # It was stopped when the turn was given up. The ledger knows what came of it.
                return Decision(state)
            returned = calls.take_results(state, event)
            if event.cancelled is not None:
                return _end(returned, "cancelled", cancelled(event.cancelled))
            return _go_on(returned)
        case JobReleased() if event.step == state.said.step:
            return _again(state, event)
        case HoldAnswered() if event.hold == state.hold:
            answered = calls.take_answers(state, event)
            if answered is state:
                return Decision(state)
            return _go_on(answered, besides=state.jobs)
        case WorkLost():
            return _end(state, "failed", event.error)
        case TurnCancelled():
            return _end(state, "cancelled", cancelled(event.reason))
        case (
            CallsReturned()
            | JobReleased()
            | HoldAnswered()
            | StepAnswered()
            | StepFailed()
            | StepCancelled()
            | TurnSeated()
            | TurnRefused()
        ):
            return Decision(state)
        case _:
            assert_never(event)


def _counts(state: Generating, event: StepGenerated | StepFailed | StepCancelled) -> bool:
    """Tell whether a result is of the current step; in the store, where attempts are claimed, of the current attempt.

    The first result of a classic step counts, whichever attempt it is of.
    """
    return event.step == state.step and (not state.durable or event.attempt == state.attempt)


def _on_answer(state: Generating, event: StepAnswered) -> Decision:
    generated = event.generated
    if not generated.calls:
        return _end_with(state, generated, "completed", None)
    if not event.offered:
        return _end_with(state, generated, "failed", NOT_OFFERED)
    if generated.step >= event.limits.steps and any(each.asked.do != "client" for each in event.rulings):
        # Nothing would ever see what they came to.
        return _end_with(state, generated, "failed", TOO_MANY_STEPS)
    calling = calls.begin(state, event)
    opened = (OpenHold(hold=calling.hold),) if calling.hold is not None else ()
    if calling.jobs or calling.undecided:
        return Decision(calling, (*opened, *pending(calling)))
    return _with_choices(_go_on(calling), generated)


def _with_choices(decision: Decision, generated: StepGenerated) -> Decision:
    """Add what else was said in a step, should the turn end with it."""
    if not (generated.alternatives or generated.logprobs):
        return decision
    return decision._replace(
        commands=tuple(
            msgspec.structs.replace(
                command,
                alternatives=permitted(generated.alternatives, decision.state.start.tools),
                logprobs=generated.logprobs,
            )
            if isinstance(command, Finish) and command.outcome == "completed"
            else command
            for command in decision.commands
        )
    )


def _go_on(state: Calling, besides: tuple[Job, ...] | None = None) -> Decision:
    """Return what follows when results have come: wait for others, for a person, or begin the next step.

    Args:
        state: With what has come.
        besides: Jobs that were published before; `None`: all that are left were.

    """
    if state.jobs:
        known = state.jobs if besides is None else besides
        return Decision(state, tuple(Publish(job=job) for job in state.jobs if job not in known))
    if state.undecided:
        return Decision(state, (Pause(),))
    mine = tuple(call for call, asked in zip(state.said.calls, state.asked, strict=True) if asked.do == "client")
    if mine:
        return Decision(
            Ended(start=state.start),
            (msgspec.structs.replace(_closing(state, "completed", None), calls=mine, finish="tool_calls"),),
        )
    if state.spent_s >= state.start.budget_s:
        return _end(state, "failed", TOO_LONG)
    if state.limits.tokens is not None and state.usage.input_tokens + state.usage.output_tokens >= state.limits.tokens:
        finish = msgspec.structs.replace(_closing(state, "completed", None), finish="length")
        return Decision(Ended(start=state.start), (finish,))
    following = calls.following(state)
    return Decision(following, pending(following))


def _was_stopped(event: CallsReturned) -> bool:
    """Tell whether a job was stopped, or found calls that were."""
    stopped = any(each.error is not None and each.error.code is ErrorCode.TOOL_CANCELLED for each in event.results)
    return event.cancelled is not None or stopped


def _again(state: Calling, event: JobReleased) -> Decision:
    job = _job_of(state, event.kind, event.index)
    if job is None or event.attempt < job.attempt:
        return Decision(state)
    if event.attempt - state.spared >= MAX_ATTEMPTS:
        return _end(state, "failed", HANDED_BACK)
    raised = msgspec.structs.replace(job, attempt=event.attempt + 1, message=0, deliveries=0)
    jobs = tuple(raised if each is job else each for each in state.jobs)
    return Decision(msgspec.structs.replace(state, jobs=jobs), (Publish(job=raised),))


def _job_of(state: Calling, kind: str, index: int) -> Job | None:
    return next((job for job in state.jobs if (job.kind, job.index) == (kind, index)), None)


def _end(state: Running, outcome: TurnOutcome, error: ErrorInfo | None) -> Decision:
    return Decision(Ended(start=state.start), (_closing(state, outcome, error),))


def _closing(state: Running, outcome: TurnOutcome, error: ErrorInfo | None) -> Finish:
    """Say how a turn ends between two answers of the model."""
    if isinstance(state, Generating):
        return Finish(
            outcome=outcome,
            step=state.step,
            usage=state.usage,
            error=error,
            timings=state.timings,
            earlier=state.steps,
        )
    said = state.said if outcome == "completed" else _answer_rest(state)
    return Finish(
        outcome=outcome,
        step=said.step,
        attempt=said.attempt,
        last=said.last,
        model=said.model,
        text=said.text,
        reasoning=said.reasoning,
        usage=state.usage,
        error=error,
        timings=state.timings,
        earlier=state.steps,
        said=said,
    )


def _answer_rest(state: Calling) -> Step:
    """Give the calls that no longer get a result one that says so: providers refuse a history without."""
    answered = {result.call for result in state.said.results}
    not_run = ErrorInfo(code=ErrorCode.TOOL_CANCELLED, message="The turn ended before the call had a result")
    rest = tuple(CallResult(call=asked.id, error=not_run) for asked in state.asked if asked.id not in answered)
    return msgspec.structs.replace(state.said, results=(*state.said.results, *rest))


def _end_with(
    state: Generating,
    event: StepGenerated | StepFailed | StepCancelled,
    outcome: TurnOutcome,
    error: ErrorInfo | None,
) -> Decision:
    """End with what a model said."""
    finish = Finish(
        outcome=outcome,
        step=event.step,
        attempt=event.attempt,
        last=event.last,
        model=event.model,
        text=event.text,
        reasoning=event.reasoning if isinstance(event, StepGenerated) else "",
        finish=event.finish if isinstance(event, StepGenerated) and error is None else None,
        usage=calls.add_usage(state.usage, event.usage),
        error=error,
        timings=calls.add_timings(state.timings, event.timings),
        earlier=state.steps,
    )
    ended = Decision(Ended(start=state.start), (finish,))
    return _with_choices(ended, event) if isinstance(event, StepGenerated) else ended
