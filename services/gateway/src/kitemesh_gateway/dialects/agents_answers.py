"""What `agents` answers: bodies and events as structs, so that `/openapi.json` shows what is really encoded.

Times are ISO 8601 in UTC.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from kitemesh_contracts.content import ToolCall
from kitemesh_runtime.rows import ROW_MAX

RowId = Annotated[int, Meta(ge=1, le=ROW_MAX)]
Metadata = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]


class FunctionOut(Struct, frozen=True, kw_only=True):
    """A function and its arguments: JSON text, secrets masked."""

    name: str
    arguments: str


class CallOut(Struct, frozen=True, kw_only=True, tag_field="type", tag="function"):
    """A tool call; `id` is its execution id."""

    id: str
    function: FunctionOut


class AnswerOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An answer.

    Attributes:
        id: Its number in the agent's history.
        content: Null where calls wait for a person.
        tool_calls: Those calls.
        approval_id: What `POST /v1/approvals/{id}/decide` takes; the rest of the turn is then in the history.
        expires_at: When the calls count as denied.

    """

    id: RowId
    role: Literal["assistant"]
    content: str | None
    tool_calls: tuple[CallOut, ...] | None
    conversation_id: str | None
    created_at: str
    approval_id: str | UnsetType = UNSET
    expires_at: str | UnsetType = UNSET


class RowOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row of an agent's history.

    Attributes:
        content: Null beside tool calls: what was said beside them is part of the turn's answer, its last row.
        tool_calls: Of an assistant's row only, and null where it has none.
        tool_call_id: Of a tool's row: the call that it is the result of.
        metadata: As it came with the message.
        approval_id: The calls wait for a person.
        expires_at: When they count as denied.

    """

    id: RowId
    role: Literal["user", "assistant", "tool"]
    content: str | None
    conversation_id: str | None
    created_at: str
    tool_calls: tuple[CallOut, ...] | UnsetType | None = UNSET
    tool_call_id: str | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    approval_id: str | UnsetType = UNSET
    expires_at: str | UnsetType = UNSET


class MetaOut(Struct, frozen=True, kw_only=True):
    """What a page is a part of.

    Attributes:
        total: All rows of the agent, or of the conversation that was asked for.
        has_more: There are others in the direction of the page: older ones, or with `after` newer ones.

    """

    total: int
    has_more: bool


class HistoryOut(Struct, frozen=True, kw_only=True):
    """A page of an agent's history, in the order of the ids."""

    messages: tuple[RowOut, ...]
    meta: MetaOut


class ClearedOut(Struct, frozen=True, kw_only=True):
    """How many rows were removed."""

    success: Literal[True]
    deleted: int


class Started(Struct, frozen=True, kw_only=True, tag_field="type", tag="start"):
    """The first event; `id` is that of the row that the answer will be."""

    id: RowId


class Added(Struct, frozen=True, kw_only=True, tag_field="type", tag="delta"):
    """More of the answer."""

    content: str


class Done(Struct, frozen=True, kw_only=True, tag_field="type", tag="done"):
    """The last event of a stream that is complete, or whose calls wait for a person."""

    message: AnswerOut


class Failed(Struct, frozen=True, kw_only=True, tag_field="type", tag="error"):
    """The last event of a stream that could not finish."""

    message: str


Event = Started | Added | Done | Failed


def call_out(call: ToolCall, arguments: str) -> CallOut:
    """Render a call.

    Args:
        call: As the model made it.
        arguments: As they may be shown.

    """
    return CallOut(id=call.id, function=FunctionOut(name=call.name, arguments=arguments))
