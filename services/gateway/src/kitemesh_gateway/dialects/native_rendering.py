"""From what is stored to what the native routes answer. Pure; time is passed in."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, cast

from msgspec import Raw
from msgspec.json import decode, encode

from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.content import AssistantMessage, CallResult, Step, ToolCall, Usage
from kitemesh_contracts.errors import MEANINGS, ErrorCode, ErrorInfo
from kitemesh_gateway.dialects.native_answers import (
    AcceptedOut,
    ApprovalOut,
    AuditOut,
    CallOut,
    DecisionOut,
    ExecutionOut,
    ExecutionStatus,
    FailureOut,
    HeldCallOut,
    ListedExecution,
    PendingApproval,
    StepOut,
    StoredResult,
    UsageOut,
)
from kitemesh_gateway.instants import iso
from kitemesh_runtime.audit import AuditRow
from kitemesh_runtime.call_sentences import MASK, mask_arguments
from kitemesh_runtime.catalog_tools import Tool
from kitemesh_runtime.holds import HeldCall, Hold, HoldStatus, Verdict
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.turns import TurnRecord

CallStatus = Literal[
    "held", "running", "completed", "failed", "denied", "cancelled", "outcome_unknown", "client", "unfinished"
]

_ENDINGS: Final[Mapping[ErrorCode, Literal["denied", "cancelled", "outcome_unknown"]]] = {
    ErrorCode.TOOL_DENIED: "denied",
    ErrorCode.TOOL_CANCELLED: "cancelled",
    ErrorCode.TOOL_UNCERTAIN: "outcome_unknown",
}
_STORED: Final[Mapping[ExecutionStatus, tuple[str, ...]]] = {
    "running": ("running", "cancelling"),
    "expired": ("failed",),
}
_INTERNAL: Final = "It failed for an internal reason"


def hold_status(hold: Hold, now_s: float) -> HoldStatus:
    """Say how a hold stands: one that has run out is expired, also where nobody has noted it yet."""
    return "expired" if hold.status == "open" and now_s >= hold.expires_at_s else hold.status


def approval_out(
    hold: Hold, *, now_s: float, tools: Mapping[str, Tool], audit: Iterable[AuditRow] | None = None
) -> ApprovalOut:
    """Render a hold; its audit is left out when it is not given."""
    return ApprovalOut(
        id=hold.id,
        status=hold_status(hold, now_s),
        execution_id=hold.turn,
        conversation_id=hold.conversation,
        model=hold.model,
        agent=hold.agent,
        created_at=iso(hold.created_at_s),
        expires_at=iso(hold.expires_at_s),
        scope=cast("Literal['chat', 'approve', 'admin']", hold.scope),
        decide="batch" if hold.together else "each",
        calls=tuple(_held_call(call, tools) for call in hold.calls),
        reason=hold.reason,
        audit=None if audit is None else tuple(_deed(row) for row in audit),
    )


def execution_out(turn: LiveTurn | TurnRecord, hold: Hold | None) -> ExecutionOut:
    """Render a turn.

    Args:
        turn: Live or ended.
        hold: The one that it waits for.

    """
    listed = listed_execution(turn)
    return ExecutionOut(
        **{name: getattr(listed, name) for name in listed.__struct_fields__},
        steps=_steps(turn.steps, hold=hold, is_live=True) if isinstance(turn, LiveTurn) else _ended_steps(turn),
        approval=None if hold is None else PendingApproval(id=hold.id, expires_at=iso(hold.expires_at_s)),
    )


def listed_execution(turn: LiveTurn | TurnRecord) -> ListedExecution:
    """Render a turn as it stands in a list."""
    if isinstance(turn, LiveTurn):
        updated_at_s, error = turn.updated_at_s, None
    else:
        updated_at_s, error = turn.ended_at_ms / 1000, turn.error
    return ListedExecution(
        id=turn.id,
        status=execution_status(turn),
        mode=turn.mode,
        conversation_id=turn.conversation,
        model=turn.model,
        created_at=iso(turn.accepted_at_ms / 1000),
        updated_at=iso(updated_at_s),
        usage=usage_out(turn.usage),
        error=None if error is None else failure_out(error),
    )


def accepted_out(turn: StartTurn | LiveTurn | TurnRecord) -> AcceptedOut:
    """Say that a turn was accepted, in the same words whenever it is said."""
    return AcceptedOut(
        id=turn.turn if isinstance(turn, StartTurn) else turn.id,
        status="queued",
        mode="durable",
        conversation_id=turn.conversation,
        model=turn.route.requested if isinstance(turn, StartTurn) else turn.model,
        created_at=iso(turn.accepted_at_ms / 1000),
    )


def stored_statuses(status: ExecutionStatus | None) -> tuple[str, ...]:
    """Return the stored words that may mean a public one; none for all."""
    return () if status is None else _STORED.get(status, (status,))


def execution_status(turn: LiveTurn | TurnRecord) -> ExecutionStatus:
    """Say how a turn stands, in public words."""
    if isinstance(turn, LiveTurn):
        return "running" if turn.status == "cancelling" else turn.status
    if turn.status == "failed" and turn.error is not None and turn.error.code is ErrorCode.TURN_TIMEOUT:
        return "expired"
    return turn.status


def _held_call(call: HeldCall, tools: Mapping[str, Tool]) -> HeldCallOut:
    return HeldCallOut(
        tool_execution_id=call.id,
        name=call.name,
        sentence=call.sentence,
        arguments=Raw(call.shown.encode()),
        sha256=call.sha256,
        tool_version=call.version,
        effect=call.effect,
        decision=None if call.verdict is None else _decision(call, call.verdict, tools.get(call.name)),
    )


def _decision(call: HeldCall, verdict: Verdict, tool: Tool | None) -> DecisionOut:
    edited = None
    if verdict.arguments is not None and tool is not None and tool.version() == call.version:
        # By another definition something that is secret might be shown.
        masked = _masked_as(decode(call.shown), decode(mask_arguments(tool, verdict.arguments)))
        edited = Raw(encode(masked))
    return DecisionOut(
        approved=verdict.approved,
        edited=verdict.arguments is not None,
        by=verdict.by,
        from_=verdict.origin,
        at=iso(verdict.at_s),
        reason=verdict.reason,
        edited_arguments=edited,
    )


def _masked_as(shown: Any, edited: Any) -> Any:
    """Mask what was masked when the call was held: the catalog may call less secret now."""
    if shown == MASK:
        return MASK
    if isinstance(shown, dict) and isinstance(edited, dict):
        return {name: _masked_as(shown[name], each) if name in shown else each for name, each in edited.items()}
    if isinstance(shown, list) and isinstance(edited, list):
        masked = [_masked_as(*each) for each in zip(shown, edited, strict=False)]
        return masked + edited[len(masked) :]
    return edited


def _deed(row: AuditRow) -> AuditOut:
    return AuditOut(
        what=row.what, at=iso(row.at_s), by=row.by, from_=row.origin, calls=dict(row.calls), reason=row.reason
    )


def _ended_steps(record: TurnRecord) -> tuple[StepOut, ...]:
    answer = record.answer or AssistantMessage()
    mine = frozenset(call.id for call in answer.calls)
    steps = record.steps
    last = steps[-1] if steps else None
    if last is None or answer.text != last.text or not mine <= {call.id for call in last.calls}:
        step = Step(step=last.step + 1 if last is not None else 1, text=answer.text, calls=answer.calls)
        steps = (*steps, step) if answer.text or mine else steps
    return _steps(steps, mine=mine)


def _steps(
    steps: Iterable[Step], *, hold: Hold | None = None, mine: frozenset[str] = frozenset(), is_live: bool = False
) -> tuple[StepOut, ...]:
    held = {call.id for call in hold.calls if call.verdict is None} if hold is not None else set[str]()
    rendered = []
    for step in steps:
        results = {result.call: result for result in step.results}
        calls = []
        for call in step.calls:
            result = results.get(call.id)
            if result is not None:
                calls.append(_called(call, result))
                continue
            status: CallStatus = "running" if is_live else "unfinished"
            if call.id in held:
                status = "held"
            elif call.id in mine:
                status = "client"
            calls.append(CallOut(id=call.id, name=call.name, status=status))
        rendered.append(StepOut(step=step.step, text=step.text, tool_calls=tuple(calls)))
    return tuple(rendered)


def made_status(
    result: CallResult | None,
) -> Literal["running", "completed", "failed", "denied", "cancelled", "outcome_unknown"]:
    """Say how a call that is run here stands."""
    if result is None:
        return "running"
    return "completed" if result.error is None else _ENDINGS.get(result.error.code, "failed")


def _called(call: ToolCall, result: CallResult) -> CallOut:
    if result.error is not None:
        return CallOut(id=call.id, name=call.name, status=made_status(result), error=failure_out(result.error))
    shown = result.text if result.blob is None else StoredResult()
    return CallOut(id=call.id, name=call.name, status="completed", result=shown)


def failure_out(error: ErrorInfo) -> FailureOut:
    """Render an error; internal texts stay inside."""
    is_internal = MEANINGS[error.code].status == MEANINGS[ErrorCode.INTERNAL].status
    return FailureOut(code=error.code.value, message=_INTERNAL if is_internal else error.message)


def usage_out(usage: Usage) -> UsageOut:
    """Render token counts."""
    return UsageOut(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )
