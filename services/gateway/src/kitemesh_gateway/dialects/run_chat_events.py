"""What the UI message stream tells, event by event; `type` says which one it is.

Clients check every event against their own list, and one that is not on it, or out of order, ends their chat. So there
is none here that is not on the list of the oldest client that is served: AI SDK 6.
"""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

FinishReasonOut = Literal["stop", "length", "content-filter", "tool-calls", "error", "other"]


class MetadataOut(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What the message is kept under, and at a hold what it waits for.

    Attributes:
        conversation_id: Absent when none is kept.
        approval_id: The calls with a request for approval wait for a person; the native routes know it, too. Null in
            what follows a hold, once nothing waits any more, and absent where nothing ever did.
        expires_at: When they count as denied, ISO 8601 in UTC; null and absent as `approval_id` is.
        stored: Only ever `false`: the answer could not be stored.

    """

    execution_id: str
    conversation_id: str | None = None
    approval_id: str | UnsetType | None = UNSET
    expires_at: str | UnsetType | None = UNSET
    stored: bool = True


class Start(Struct, frozen=True, kw_only=True, tag_field="type", tag="start", rename="camel"):
    """The first event; what follows a hold has the id of the message that was held."""

    message_id: str
    message_metadata: MetadataOut


class StartStep(Struct, frozen=True, kw_only=True, tag_field="type", tag="start-step"):
    """A model begins to answer."""


class FinishStep(Struct, frozen=True, kw_only=True, tag_field="type", tag="finish-step"):
    """A model has answered, and what it called has a result or waits for a person."""


class TextStart(Struct, frozen=True, kw_only=True, tag_field="type", tag="text-start"):
    """A piece of text begins."""

    id: str


class TextAdded(Struct, frozen=True, kw_only=True, tag_field="type", tag="text-delta"):
    """More of it."""

    id: str
    delta: str


class TextEnd(Struct, frozen=True, kw_only=True, tag_field="type", tag="text-end"):
    """The piece is complete."""

    id: str


class ReasoningStart(Struct, frozen=True, kw_only=True, tag_field="type", tag="reasoning-start"):
    """A piece of reasoning begins."""

    id: str


class ReasoningAdded(Struct, frozen=True, kw_only=True, tag_field="type", tag="reasoning-delta"):
    """More of it."""

    id: str
    delta: str


class ReasoningEnd(Struct, frozen=True, kw_only=True, tag_field="type", tag="reasoning-end"):
    """The piece is complete."""

    id: str


class InputStart(Struct, frozen=True, kw_only=True, tag_field="type", tag="tool-input-start", rename="camel"):
    """The model begins to call a tool; the id is the execution id."""

    tool_call_id: str
    tool_name: str


class InputAdded(Struct, frozen=True, kw_only=True, tag_field="type", tag="tool-input-delta", rename="camel"):
    """More of the arguments' JSON text; none of a tool that has secret ones."""

    tool_call_id: str
    input_text_delta: str


class InputAvailable(Struct, frozen=True, kw_only=True, tag_field="type", tag="tool-input-available", rename="camel"):
    """The arguments are complete; secret ones are masked."""

    tool_call_id: str
    tool_name: str
    input: Mapping[str, Any]


class InputRefused(Struct, frozen=True, kw_only=True, tag_field="type", tag="tool-input-error", rename="camel"):
    """The call cannot be made."""

    tool_call_id: str
    tool_name: str
    input: Mapping[str, Any] | None
    error_text: str


class ApprovalRequested(
    Struct, frozen=True, kw_only=True, tag_field="type", tag="tool-approval-request", rename="camel"
):
    """The call waits for a person."""

    approval_id: str
    tool_call_id: str


class OutputAvailable(Struct, frozen=True, kw_only=True, tag_field="type", tag="tool-output-available", rename="camel"):
    """What came of the call: an object or an array where the tool gave one, else its text."""

    tool_call_id: str
    output: Any


class OutputDenied(Struct, frozen=True, kw_only=True, tag_field="type", tag="tool-output-denied", rename="camel"):
    """A person denied the call, or nobody approved it in time."""

    tool_call_id: str


class OutputRefused(Struct, frozen=True, kw_only=True, tag_field="type", tag="tool-output-error", rename="camel"):
    """The call failed, or was not allowed."""

    tool_call_id: str
    error_text: str


class OperationOut(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What the server does."""

    type: Literal["step-started", "step-finished", "tool-called", "tool-held", "tool-returned", "tool-failed"]
    step: int
    tool_call_id: str | None = None
    tool_name: str | None = None


class Operation(Struct, frozen=True, kw_only=True, tag_field="type", tag="data-operation"):
    """What the server does, for who asked to be told: no part of the message."""

    data: OperationOut
    transient: bool = True


class Finish(Struct, frozen=True, kw_only=True, tag_field="type", tag="finish", rename="camel"):
    """The last event of a complete answer, or of one that waits for a person."""

    finish_reason: FinishReasonOut
    message_metadata: MetadataOut


class Failed(Struct, frozen=True, kw_only=True, tag_field="type", tag="error", rename="camel"):
    """The last event of an answer that could not be completed."""

    error_text: str
    code: str
    request_id: str


Event = (
    Start
    | StartStep
    | FinishStep
    | TextStart
    | TextAdded
    | TextEnd
    | ReasoningStart
    | ReasoningAdded
    | ReasoningEnd
    | InputStart
    | InputAdded
    | InputAvailable
    | InputRefused
    | ApprovalRequested
    | OutputAvailable
    | OutputDenied
    | OutputRefused
    | Operation
    | Finish
    | Failed
)
