"""`/openapi.json`, generated from the models that validate and the structs that are encoded. Pure."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

from kitemesh_contracts.errors import MEANINGS, ErrorCode
from kitemesh_contracts.headers import (
    CONVERSATION_ID,
    EXECUTION_ID,
    REQUEST_ID,
    RETRY_AFTER,
    SERVER_TIMING,
    SHOULD_RETRY,
)
from kitemesh_gateway.advice import ADVICE
from kitemesh_gateway.dialects.base import JSON, RETRIED
from kitemesh_gateway.dialects.completions_answers import Chunk, Completion, ModelList, ModelOut
from kitemesh_gateway.dialects.completions_errors import CODES, ErrorEnvelope
from kitemesh_gateway.dialects.completions_models import ChatRequest
from kitemesh_gateway.introduction import INTRODUCTION

Schema = dict[str, Any]

_ATTRIBUTE: Final = re.compile(r"^ {8}(\w+): ((?:.+\n?)(?: {12}.+\n?)*)", re.MULTILINE)
_REF: Final = "#/components/schemas/{name}"
_NAMED: Final[Mapping[str, str]] = {
    REQUEST_ID: "The client's, if it is 1 to 255 of A-Z, a-z, 0-9, _, = and -; else generated.",
}
_HEADERS: Final[Mapping[str, str]] = {
    **_NAMED,
    EXECUTION_ID: "The turn; also on the answer that tells its failure.",
    CONVERSATION_ID: "The conversation, when one is kept.",
    SERVER_TIMING: "Where the time went, in milliseconds.",
}
_AUTH_CODES: Final = (ErrorCode.CREDENTIAL_INVALID, ErrorCode.STORE_DOWN, ErrorCode.DRAINING)
_NEVER_IN_CHAT: Final = frozenset({ErrorCode.ROUTE_UNKNOWN, ErrorCode.REQUEST_METHOD})
_CHAT_CODES: Final = tuple(code for code in ADVICE if code not in _NEVER_IN_CHAT)


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
            "/v1/models": {"get": _lookup("listModels", "List the models", "ModelList", _AUTH_CODES)},
            "/v1/models/{id}": {
                "get": {
                    **_lookup("getModel", "Describe a model", "ModelOut", (*_AUTH_CODES, ErrorCode.MODEL_UNKNOWN)),
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
    request = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas: Schema = request.pop("$defs", {})
    schemas["ChatRequest"] = request
    structs = (Completion, Chunk, ErrorEnvelope, ModelList, ModelOut)
    _, answers = msgspec.json.schema_components(structs, ref_template=_REF)
    for schema in answers.values():
        _spread(schema)
        _drop_blank(schema)
    return dict(sorted({**schemas, **answers}.items()))


def _spread(schema: Schema) -> None:
    """Move what a docstring says of its attributes to the fields."""
    summary, _, attributes = schema.get("description", "").partition("Attributes:")
    schema["description"] = summary.strip()
    for name, text in _ATTRIBUTE.findall(attributes):
        schema["properties"][name]["description"] = " ".join(text.split())


def _drop_blank(schema: Schema) -> None:
    """Take out the empty value that stands for an absent field: it is never sent."""
    for field in schema.get("properties", {}).values():
        if field.get("default") == "" and "enum" in field:
            field["enum"].remove(field.pop("default"))


def _chat() -> Schema:
    return {
        "summary": "Run a chat turn",
        "description": (
            "With `stream` the answer is server-sent events: each has an `id` line and one `data` line, a comment "
            "breaks every silence of 15 s, and `[DONE]` is the last one. A stream that could not finish ends with an "
            "error object and without `[DONE]`."
        ),
        "operationId": "createChatCompletion",
        "requestBody": {"required": True, "content": _content(JSON, "ChatRequest")},
        "responses": {
            "200": {
                "description": "The answer",
                "headers": _headers(_HEADERS),
                "content": {
                    **_content(JSON, "Completion"),
                    **_content("text/event-stream", "Chunk"),
                },
            },
            **_refusals(_CHAT_CODES),
        },
    }


def _lookup(name: str, summary: str, schema: str, codes: tuple[ErrorCode, ...]) -> Schema:
    return {
        "summary": summary,
        "operationId": name,
        "responses": {
            "200": {"description": "The answer", "headers": _headers(_NAMED), "content": _content(JSON, schema)},
            **_refusals(codes),
        },
    }


def _refusals(codes: tuple[ErrorCode, ...]) -> Schema:
    refusals: Schema = {}
    for status in sorted({MEANINGS[code].status for code in codes}):
        told = dict.fromkeys(CODES.get(code, code.value) for code in codes if MEANINGS[code].status == status)
        refusal: Schema = {
            "description": f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in told)}",
            "content": _content(JSON, "ErrorEnvelope"),
        }
        headers = dict(_NAMED)
        if status in RETRIED:
            headers[RETRY_AFTER] = "Seconds after which a retry may succeed."
        if any(MEANINGS[code].outcome == "cancelled" for code in codes if MEANINGS[code].status == status):
            headers[SHOULD_RETRY] = "`false` where a retry would bring back what somebody stopped."
        refusals[str(status)] = {**refusal, "headers": _headers(headers)}
    return refusals


def _content(media: str, schema: str) -> Schema:
    return {media: {"schema": {"$ref": _REF.format(name=schema)}}}


def _headers(described: Mapping[str, str]) -> Schema:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in described.items()}
