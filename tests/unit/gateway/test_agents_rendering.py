"""Rows as the clients of an agent's history read them."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from kitemesh_contracts.codec import encode
from kitemesh_contracts.content import CallResult, ToolCall
from kitemesh_contracts.deltas import RESULT_SHOWN_CHARS
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_gateway.dialects.agents_rendering import GONE, blobs_of, history_out, holds_of
from kitemesh_runtime.catalog_tools import Tool
from kitemesh_runtime.holds import Hold
from kitemesh_runtime.rows import Row, RowPage
from unit.gateway.holding import CATALOG, held_call, hold

SHARED: dict[str, Any] = {"turn": "t", "conversation": "c", "at_s": 1_790_000_000.0}


def shown(
    *rows: Row, texts: dict[str, str] | None = None, holds: dict[str, Hold] | None = None
) -> list[dict[str, Any]]:
    tools: dict[str, Tool] = dict(CATALOG.tools)
    page = history_out(RowPage(rows, has_more=True), 7, tools=tools, texts=texts or {}, holds=holds or {})
    body = json.loads(encode(page))
    assert body["meta"] == {"total": 7, "has_more": True}
    return list(body["messages"])


def calling(name: str, arguments: str, **more: Any) -> Row:
    return Row(id=2, role="assistant", calls=(ToolCall(id="a", name=name, arguments=arguments),), **SHARED, **more)


def arguments_of(row: Row, **more: Any) -> Any:
    (call,) = shown(row, **more)[0]["tool_calls"]
    return json.loads(call["function"]["arguments"])


def test_each_kind_of_row_has_its_own_fields() -> None:
    asked = Row(id=1, role="user", text="Hello!", details='{"source":"web"}', **SHARED)
    plain = Row(id=2, role="user", text="", **SHARED)
    answer = Row(id=128, role="assistant", text="Hi", **SHARED)
    tool = Row(id=3, role="tool", result=CallResult(call="a", text='{"results":[]}'), **SHARED)
    shared = {"conversation_id": "c", "created_at": "2026-09-21T14:13:20.000Z"}
    assert shown(asked, plain, answer, tool) == [
        {"id": 1, "role": "user", "content": "Hello!", "metadata": {"source": "web"}, **shared},
        {"id": 2, "role": "user", "content": "", **shared},
        {"id": 128, "role": "assistant", "content": "Hi", "tool_calls": None, **shared},
        {"id": 3, "role": "tool", "content": '{"results":[]}', "tool_call_id": "a", **shared},
    ]


@pytest.mark.requirement("agents:secrets-are-masked")
def test_arguments_are_shown_without_secrets_and_those_of_an_unknown_tool_not_at_all() -> None:
    (name, *_) = CATALOG.tools
    assert arguments_of(calling(name, '{"id": "x", "password": "hunter2"}')) == {"id": "x", "password": "***"}
    assert arguments_of(calling("gone", '{"id": "x", "more": {"a": 1}}')) == {"id": "***", "more": "***"}
    for text in ("", "[1]", "{", '"hunter2"', "[" * 100_000):
        assert arguments_of(calling(name, text)) == {}


def test_a_held_call_is_shown_as_it_was_held_and_says_what_it_waits_for() -> None:
    call = replace(held_call("a"), shown='{"code":"***"}')
    waiting = hold(calls=(call,), expires_at_s=1_790_000_600.0)
    row = calling("gone", '{"code": "hunter2"}', hold=waiting.id)
    assert arguments_of(row, holds={waiting.id: waiting}) == {"code": "***"}
    (message,) = shown(row, holds={waiting.id: waiting})
    assert (message["content"], message["approval_id"]) == (None, waiting.id)
    assert message["expires_at"] == "2026-09-21T14:23:20.000Z"
    (message,) = shown(row)
    assert "approval_id" not in message
    assert holds_of([row, calling("f", "{}")]) == [waiting.id]


def test_a_result_is_what_the_model_was_told_and_cut_where_it_is_long() -> None:
    long = "x" * (RESULT_SHOWN_CHARS + 1)
    results = [
        CallResult(call="a", error=ErrorInfo(code=ErrorCode.TOOL_DENIED, message="Nobody is banned here.")),
        CallResult(call="a", error=ErrorInfo(code=ErrorCode.INTERNAL, message="a path of this machine")),
        CallResult(call="a", blob="kept"),
        CallResult(call="a", blob="gone"),
        CallResult(call="a", text=long),
    ]
    rows = [Row(id=n, role="tool", result=result, **SHARED) for n, result in enumerate(results, 3)]
    assert blobs_of(rows) == ["kept", "gone"]
    contents = [message["content"] for message in shown(*rows, texts={"kept": long})]
    assert contents[0] == "Error (tool.denied): Nobody is banned here."
    assert contents[1] == "Error (internal): It failed for an internal reason"
    assert contents[2] == contents[4]
    assert contents[2].startswith("x" * RESULT_SHOWN_CHARS + "\n(")
    assert contents[3] == GONE
