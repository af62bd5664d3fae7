"""From an agent's rows to the page that its clients read. Pure; the texts of large results and the holds are given."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw

from kitemesh_contracts.content import CallResult, ToolCall
from kitemesh_contracts.deltas import result_delta
from kitemesh_contracts.errors import MEANINGS, ErrorCode
from kitemesh_gateway.dialects.agents_answers import HistoryOut, MetaOut, RowOut, call_out
from kitemesh_gateway.instants import iso
from kitemesh_runtime.catalog_tools import Tool
from kitemesh_runtime.holds import Hold
from kitemesh_runtime.rows import Row, RowPage
from kitemesh_runtime.secret_arguments import mask

GONE: Final = "(The result is not kept any more.)"
_INTERNAL: Final = "It failed for an internal reason"
_ALL_SECRET: Final[Mapping[str, Any]] = {"additionalProperties": {"writeOnly": True}}
"""Of a tool that is not known any more, nobody can say what may be shown."""


def history_out(
    page: RowPage, total: int, *, tools: Mapping[str, Tool], texts: Mapping[str, str], holds: Mapping[str, Hold]
) -> HistoryOut:
    """Render a page.

    Args:
        page: The rows.
        total: All there are.
        tools: Say what is secret in arguments.
        texts: Of the blobs that results name, as far as they are kept.
        holds: What rows wait for, by id.

    """
    return HistoryOut(
        messages=tuple(_row(row, tools, texts, holds) for row in page.rows),
        meta=MetaOut(total=total, has_more=page.has_more),
    )


def blobs_of(rows: Iterable[Row]) -> list[str]:
    """List the blobs that results of rows are in."""
    return [row.result.blob for row in rows if row.result is not None and row.result.blob is not None]


def holds_of(rows: Iterable[Row]) -> list[str]:
    """List the holds that rows wait for."""
    return [row.hold for row in rows if row.hold is not None]


def _row(row: Row, tools: Mapping[str, Tool], texts: Mapping[str, str], holds: Mapping[str, Hold]) -> RowOut:
    content = row.text if row.result is None else _told(row.result, texts)
    out = RowOut(
        id=row.id,
        role=row.role,
        content=content,
        conversation_id=row.conversation,
        created_at=iso(row.at_s),
        metadata=Raw(row.details.encode()) if row.details else UNSET,
        tool_call_id=UNSET if row.result is None else row.result.call,
    )
    if row.role != "assistant":
        return out
    hold = holds.get(row.hold or "")
    calls = tuple(call_out(call, _shown(call, tools, hold)) for call in row.calls)
    return msgspec.structs.replace(
        out,
        tool_calls=calls or None,
        approval_id=UNSET if hold is None else hold.id,
        expires_at=UNSET if hold is None else iso(hold.expires_at_s),
    )


def _shown(call: ToolCall, tools: Mapping[str, Tool], hold: Hold | None) -> str:
    """Return a call's arguments as they may be shown."""
    for held in () if hold is None else hold.calls:
        if held.id == call.id:
            return held.shown
    try:
        values = msgspec.json.decode(call.arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        values = None
    if not isinstance(values, dict):
        # What is no object cannot be told apart from a secret.
        return "{}"
    tool = tools.get(call.name)
    masked = (
        mask(values, _ALL_SECRET, frozenset())
        if tool is None
        else mask(values, tool.parameters, frozenset(tool.secret_arguments))
    )
    return msgspec.json.encode(masked, order="sorted").decode()


def _told(result: CallResult, texts: Mapping[str, str]) -> str:
    """Say what came of a call, as the model was told, cut as it is in streams."""
    error = result.error
    if error is not None:
        is_internal = MEANINGS[error.code].status == MEANINGS[ErrorCode.INTERNAL].status
        return f"Error ({error.code.value}): {_INTERNAL if is_internal else error.message}"
    if result.blob is not None:
        whole = result.text + texts[result.blob] if result.blob in texts else GONE
        return result_delta(CallResult(call=result.call, text=whole)).text
    return result_delta(result).text
