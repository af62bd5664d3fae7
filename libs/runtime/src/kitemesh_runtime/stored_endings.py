"""From what the store has of a turn to the closing event of its stream, for a client that missed it. Pure."""

from collections.abc import Sequence

from kitemesh_contracts.content import AssistantMessage, Step, ToolCall
from kitemesh_contracts.deltas import HoldRef, TurnEnded
from kitemesh_runtime.holds import Hold
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.turns import TurnRecord


def ended_from(record: TurnRecord) -> TurnEnded:
    """Return the closing event of a stored turn; a classic one does not know whose attempt its answer was."""
    earlier, last = _parted(record)
    answer = record.answer or AssistantMessage(text=last.text, reasoning=last.reasoning)
    return TurnEnded(
        turn=record.id,
        tenant=record.tenant,
        outcome=record.status,
        step=last.step,
        attempt=last.attempt,
        last=last.last,
        model=record.served_by,
        text=answer.text,
        reasoning=answer.reasoning,
        calls=answer.calls,
        finish=record.finish,
        usage=record.usage,
        error=record.error,
        timings=record.timings,
        earlier=earlier,
        step_calls=step_calls_of(last.calls, answer.calls),
        results=last.results,
        ended_at_ms=record.ended_at_ms,
    )


def held_from(turn: LiveTurn, hold: Hold) -> TurnEnded:
    """Return the closing event of a turn that waits for a person."""
    last = next((step for step in turn.steps if step.step == hold.step), Step(step=hold.step))
    undecided = tuple(
        ToolCall(id=call.id, name=call.name, arguments=call.shown) for call in hold.calls if call.verdict is None
    )
    return TurnEnded(
        turn=turn.id,
        tenant=turn.tenant,
        outcome="held",
        step=last.step,
        attempt=last.attempt,
        last=last.last,
        model=last.model,
        text=last.text,
        reasoning=last.reasoning,
        calls=undecided,
        finish="tool_calls",
        usage=turn.usage,
        earlier=tuple(step for step in turn.steps if step.step < hold.step),
        hold=HoldRef(id=hold.id, expires_at_ms=int(hold.expires_at_s * 1000)),
        step_calls=step_calls_of(last.calls, undecided),
        results=last.results,
    )


def step_calls_of(made: Sequence[ToolCall], told: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
    """Return every call of a step, as a closing event tells it; none if its `calls` has them all.

    Args:
        made: The step's.
        told: Those in `calls`, which may have secrets masked.

    """
    if len(made) == len(told):
        return ()
    masked = {call.id: call for call in told}
    return tuple(masked.get(call.id, call) for call in made)


def _parted(record: TurnRecord) -> tuple[tuple[Step, ...], Step]:
    """Tell the steps before the answer's from its own.

    A turn ends with a step that called tools when it has no answer besides, or when calls of it are the caller's.
    """
    if not record.steps:
        return (), Step(step=1, attempt=record.attempt, last=record.last)
    *before, last = record.steps
    ids = {call.id for call in last.calls}
    if record.answer is None or (record.answer.calls and all(call.id in ids for call in record.answer.calls)):
        return tuple(before), last
    return record.steps, Step(step=last.step + 1, attempt=record.attempt, last=record.last)
