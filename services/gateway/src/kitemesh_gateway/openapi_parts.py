"""What every operation of `/openapi.json` is put together from. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.headers import (
    CONVERSATION_ID,
    EXECUTION_ID,
    IDEMPOTENCY_KEY,
    IDEMPOTENCY_REPLAYED,
    LAST_EVENT_ID,
    SERVER_TIMING,
)
from kitemesh_gateway import positions
from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.openapi_bodies import NAMED, Described, Schema, content, headers_of
from kitemesh_gateway.openapi_refusals import COMPLETIONS, Refusal, refusals
from kitemesh_gateway.paging import PAGE, PAGE_MAX

ID_SCHEMA: Final[Mapping[str, Any]] = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
TURN_HEADERS: Final[Mapping[str, str]] = {
    **NAMED,
    EXECUTION_ID: "The turn; also on the answer that tells its failure.",
    CONVERSATION_ID: "The conversation, when one is kept.",
    SERVER_TIMING: "Where the time went, in milliseconds.",
}
REPLAYED: Final = "`true`: the turn is that of an earlier request with the same `Idempotency-Key`."


class Family(NamedTuple):
    """What one family of routes brings to the document.

    Attributes:
        tag: Groups its operations.
        paths: Its operations, by path and method.

    """

    tag: str
    about: str
    paths: Schema


def run(
    name: str,
    summary: str,
    description: str,
    body: Described,
    *,
    answers: Schema,
    codes: Sequence[ErrorCode],
    refusal: Refusal = COMPLETIONS,
    parameters: Sequence[Schema] = (),
    headers: Mapping[str, str] = {},
    is_keyed: bool = True,
) -> Schema:
    """Describe an operation that answers with what a turn says."""
    keyed, replayed = ([IDEMPOTENCY_PARAMETER], {IDEMPOTENCY_REPLAYED: REPLAYED}) if is_keyed else ([], {})
    return {
        "summary": summary,
        "description": description,
        "operationId": name,
        "parameters": [*parameters, *keyed, REATTACH_PARAMETER],
        "requestBody": body_of(body),
        "responses": {
            "200": {
                "description": "The answer",
                "headers": headers_of({**TURN_HEADERS, **headers, **replayed}),
                "content": answers,
            },
            **refusals(codes, refusal),
        },
    }


def lookup(
    name: str,
    summary: str,
    answer: Described,
    codes: Sequence[ErrorCode],
    *,
    headers: Mapping[str, str] = NAMED,
    refusal: Refusal = COMPLETIONS,
) -> Schema:
    """Describe an operation that answers with one JSON object."""
    return {
        "summary": summary,
        "operationId": name,
        "responses": {
            "200": {"description": "The answer", "headers": headers_of(headers), "content": content(JSON, answer)},
            **refusals(codes, refusal),
        },
    }


def body_of(body: Described) -> Schema:
    """Describe what a request must bring."""
    return {"required": True, "content": content(JSON, body)}


def id_of(description: str) -> list[Schema]:
    """Describe an id in a path."""
    return [{"name": "id", "in": "path", "required": True, "description": description, "schema": ID_SCHEMA}]


def query(name: str, description: str, schema: Mapping[str, Any]) -> Schema:
    """Describe a parameter of a query."""
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def header(name: str, description: str, schema: Mapping[str, Any]) -> Schema:
    """Describe a header of a request."""
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def last_event_parameter(description: str, pattern: str = positions.PATTERN) -> Schema:
    """Describe where a stream is gone on from."""
    return header(LAST_EVENT_ID, description, {"type": "string", "pattern": pattern})


LIMIT: Final = query(
    "limit", f"Most of a page; {PAGE} without it.", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX}
)
PAGE_PARAMETERS: Final = (query("cursor", "`next_cursor` of the page before.", ID_SCHEMA), LIMIT)
IDEMPOTENCY_PARAMETER: Final = header(
    IDEMPOTENCY_KEY,
    "Printable ASCII, kept for 24 hours for the tenant and route. The same key with the same body, byte by byte, gets "
    "the turn that it began, which is always a durable one, or its result; with another body it is refused.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
)
REATTACH_PARAMETER: Final = last_event_parameter(
    "The id of the last event that was received of a durable turn's stream: the answer is the events behind it, at any "
    "server, and the body starts nothing. The stream of a classic turn cannot be gone on with.",
)
