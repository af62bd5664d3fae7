"""What the native routes answer, field by field. Times are ISO 8601 in UTC."""

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct, field

Arguments = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]


class DecisionOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was decided of a call.

    Attributes:
        edited: It runs with other arguments than the model's.
        edited_arguments: Those, secrets masked.
        by: The key's id; empty for a request without a credential.
        from_: The address that it came from.

    """

    approved: bool
    edited: bool
    by: str
    from_: str = field(name="from")
    at: str
    reason: str = ""
    edited_arguments: Arguments | None = None


class HeldCallOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call exactly as it will run, as far as it may be shown.

    Attributes:
        sentence: The call for people.
        arguments: Secrets masked.
        sha256: Of the arguments as they are.
        tool_version: SHA-256 of the tool's definition; under another one the call does not run.
        effect: `safe` may run any number of times, `keyed` again under the same key, `once` never a second time.
        decision: Absent as long as nobody decided it.

    """

    tool_execution_id: str
    name: str
    sentence: str
    arguments: Arguments
    sha256: str
    tool_version: str
    effect: Literal["safe", "keyed", "once"]
    decision: DecisionOut | None = None


class AuditOut(Struct, frozen=True, kw_only=True):
    """Something that was done to an approval.

    Attributes:
        what: Such as `approval.decided`.
        by: The key's id; empty where nobody did it, or somebody without a key.
        from_: The address that it came from.
        calls: By tool execution id: `approved`, `denied` or `edited`.

    """

    what: str
    at: str
    by: str
    from_: str = field(name="from")
    calls: dict[str, str]
    reason: str


class ApprovalOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Calls of one step that wait for a person, or did.

    Attributes:
        scope: What a key needs to decide it.
        decide: `batch`: one answer must decide every call.
        reason: Why it was cancelled.
        audit: What was done to it, oldest first; not in lists.

    """

    id: str
    status: Literal["open", "decided", "expired", "cancelled"]
    execution_id: str
    conversation_id: str | None
    model: str
    agent: str | None
    created_at: str
    expires_at: str
    scope: Literal["chat", "approve", "admin"]
    decide: Literal["each", "batch"]
    calls: tuple[HeldCallOut, ...]
    reason: str = ""
    audit: tuple[AuditOut, ...] | None = None


class ApprovalPage(Struct, frozen=True, kw_only=True):
    """Approvals, newest first; a page may hold fewer than asked for, or none, and still be continued.

    Attributes:
        next_cursor: Continues the list; `null` at its end.

    """

    data: tuple[ApprovalOut, ...]
    next_cursor: str | None


class FailureOut(Struct, frozen=True, kw_only=True):
    """Why something has no result."""

    code: str
    message: str


class StoredResult(Struct, frozen=True, kw_only=True):
    """Stands for a result that is too long to be shown here."""

    blob: Literal[True] = True


class CallOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool call of an execution.

    Attributes:
        status: `client`: the caller's own tool, run by the caller. `unfinished`: the execution ended before it did.
        result: What the model was told.

    """

    id: str
    name: str
    status: Literal[
        "held", "running", "completed", "failed", "denied", "cancelled", "outcome_unknown", "client", "unfinished"
    ]
    result: str | StoredResult | None = None
    error: FailureOut | None = None


class StepOut(Struct, frozen=True, kw_only=True):
    """One model call and what came of it."""

    step: int
    text: str
    tool_calls: tuple[CallOut, ...]


class UsageOut(Struct, frozen=True, kw_only=True):
    """Tokens of all model calls so far."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int


class PendingApproval(Struct, frozen=True, kw_only=True):
    """What a held execution waits for."""

    id: str
    expires_at: str


ExecutionStatus = Literal["queued", "running", "held", "completed", "failed", "cancelled", "expired"]


class ListedExecution(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A turn in a list.

    Attributes:
        status: `expired`: it took longer than it may.
        model: As the request named it.
        error: Why it failed or was cancelled.

    """

    id: str
    status: ExecutionStatus
    mode: Literal["classic", "durable"]
    conversation_id: str | None
    model: str
    created_at: str
    updated_at: str
    usage: UsageOut
    error: FailureOut | None = None


class ExecutionOut(ListedExecution, frozen=True, kw_only=True, omit_defaults=True):
    """A turn.

    Attributes:
        status: `expired`: it took longer than it may.
        model: As the request named it.
        error: Why it failed or was cancelled.
        approval: While it is held.

    """

    steps: tuple[StepOut, ...]
    approval: PendingApproval | None = None


class ExecutionPage(Struct, frozen=True, kw_only=True):
    """Executions, newest first; a page may hold fewer than asked for, or none, and still be continued.

    Attributes:
        next_cursor: Continues the list; `null` at its end.

    """

    data: tuple[ListedExecution, ...]
    next_cursor: str | None


class AcceptedOut(Struct, frozen=True, kw_only=True):
    """A run that goes on without its client.

    Attributes:
        status: How it stood when it was accepted; `GET /v1/executions/{id}` shows how it stands.
        model: As the request named it.

    """

    id: str
    status: Literal["queued"]
    mode: Literal["durable"]
    conversation_id: str | None
    model: str
    created_at: str


class DispatchedCall(Struct, frozen=True, kw_only=True):
    """A call that had begun before the cancel, and may have its effect.

    Attributes:
        state: `unknown`: nobody can tell whether it had its effect.

    """

    tool_execution_id: str
    name: str
    state: Literal["dispatched", "finished", "unknown"]


class CancelOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Answer to a cancel.

    Attributes:
        status: `cancelled`, or how it had ended before.
        calls: Calls with an effect that had begun.

    """

    id: str
    status: ExecutionStatus
    calls: tuple[DispatchedCall, ...] = ()
