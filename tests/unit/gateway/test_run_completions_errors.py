import json
from http import HTTPStatus

import pytest

from kitemesh_contracts.deltas import TurnEnded
from kitemesh_contracts.errors import MEANINGS, ErrorCode, ErrorInfo
from kitemesh_gateway.dialects.base import Facts, Mistake, Mistakes, Place, Refused
from kitemesh_gateway.dialects.run_completions import RunCompletions

DIALECT = RunCompletions()
ABOUT = Refused("req_1", "/run/v1/chat/completions", conversation="123")
OWN = {400, 404, 500}


@pytest.mark.requirement("run-completions:errors")
def test_a_wrong_request_is_told_field_by_field() -> None:
    mistakes = (Mistake("messages.0.role", "must be 'user'", value="king"), Mistake("model", "is required"))
    error = Mistakes(mistakes)
    told = DIALECT.refusal(error.info(), ABOUT._replace(mistakes=mistakes))
    assert told.content_type == "application/json"
    assert json.loads(told.body) == {
        "error": "messages.0.role: must be 'user'; model: is required",
        "details": [
            {"field": "messages.0.role", "message": "must be 'user'", "value": "king"},
            {"field": "model", "message": "is required", "value": None},
        ],
    }


@pytest.mark.requirement("run-completions:errors")
def test_a_request_that_cannot_be_read_has_no_fields() -> None:
    told = DIALECT.refusal(ErrorInfo(code=ErrorCode.REQUEST_MALFORMED, message="The body is empty"), ABOUT)
    assert json.loads(told.body) == {"error": "The body is empty", "details": []}


@pytest.mark.requirement("run-completions:errors")
def test_what_there_is_not_is_told_in_one_sentence() -> None:
    told = DIALECT.refusal(ErrorInfo(code=ErrorCode.MODEL_UNKNOWN, message="There is no model m"), ABOUT)
    assert told.content_type == "application/json"
    assert json.loads(told.body) == {"error": "There is no model m"}


@pytest.mark.requirement("run-completions:errors")
def test_what_broke_here_is_told_apart_from_its_name() -> None:
    told = DIALECT.refusal(ErrorInfo(code=ErrorCode.INTERNAL, message="Internal error"), ABOUT)
    assert told.content_type == "application/json"
    assert json.loads(told.body) == {"error": "Internal Server Error", "message": "Internal error"}


@pytest.mark.requirement("run-completions:message-id-conflict")
def test_a_message_id_that_is_taken_is_refused_in_the_seeds_words() -> None:
    message = "Message with the supplied id already exists"
    told = DIALECT.refusal(ErrorInfo(code=ErrorCode.MESSAGE_EXISTS, message=message), ABOUT)
    assert told.content_type == "application/problem+json"
    assert json.loads(told.body) == {
        "code": "conflict",
        "detail": message,
        "instance": "/conversations/123",
        "requestId": "req_1",
        "status": 409,
        "title": "Conflict",
        "error": {"code": "conflict", "message": message},
    }


@pytest.mark.requirement("run-completions:errors")
@pytest.mark.parametrize("code", [code for code in ErrorCode if MEANINGS[code].status not in OWN])
def test_everything_else_is_problem_details(code: ErrorCode) -> None:
    told = DIALECT.refusal(ErrorInfo(code=code, message="So it is"), ABOUT)
    body = json.loads(told.body)
    assert told.content_type == "application/problem+json"
    assert body["status"] == MEANINGS[code].status
    assert body["title"] == HTTPStatus(body["status"]).phrase
    assert body["detail"] == body["error"]["message"] == "So it is"
    assert body["requestId"] == "req_1"


@pytest.mark.requirement("run-completions:answers-as-completions")
def test_an_answer_is_a_chat_completion_that_echoes_the_model() -> None:
    facts = Facts(turn="t", model="m", created_s=1, label="r", conversation="c", include_usage=False)
    ended = TurnEnded(turn="t", tenant="x", outcome="completed", step=1, attempt=1, last=0, finish="stop", text="Hi")
    whole = json.loads(DIALECT.encoder(facts).whole(ended))
    assert (whole["object"], whole["model"]) == ("chat.completion", "m")
    assert whole["kitemesh"] == {"execution_id": "t", "request_id": "r", "conversation_id": "c"}
    encoder = DIALECT.encoder(facts)
    stream = encoder.start() + encoder.end(ended, ())
    assert stream.endswith(b"\ndata: [DONE]\n\n")
    failure = DIALECT.encoder(facts).error(Place(1, 1, 1), ErrorInfo(code=ErrorCode.UPSTREAM_CUT, message="x"), "r")
    assert b"[DONE]" not in failure
    assert json.loads(failure.split(b"data: ")[1])["error"]["message"] == "x"
