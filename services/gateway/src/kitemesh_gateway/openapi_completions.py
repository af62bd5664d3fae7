"""The routes of OpenAI's chat completions in `/openapi.json`. Pure."""

from typing import Final

from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.headers import IDEMPOTENCY_KEY
from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.dialects.completions_answers import Chunk, Completion, ModelList, ModelOut
from kitemesh_gateway.dialects.completions_errors import ErrorEnvelope
from kitemesh_gateway.dialects.completions_models import ChatRequest
from kitemesh_gateway.dialects.completions_resume import ResumeRequest
from kitemesh_gateway.openapi_bodies import DONE, Schema, content, events
from kitemesh_gateway.openapi_codes import AUTH_CODES, TURN_CODES
from kitemesh_gateway.openapi_parts import REATTACH_PARAMETER, Family, header, lookup, run

ANSWERS: Final = {**content(JSON, Completion), **events(Chunk, ErrorEnvelope, last=DONE)}
STREAMED: Final = (
    "Each event of a stream has an `id` line and one `data` line, a comment breaks every silence of 15 s, and `[DONE]` "
    "is the last one. A stream that could not finish ends with an error object and without `[DONE]`. A durable turn "
    "goes on without its client, and its stream can be gone on with; its `200` is sent as soon as it is stored."
)
_RESUME_CODES: Final = (
    *(code for code in TURN_CODES if not code.startswith(("conversation.", "idempotency."))),
    ErrorCode.APPROVAL_UNKNOWN,
    ErrorCode.APPROVAL_DECIDED,
    ErrorCode.APPROVAL_GONE,
)
_MODEL: Final[Schema] = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "Taken as it is: it may hold `:` and `/`.",
    "schema": {"type": "string", "minLength": 1},
}


def _paths() -> Schema:
    return {
        "/v1/chat/completions": {
            "post": run(
                "createChatCompletion",
                "Run a chat turn",
                f"With `stream` the answer is server-sent events. {STREAMED}",
                ChatRequest,
                answers=ANSWERS,
                codes=TURN_CODES,
            ),
        },
        "/v1/chat/resume": {"post": _resume()},
        "/v1/models": {"get": lookup("listModels", "List the models", ModelList, AUTH_CODES)},
        "/v1/models/{id}": {
            "get": {
                **lookup("getModel", "Describe a model", ModelOut, (*AUTH_CODES, ErrorCode.MODEL_UNKNOWN)),
                "parameters": [_MODEL],
            },
        },
    }


def _resume() -> Schema:
    operation = run(
        "resumeChatCompletion",
        "Decide held tool calls",
        "The approved calls run exactly as they were held, every other one is denied, and the answer is what the turn "
        "says then; it may hold again. The same decision once more gives the same answer. The turn goes on whether "
        "its client stays or not, and its stream can be gone on with by a key that has the scope `chat`.",
        ResumeRequest,
        answers=ANSWERS,
        codes=_RESUME_CODES,
        is_keyed=False,
    )
    unkeyed = header(
        IDEMPOTENCY_KEY,
        "Changes nothing: whatever comes with it, a decision is made once, and the same one again gives the same "
        "answer.",
        {"type": "string"},
    )
    return {**operation, "parameters": [unkeyed, REATTACH_PARAMETER]}


FAMILY: Final = Family(
    "Completions",
    "OpenAI's chat completions, for every client that speaks them.",
    _paths(),
)
