"""What `GET /v1/executions/{id}/stream` tells, event by event; `type` says which one it is."""

from typing import Literal

from msgspec import Struct

from kitemesh_contracts.content import FinishReason
from kitemesh_gateway.dialects.native_answers import ExecutionStatus, FailureOut, UsageOut


class Started(Struct, frozen=True, kw_only=True, tag="turn.started"):
    """The first event.

    Attributes:
        request_id: `metadata.request_id`, else the id of the request that began it.
        model: As the request named it.
        created_at: ISO 8601 in UTC.

    """

    execution_id: str
    request_id: str
    conversation_id: str | None
    model: str
    created_at: str


class TextAdded(Struct, frozen=True, kw_only=True, tag="text.delta"):
    """More of a step's answer."""

    step: int
    text: str


class ReasoningAdded(Struct, frozen=True, kw_only=True, tag="reasoning.delta"):
    """More of a step's reasoning."""

    step: int
    text: str


class CallRequested(Struct, frozen=True, kw_only=True, tag="call.requested"):
    """The model begins to call a tool. Told while it happens; the last event has every call that counts."""

    step: int
    tool_execution_id: str
    name: str


class OpenCall(Struct, frozen=True, kw_only=True):
    """A call that somebody outside must see to.

    Attributes:
        arguments: JSON text; for a decision with secrets masked.

    """

    tool_execution_id: str
    name: str
    arguments: str


class MadeCall(Struct, frozen=True, kw_only=True):
    """A call that this server has run, or refused."""

    step: int
    tool_execution_id: str
    name: str
    status: Literal["running", "completed", "failed", "denied", "cancelled", "outcome_unknown"]


class Held(Struct, frozen=True, kw_only=True, tag="turn.held"):
    """The last event of a stream whose turn waits for a person; what it says afterwards is a new stream's.

    Attributes:
        expires_at: When the calls count as denied, ISO 8601 in UTC.
        to_decide: `POST /v1/approvals/{id}/decide` takes their ids.
        tool_calls: Of the steps before.

    """

    approval_id: str
    expires_at: str
    to_decide: tuple[OpenCall, ...]
    tool_calls: tuple[MadeCall, ...]
    usage: UsageOut


class Ended(Struct, frozen=True, kw_only=True, tag="turn.ended", omit_defaults=True):
    """The last event of a stream whose turn has ended.

    Attributes:
        error: Why it failed or was cancelled; there is nothing else then.
        to_run: Calls of the caller's own tools.
        tool_calls: Of all steps.
        stored: Only ever `false`: the answer could not be stored.

    """

    status: ExecutionStatus
    error: FailureOut | None = None
    finish_reason: FinishReason | None = None
    usage: UsageOut | None = None
    to_run: tuple[OpenCall, ...] = ()
    tool_calls: tuple[MadeCall, ...] = ()
    stored: bool = True


class Broken(Struct, frozen=True, kw_only=True, tag="error"):
    """The last event of a stream that could not be completed, whatever became of its turn: it has no `id` line."""

    error: FailureOut
    request_id: str


Event = Started | TextAdded | ReasoningAdded | CallRequested | Held | Ended | Broken
EVENTS = (Started, TextAdded, ReasoningAdded, CallRequested, Held, Ended, Broken)
