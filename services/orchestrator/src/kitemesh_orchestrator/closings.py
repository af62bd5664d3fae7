"""What is stored of a turn that ends, and the event that closes its stream. Pure."""

from kitemesh_contracts.content import AssistantMessage, ToolCall, Usage
from kitemesh_contracts.deltas import HoldRef, TurnEnded
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_orchestrator.happenings import Finish
from kitemesh_orchestrator.request import NO_TEXTS, Texts, results_of
from kitemesh_orchestrator.states import Accepted, Calling, Ended, Generating, State
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.stored_endings import step_calls_of
from kitemesh_runtime.turns import TurnRecord


def record_of(state: State, finish: Finish, ended_at_ms: int) -> TurnRecord:
    """Return the document that is stored of an ended turn."""
    start = state.start
    # What a step said that called tools is in its step, and nowhere a second time. A last step without calls is the
    # answer, even if nothing was said in it.
    said = finish.calls or (finish.said is None and (finish.text or finish.reasoning or finish.earlier))
    running = state if isinstance(state, Generating | Calling) else None
    durable = start.mode == "durable" or (running is not None and running.durable)
    steps = finish.earlier if finish.said is None else (*finish.earlier, finish.said)
    return TurnRecord(
        id=start.turn,
        tenant=start.tenant,
        status=finish.outcome,
        mode="durable" if running is not None and running.held else start.mode,
        model=start.route.requested,
        conversation=start.conversation,
        ordinal=running.ordinal if running is not None else 0,
        key=start.key,
        agent=start.route.agent,
        served_by=finish.model,
        request=start.request,
        input=start.input,
        answer=AssistantMessage(text=finish.text, reasoning=finish.reasoning, calls=finish.calls) if said else None,
        usage=finish.usage,
        billed=running.billed if running is not None else Usage(),
        error=finish.error,
        finish=finish.finish,
        timings=finish.timings,
        accepted_at_ms=start.accepted_at_ms,
        ended_at_ms=ended_at_ms,
        steps=steps,
        gateway=start.gateway if durable else "",
        dialect=start.dialect,
        include_usage=start.include_usage,
        attempt=finish.attempt if durable else 0,
        last=finish.last if durable else 0,
        prompt=start.prompt,
        message=start.message,
        row=start.row,
        details=start.details,
    )


def record_of_live(live: LiveTurn, ended_at_ms: int) -> TurnRecord:
    """Return the document of a cancelled turn whose state cannot be read: what its live document says by itself."""
    why = f"The turn was cancelled: {live.cancelled or 'on request'}"
    return TurnRecord(
        id=live.id,
        tenant=live.tenant,
        status="cancelled",
        mode=live.mode,
        model=live.model,
        conversation=live.conversation,
        ordinal=live.ordinal,
        key=live.key,
        agent=live.agent,
        request=live.request,
        usage=live.usage,
        billed=live.billed,
        error=ErrorInfo(code=ErrorCode.TURN_CANCELLED, message=why),
        accepted_at_ms=live.accepted_at_ms,
        ended_at_ms=ended_at_ms,
        steps=live.steps,
        gateway=live.gateway,
        dialect=live.dialect,
        include_usage=live.include_usage,
        input=live.input,
        message=live.message,
        row=live.row,
        details=live.details,
    )


def closing_of(
    state: Accepted | Generating | Calling | Ended, finish: Finish, *, stored: bool, store_ms: float, ended_at_ms: int
) -> TurnEnded:
    """Return the event that closes a turn's stream."""
    return TurnEnded(
        turn=state.start.turn,
        tenant=state.start.tenant,
        outcome=finish.outcome,
        step=finish.step,
        attempt=finish.attempt,
        last=finish.last,
        model=finish.model,
        text=finish.text,
        reasoning=finish.reasoning,
        calls=finish.calls,
        finish=finish.finish,
        usage=finish.usage,
        error=finish.error,
        stored=stored,
        timings=finish.timings,
        store_ms=store_ms,
        ended_at_ms=ended_at_ms,
        earlier=finish.earlier,
        step_calls=() if finish.said is None else step_calls_of(finish.said.calls, finish.calls),
        results=finish.said.results if finish.said is not None else (),
        alternatives=finish.alternatives,
        logprobs=finish.logprobs,
    )


def held_closing_of(state: Calling, texts: Texts = NO_TEXTS) -> TurnEnded:
    """Return the event that closes a stream as held: the calls to be decided, secrets masked.

    Args:
        state: The turn.
        texts: Of the step's long results.

    """
    said = state.said
    undecided = tuple(ToolCall(id=call.id, name=call.name, arguments=call.shown) for call in state.undecided)
    assert state.hold is not None  # noqa: S101  only held states are paused
    return TurnEnded(
        turn=state.start.turn,
        tenant=state.start.tenant,
        outcome="held",
        step=said.step,
        attempt=said.attempt,
        last=said.last,
        model=said.model,
        text=said.text,
        reasoning=said.reasoning,
        calls=undecided,
        finish="tool_calls",
        usage=state.usage,
        timings=state.timings,
        earlier=state.steps,
        hold=HoldRef(id=state.hold, expires_at_ms=state.expires_at_ms),
        step_calls=step_calls_of(said.calls, undecided),
        results=results_of(said, texts),
    )
