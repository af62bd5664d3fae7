import json

import pytest

from kitemesh_contracts.errors import MEANINGS, ErrorCode, ErrorInfo
from kitemesh_gateway.dialects.completions_errors import TYPES, error_body

TOLD = {
    ErrorCode.REQUEST_INVALID: ("invalid_request_error", "request.invalid", None),
    ErrorCode.CREDENTIAL_INVALID: ("authentication_error", "credential.invalid", None),
    ErrorCode.PERMISSION_DENIED: ("permission_error", "permission.denied", None),
    ErrorCode.MODEL_UNKNOWN: ("not_found_error", "model_not_found", "model"),
    ErrorCode.ROUTE_UNKNOWN: ("not_found_error", "route.unknown", None),
    ErrorCode.CONVERSATION_UNKNOWN: ("not_found_error", "conversation.unknown", "metadata.conversation_id"),
    ErrorCode.CONVERSATION_BUSY: ("conflict_error", "conversation.busy", "metadata.conversation_id"),
    ErrorCode.CONVERSATION_FULL: ("rate_limit_error", "queue_full", "metadata.conversation_id"),
    ErrorCode.QUEUE_FULL: ("rate_limit_error", "queue_full", None),
    ErrorCode.RATE_LIMITED: ("rate_limit_error", "rate_limit_exceeded", None),
    ErrorCode.CONCURRENCY_LIMITED: ("rate_limit_error", "concurrency_limit_exceeded", None),
    ErrorCode.UPSTREAM_CONTEXT: ("invalid_request_error", "context_length_exceeded", "messages"),
    ErrorCode.UPSTREAM_LIMITED: ("rate_limit_error", "rate_limit_exceeded", None),
    ErrorCode.UPSTREAM_FAILED: ("upstream_error", "upstream.failed", None),
    ErrorCode.UPSTREAM_TIMEOUT: ("upstream_timeout", "upstream.timeout", None),
    ErrorCode.TURN_TIMEOUT: ("upstream_timeout", "turn.timeout", None),
    ErrorCode.BUS_DOWN: ("unavailable", "bus.down", None),
    ErrorCode.STORE_DOWN: ("unavailable", "store.down", None),
    ErrorCode.INTERNAL: ("internal_error", "internal", None),
}


@pytest.mark.requirement("http:error-body")
@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_code_has_a_body(code: ErrorCode) -> None:
    error = json.loads(error_body(ErrorInfo(code=code, message="m"), request_id="r"))["error"]
    assert set(error) == {"message", "type", "code", "param", "request_id"}
    assert (error["message"], error["request_id"]) == ("m", "r")
    assert error["type"] == TYPES[MEANINGS[code].status]


@pytest.mark.requirement("http:error-body")
@pytest.mark.parametrize(("code", "told"), TOLD.items())
def test_clients_read_the_words_of_the_contract(code: ErrorCode, told: tuple[str, str, str | None]) -> None:
    error = json.loads(error_body(ErrorInfo(code=code, message="m"), request_id="r"))["error"]
    assert (error["type"], error["code"], error["param"]) == told


def test_a_named_field_wins_over_the_codes_own() -> None:
    body = error_body(ErrorInfo(code=ErrorCode.MODEL_UNKNOWN, message="m"), request_id="r", param="x.y")
    assert json.loads(body)["error"]["param"] == "x.y"


@pytest.mark.requirement("hold:named-where-it-is-in-the-way")
def test_the_approval_in_the_way_is_named() -> None:
    info = ErrorInfo(code=ErrorCode.CONVERSATION_HELD, message="m", approval="h-1", expires_at_ms=1_767_323_045_600)
    error = json.loads(error_body(info, request_id="r"))["error"]
    assert error == {
        "message": "m",
        "type": "conflict_error",
        "code": "conversation.held",
        "param": "metadata.conversation_id",
        "request_id": "r",
        "kitemesh": {"approval_id": "h-1", "expires_at": "2026-01-02T03:04:05.600Z"},
    }


def test_an_approval_without_an_end_is_named_without() -> None:
    info = ErrorInfo(code=ErrorCode.CONVERSATION_HELD, message="m", approval="h-1")
    assert json.loads(error_body(info, request_id="r"))["error"]["kitemesh"] == {"approval_id": "h-1"}
