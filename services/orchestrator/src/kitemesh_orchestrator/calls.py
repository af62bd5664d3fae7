"""How the calls of one step go on: judged, answered by workers and by people, followed by the next step. Pure."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from kitemesh_contracts.content import CallResult, Step, Usage
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_contracts.events import CallsReturned, StepTimings
from kitemesh_orchestrator.happenings import Answered, HoldAnswered, StepAnswered
from kitemesh_orchestrator.states import Asked, Calling, Generating
from kitemesh_runtime.live_turns import Job

_MS: Final = 1000.0

EXPIRED: Final = ErrorInfo(code=ErrorCode.TOOL_DENIED, message="Nobody approved the call in time; it was not run")
ALTERED: Final = ErrorInfo(code=ErrorCode.TOOL_CHANGED, message="The call is not the one that was held; it was not run")

NOTHING: Final = ErrorInfo(code=ErrorCode.TOOL_FAILED, message="The tool-executor told nothing of the call")


def begin(state: Generating, event: StepAnswered) -> Calling:
    """Take a model's calls and how they were judged."""
    generated = event.generated
    asked = tuple(ruling.asked for ruling in event.rulings)
    said = Step(
        step=generated.step,
        attempt=generated.attempt,
        last=generated.last,
        model=generated.model,
        text=generated.text,
        reasoning=generated.reasoning,
        calls=generated.calls,
        results=tuple(
            CallResult(call=ruling.asked.id, error=ruling.answer)
            for ruling in event.rulings
            if ruling.answer is not None
        ),
    )
    jobs = _jobs(said.step, asked, first=0)
    held = any(call.do == "hold" for call in asked)
    return Calling(
        start=state.start,
        ordinal=state.ordinal,
        # What is carried in messages cannot join two of them, nor wait for a person.
        durable=state.durable or held or len(jobs) > 1,
        held=state.held or held,
        billed=state.billed,
        past=state.past,
        steps=state.steps,
        usage=add_usage(state.usage, generated.usage),
        spent_s=state.spent_s + _spent_ms(generated.timings) / _MS,
        timings=add_timings(state.timings, generated.timings),
        shown=state.shown,
        calls_made=state.calls_made + sum(call.do in {"run", "hold"} for call in asked),
        said=said,
        asked=asked,
        limits=event.limits,
        jobs=jobs,
        jobs_made=len(jobs),
        hold=event.hold if held else None,
    )


def _spent_ms(timings: StepTimings) -> float:
    """Return the time of a step, and for the first one what its turn's start had waited before."""
    return timings.start_queued_ms + timings.queued_ms + timings.total_ms


def take_results(state: Calling, event: CallsReturned) -> Calling:
    """Take what a job of the state returned: one result for each of its calls, and for no other."""
    job = next(each for each in state.jobs if (each.kind, each.index) == ("tool", event.job))
    told = {result.call: result for result in reversed(event.results)}
    edited = {call.id for call in state.asked if call.edited}
    answered = {result.call for result in state.said.results}
    fresh = tuple(
        _with_edit(told.get(call, CallResult(call=call, error=NOTHING)), edited=call in edited)
        for call in job.calls
        if call not in answered
    )
    # Jobs of one step run at the same time.
    longest_s = max(state.longest_s, event.total_ms / _MS)
    return msgspec.structs.replace(
        state,
        said=msgspec.structs.replace(state.said, results=(*state.said.results, *fresh)),
        asked=_done(state.asked, {result.call for result in fresh}),
        jobs=tuple(each for each in state.jobs if each is not job),
        spent_s=state.spent_s + longest_s - state.longest_s,
        longest_s=longest_s,
    )


def take_answers(state: Calling, event: HoldAnswered) -> Calling:
    """Take what a person, or time, decided; the state itself when it knew all that."""
    answers = {answer.call: answer for answer in event.answers}
    asked: list[Asked] = []
    results: list[CallResult] = []
    for call in state.asked:
        answer = answers.get(call.id)
        if call.do != "hold" or (answer is None and not event.expired):
            asked.append(call)
            continue
        refusal = _refusal(call, answer, event.hold)
        if refusal is not None:
            asked.append(msgspec.structs.replace(call, do="done"))
            results.append(CallResult(call=call.id, error=refusal))
        else:
            asked.append(_approved(call, answer))
    if tuple(asked) == state.asked:
        return state
    start = state.start
    if event.gateway and state.paused:
        start = msgspec.structs.replace(start, gateway=event.gateway, stream=event.stream)
    elif event.gateway:
        # Whoever asked still waits, and hears what is sent to its own gateway; whoever answers hears it anywhere.
        start = msgspec.structs.replace(start, stream=start.stream or event.stream)
    jobs = _jobs(
        state.said.step,
        [new for new, old in zip(asked, state.asked, strict=True) if new is not old],
        first=state.jobs_made,
    )
    return msgspec.structs.replace(
        state,
        start=start,
        said=msgspec.structs.replace(state.said, results=(*state.said.results, *results), texts=event.texts),
        asked=tuple(asked),
        jobs=(*state.jobs, *jobs),
        jobs_made=state.jobs_made + len(jobs),
        # Nothing runs beside them that could be longer.
        longest_s=0.0 if state.paused else state.longest_s,
    )


def following(state: Calling) -> Generating:
    """Return the step after one whose calls all have results."""
    return Generating(
        start=state.start,
        ordinal=state.ordinal,
        durable=state.durable,
        held=state.held,
        billed=state.billed,
        past=state.past,
        steps=(*state.steps, state.said),
        usage=state.usage,
        spent_s=state.spent_s,
        timings=state.timings,
        shown=state.shown,
        calls_made=state.calls_made,
        step=state.said.step + 1,
        attempt=1,
    )


def add_usage(before: Usage, more: Usage) -> Usage:
    """Add token counts."""
    return Usage(
        input_tokens=before.input_tokens + more.input_tokens,
        output_tokens=before.output_tokens + more.output_tokens,
        cached_tokens=before.cached_tokens + more.cached_tokens,
        reasoning_tokens=before.reasoning_tokens + more.reasoning_tokens,
    )


def add_timings(before: StepTimings, more: StepTimings) -> StepTimings:
    """Add times; the first token is the first step's."""
    return StepTimings(
        queued_ms=round(before.queued_ms + more.queued_ms, 3),
        first_token_ms=more.first_token_ms if before.first_token_ms is None else before.first_token_ms,
        total_ms=round(before.total_ms + more.total_ms, 3),
        start_queued_ms=round(before.start_queued_ms + more.start_queued_ms, 3),
        orchestrator_ms=round(before.orchestrator_ms + more.orchestrator_ms, 3),
        runner_ms=round(before.runner_ms + more.runner_ms, 3),
    )


def _jobs(step: int, asked: Iterable[Asked], *, first: int) -> tuple[Job, ...]:
    """Put calls that may run into one job for each pool."""
    by_pool: dict[str, list[str]] = {}
    for call in asked:
        if call.do == "run":
            by_pool.setdefault(call.pool, []).append(call.id)
    return tuple(
        Job(kind="tool", step=step, index=first + number, pool=pool, calls=tuple(ids))
        for number, (pool, ids) in enumerate(by_pool.items())
    )


def _done(asked: Sequence[Asked], ids: set[str]) -> tuple[Asked, ...]:
    return tuple(msgspec.structs.replace(call, do="done") if call.id in ids else call for call in asked)


def _refusal(call: Asked, answer: Answered | None, hold: str) -> ErrorInfo | None:
    """Say why a held call does not run; what a person has denied, or left undecided, names the approval."""
    if answer is None:
        return msgspec.structs.replace(EXPIRED, approval=hold)
    if (answer.sha256, answer.name, answer.version) != (call.sha256, call.name, call.version):
        return ALTERED
    if answer.approved:
        return None
    words = f"A person denied the call: {answer.reason}" if answer.reason else "A person denied the call"
    return ErrorInfo(code=ErrorCode.TOOL_DENIED, message=words, approval=hold)


def _approved(call: Asked, answer: Answered | None) -> Asked:
    if answer is None or answer.arguments is None:
        return msgspec.structs.replace(call, do="run")
    return msgspec.structs.replace(call, do="run", arguments=answer.arguments, sha256=answer.edited_sha256, edited=True)


def _with_edit(result: CallResult, *, edited: bool) -> CallResult:
    """Tell the model when something else ran than what it asked for."""
    if not edited:
        return result
    # Not which: what a person writes may hold what nobody else is shown.
    note = "A person changed the arguments before approving the call."
    if result.error is not None:
        error = msgspec.structs.replace(result.error, message=f"{note} {result.error.message}")
        return msgspec.structs.replace(result, error=error)
    return msgspec.structs.replace(result, text=f"{note} Result: {result.text}")
