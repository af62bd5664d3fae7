"""The native routes' own words: problem details, and what is stored in public terms."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from kitemesh_contracts.content import AssistantMessage, Step, ToolCall
from kitemesh_contracts.errors import MEANINGS, ErrorCode, ErrorInfo
from kitemesh_gateway.dialects.base import Refused
from kitemesh_gateway.dialects.native import Native
from kitemesh_gateway.dialects.native_answers import ExecutionOut
from kitemesh_gateway.dialects.native_rendering import approval_out, execution_out, hold_status
from kitemesh_gateway.instants import iso
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.catalog_tools import Tool
from kitemesh_runtime.holds import HeldCall, Verdict
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.turns import TurnRecord
from unit.gateway.holding import CATALOG, CATALOG_DATA, TENANT, TURN, held_call, hold


def refused(path: str, code: ErrorCode = ErrorCode.APPROVAL_UNKNOWN) -> dict[str, Any]:
    told = Native().refusal(ErrorInfo(code=code, message="why"), Refused("req_1", path))
    assert told.content_type == "application/problem+json"
    body: dict[str, Any] = json.loads(told.body)
    return body


def test_a_refusal_is_a_problem_with_the_error_once_more() -> None:
    assert refused("/v1/approvals/a") == {
        "code": "approval.unknown",
        "detail": "why",
        "instance": "/v1/approvals/a",
        "requestId": "req_1",
        "status": 404,
        "title": "Not Found",
        "error": {"code": "approval.unknown", "message": "why"},
    }


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_can_be_told(code: ErrorCode) -> None:
    assert refused("/", code)["status"] == MEANINGS[code].status


def test_a_path_that_is_no_text_or_too_long_is_told_as_far_as_it_goes() -> None:
    assert refused("/\udc80\n" + "x" * 1000)["instance"] == "/?\n" + "x" * 253


def test_times_are_told_to_the_millisecond_in_utc() -> None:
    assert iso(1_700_000_000.25) == "2023-11-14T22:13:20.250Z"


def test_a_hold_that_has_run_out_is_expired_before_anybody_noted_it() -> None:
    waiting = hold(expires_at_s=100.0)
    assert [hold_status(waiting, now_s) for now_s in (99.9, 100.0)] == ["open", "expired"]
    assert hold_status(hold(status="decided", expires_at_s=100.0), 200) == "decided"


def decided(tools: dict[str, Tool]) -> dict[str, Any]:
    call = held_call()
    verdict = Verdict(approved=True, arguments='{"amount":3,"pin":"77"}', sha256="s", by="k", origin="ip", at_s=1.0)
    changed = HeldCall(
        **{name: getattr(call, name) for name in call.__struct_fields__ if name != "verdict"}, verdict=verdict
    )
    (shown,) = approval_out(hold(calls=(changed,)), now_s=0, tools=tools).calls
    assert shown.decision is not None
    return {"edited": shown.decision.edited, "arguments": shown.decision.edited_arguments}


def test_edited_arguments_are_shown_masked_and_not_at_all_by_another_definition() -> None:
    tools = dict(CATALOG.tools)
    shown = decided(tools)
    assert (shown["edited"], bytes(shown["arguments"])) == (True, b'{"amount":3,"pin":"***"}')
    assert decided({}) == {"edited": True, "arguments": None}
    refund = {**CATALOG_DATA["tools"]["refund"], "parameters": {"type": "object"}, "secret_arguments": ()}
    other = Catalog.model_validate({**CATALOG_DATA, "tools": {"refund": refund}})
    assert decided(dict(other.tools)) == {"edited": True, "arguments": None}


def live(**fields: Any) -> ExecutionOut:
    values: dict[str, Any] = {"status": "running", "mode": "durable", "model": "m", "state": b"", "version": 1}
    return execution_out(LiveTurn(id=TURN, tenant=TENANT, **{**values, **fields}), None)


def ended(**fields: Any) -> ExecutionOut:
    values: dict[str, Any] = {"status": "completed", "mode": "durable", "model": "m"}
    return execution_out(TurnRecord(id=TURN, tenant=TENANT, **{**values, **fields}), None)


@pytest.mark.parametrize(
    ("status", "shown"),
    [("queued", "queued"), ("running", "running"), ("held", "held"), ("cancelling", "running")],
)
def test_a_live_turn_stands_in_public_words(status: str, shown: str) -> None:
    assert live(status=status).status == shown


def test_calls_of_a_live_turn_without_a_result_are_running() -> None:
    step = Step(step=1, calls=(ToolCall(id="c", name="t", arguments="{}"),))
    assert live(steps=(step,)).steps[0].tool_calls[0].status == "running"


def test_the_answer_is_the_last_step_and_is_shown_once() -> None:
    assert ended().steps == ()
    (only,) = ended(answer=AssistantMessage(text="Hi")).steps
    assert (only.step, only.text) == (1, "Hi")
    spent = Step(step=3, text="Half", calls=(ToolCall(id="c", name="t", arguments="{}"),))
    assert [step.step for step in ended(steps=(spent,), answer=AssistantMessage(text="Half")).steps] == [3]
    assert [step.step for step in ended(steps=(spent,), answer=AssistantMessage(text="More")).steps] == [3, 4]


def test_edited_arguments_keep_the_masks_of_the_hold_when_the_catalog_calls_less_secret() -> None:
    data = {**CATALOG_DATA, "tools": {"refund": {**CATALOG_DATA["tools"]["refund"], "secret_arguments": []}}}
    tools = Catalog.model_validate(data).tools
    call = held_call()
    assert tools["refund"].version() == call.version
    verdict = Verdict(approved=True, arguments='{"amount":3,"pin":"1234"}')
    (shown,) = approval_out(hold(calls=(replace(call, verdict=verdict),)), now_s=0, tools=tools).calls
    assert shown.decision is not None
    assert shown.decision.edited_arguments is not None
    assert bytes(shown.decision.edited_arguments) == b'{"amount":3,"pin":"***"}'
