"""`/openapi.json`, generated from the models that validate and the structs that are encoded. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from kitemesh_contracts.errors import MEANINGS, ErrorCode
from kitemesh_contracts.headers import (
    CONVERSATION_ID,
    EXECUTION_ID,
    IDEMPOTENCY_KEY,
    IDEMPOTENCY_REPLAYED,
    SERVER_TIMING,
)
from kitemesh_gateway import openapi_approvals, openapi_executions
from kitemesh_gateway.advice import ADVICE
from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.dialects.completions_answers import Chunk, Completion, ModelList, ModelOut
from kitemesh_gateway.dialects.completions_errors import CODES, ErrorEnvelope
from kitemesh_gateway.dialects.completions_models import ChatRequest
from kitemesh_gateway.dialects.completions_resume import ResumeRequest
from kitemesh_gateway.introduction import INTRODUCTION
from kitemesh_gateway.openapi_parts import (
    AUTH_CODES,
    IDEMPOTENCY_PARAMETER,
    NAMED,
    REF,
    REPLAYED,
    Schema,
    content,
    header,
    headers_of,
    last_event_parameter,
    lookup,
    refusals,
)

_ATTRIBUTE: Final = re.compile(r"^ {8}(\w+): ((?:.+\n?)(?: {12}.+\n?)*)", re.MULTILINE)
_HEADERS: Final[Mapping[str, str]] = {
    **NAMED,
    EXECUTION_ID: "The turn; also on the answer that tells its failure.",
    CONVERSATION_ID: "The conversation, when one is kept.",
    SERVER_TIMING: "Where the time went, in milliseconds.",
}
_NEVER_IN_CHAT: Final = frozenset(
    {
        ErrorCode.ROUTE_UNKNOWN,
        ErrorCode.REQUEST_METHOD,
        ErrorCode.APPROVAL_UNKNOWN,
        ErrorCode.APPROVAL_DECIDED,
        ErrorCode.APPROVAL_GONE,
        ErrorCode.TOOL_ARGUMENTS,
        ErrorCode.TOOL_TIMEOUT,
        ErrorCode.TOOL_CHANGED,
        ErrorCode.TOOL_DENIED,
        ErrorCode.TOOL_BLOCKED,
        ErrorCode.TOOL_CANCELLED,
        ErrorCode.TOOL_UNCERTAIN,
    },
)
_CHAT_CODES: Final = tuple(code for code in ADVICE if code not in _NEVER_IN_CHAT)
_RESUME_CODES: Final = (
    *(code for code in _CHAT_CODES if not code.startswith(("conversation.", "idempotency."))),
    ErrorCode.APPROVAL_UNKNOWN,
    ErrorCode.APPROVAL_DECIDED,
    ErrorCode.APPROVAL_GONE,
)


_REATTACH: Final = last_event_parameter(
    "The id of the last event that was received of a durable turn's stream: the answer is the events behind it, at any "
    "server, and the body starts nothing. The stream of a classic turn cannot be gone on with.",
)


def document(version: str) -> Schema:
    """Build the OpenAPI document."""
    schemas = _schemas()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kitemesh",
            "version": version,
            "description": INTRODUCTION,
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}, {}],
        "paths": {
            "/v1/chat/completions": {"post": _chat()},
            "/v1/chat/resume": {"post": _resume()},
            "/v1/models": {"get": lookup("listModels", "List the models", "ModelList", AUTH_CODES)},
            "/v1/models/{id}": {
                "get": {
                    **lookup("getModel", "Describe a model", "ModelOut", (*AUTH_CODES, ErrorCode.MODEL_UNKNOWN)),
                    "parameters": [
                        {
                            "name": "id",
                            "in": "path",
                            "required": True,
                            "description": "Taken as it is: it may hold `:` and `/`.",
                            "schema": {"type": "string"},
                        },
                    ],
                },
            },
            **openapi_approvals.paths(),
            **openapi_executions.paths(),
        },
        "x-error-codes": [
            {
                "code": CODES.get(code, code.value),
                "logged_as": code.value,
                "status": MEANINGS[code].status,
                "advice": advice,
            }
            for code, advice in ADVICE.items()
        ],
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "km_…"}},
        },
    }


def _schemas() -> Schema:
    schemas: Schema = {}
    for body in (ChatRequest, ResumeRequest, *openapi_approvals.BODIES, *openapi_executions.BODIES):
        request = body.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(request.pop("$defs", {}))
        schemas[body.__name__] = request
    structs = (
        *(Completion, Chunk, ErrorEnvelope, ModelList, ModelOut),
        *openapi_approvals.STRUCTS,
        *openapi_executions.STRUCTS,
    )
    _, answers = msgspec.json.schema_components(structs, ref_template=REF)
    for schema in answers.values():
        _spread(schema)
        _drop_blank(schema)
    return dict(sorted({**schemas, **answers}.items()))


def _spread(schema: Schema) -> None:
    """Move what a docstring says of its attributes to the fields."""
    summary, _, attributes = schema.get("description", "").partition("Attributes:")
    schema["description"] = summary.strip()
    for name, text in _ATTRIBUTE.findall(attributes):
        # A name that Python keeps to itself is written with a line behind it.
        schema["properties"][name.rstrip("_")]["description"] = " ".join(text.split())


def _drop_blank(schema: Schema) -> None:
    """Take out the empty value that stands for an absent field: it is never sent."""
    for field in schema.get("properties", {}).values():
        if field.get("default") == "" and "enum" in field:
            field["enum"].remove(field.pop("default"))


def _chat() -> Schema:
    operation = _run(
        "createChatCompletion",
        "Run a chat turn",
        "With `stream` the answer is server-sent events: each has an `id` line and one `data` line, a comment "
        "breaks every silence of 15 s, and `[DONE]` is the last one. A stream that could not finish ends with an "
        "error object and without `[DONE]`. A durable turn goes on without its client, and its stream can be gone on "
        "with; its `200` is sent as soon as it is stored.",
        "ChatRequest",
        _CHAT_CODES,
    )
    operation["parameters"] = [IDEMPOTENCY_PARAMETER, _REATTACH]
    operation["responses"]["200"]["headers"] |= headers_of({IDEMPOTENCY_REPLAYED: REPLAYED})
    return operation


def _resume() -> Schema:
    operation = _run(
        "resumeChatCompletion",
        "Decide held tool calls",
        "The approved calls run exactly as they were held, every other one is denied, and the answer is what the turn "
        "says then; it may hold again. The same decision once more gives the same answer. The turn goes on whether "
        "its client stays or not, and its stream can be gone on with by a key that has the scope `chat`.",
        "ResumeRequest",
        _RESUME_CODES,
    )
    operation["parameters"] = [
        header(
            IDEMPOTENCY_KEY,
            "Changes nothing: whatever comes with it, a decision is made once, and the same one again gives the same "
            "answer.",
            {"type": "string"},
        ),
        _REATTACH,
    ]
    return operation


def _run(name: str, summary: str, description: str, body: str, codes: Sequence[ErrorCode]) -> Schema:
    """Describe an operation that answers with what a turn says."""
    return {
        "summary": summary,
        "description": description,
        "operationId": name,
        "requestBody": {"required": True, "content": content(JSON, body)},
        "responses": {
            "200": {
                "description": "The answer",
                "headers": headers_of(_HEADERS),
                "content": {
                    **content(JSON, "Completion"),
                    **content("text/event-stream", "Chunk"),
                },
            },
            **refusals(codes),
        },
    }
