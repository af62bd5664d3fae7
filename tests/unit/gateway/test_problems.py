"""Problem details as the run API publishes them."""

import json

import pytest

from kitemesh_contracts.errors import MEANINGS, ErrorCode, ErrorInfo
from kitemesh_gateway.dialects.base import Refused
from kitemesh_gateway.dialects.run_chat import RunChat

NAMES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    422: "unprocessable_entity",
    429: "too_many_requests",
    500: "internal_server_error",
    502: "bad_gateway",
    503: "service_unavailable",
}
"""The codes that are published, and those made in the same way."""


@pytest.mark.requirement("run-chat:problem-details")
@pytest.mark.parametrize("code", ErrorCode)
def test_a_problem_has_the_name_of_its_status(code: ErrorCode) -> None:
    about = Refused("req_1", "/run/api/chat", conversation="123")
    told = RunChat(dict).refusal(ErrorInfo(code=code, message="why"), about)
    problem = json.loads(told.body)
    status = MEANINGS[code].status
    name = NAMES.get(status, problem["code"])
    assert told.content_type == "application/problem+json"
    assert problem == {
        "code": name,
        "detail": "why",
        "instance": "/conversations/123",
        "requestId": "req_1",
        "status": status,
        "title": name.replace("_", " ").title().replace(" Uri", "-URI"),
        "error": {"code": name, "message": "why"},
    }


@pytest.mark.requirement("run-chat:problem-details")
def test_without_a_conversation_the_instance_is_the_path() -> None:
    about = Refused("req_1", "/run/\udc80")
    told = RunChat(dict).refusal(ErrorInfo(code=ErrorCode.REQUEST_INVALID, message="why"), about)
    assert json.loads(told.body)["instance"] == "/run/?"


def test_the_approval_in_the_way_is_named() -> None:
    error = ErrorInfo(code=ErrorCode.CONVERSATION_HELD, message="why", approval="h", expires_at_ms=1_700_000_000_250)
    problem = json.loads(RunChat(dict).refusal(error, Refused("req_1")).body)
    assert (problem["approval_id"], problem["expires_at"]) == ("h", "2023-11-14T22:13:20.250Z")
