"""The routes of executions, and of what happens to them, in `/openapi.json`. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.headers import CONVERSATION_ID, EXECUTION_ID, IDEMPOTENCY_REPLAYED, LOCATION, SERVER_TIMING
from kitemesh_contracts.news import NEWS_TYPES, NewsItem
from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.dialects.native_answers import (
    AcceptedOut,
    CancelOut,
    ExecutionOut,
    ExecutionPage,
    ExecutionStatus,
)
from kitemesh_gateway.dialects.native_bodies import BackgroundRequest
from kitemesh_gateway.dialects.native_events import EVENTS
from kitemesh_gateway.event_requests import PATTERNS
from kitemesh_gateway.openapi_bodies import NAMED, Described, Schema, content, events, headers_of
from kitemesh_gateway.openapi_codes import BODY_CODES, SCOPED_CODES
from kitemesh_gateway.openapi_parts import (
    ID_SCHEMA,
    IDEMPOTENCY_PARAMETER,
    PAGE_PARAMETERS,
    REPLAYED,
    Family,
    body_of,
    id_of,
    last_event_parameter,
    lookup,
    query,
)
from kitemesh_gateway.openapi_refusals import PROBLEMS, refusals

_HEADERS: Final[Mapping[str, str]] = {
    **NAMED,
    EXECUTION_ID: "The execution.",
    CONVERSATION_ID: "Its conversation, when one is kept.",
}
_ACCEPT: Final = (
    *BODY_CODES,
    ErrorCode.REQUEST_UNSUPPORTED,
    ErrorCode.MODEL_UNKNOWN,
    ErrorCode.CONVERSATION_UNKNOWN,
    ErrorCode.IDEMPOTENCY_MISMATCH,
    ErrorCode.IDEMPOTENCY_PENDING,
    ErrorCode.QUEUE_FULL,
    ErrorCode.BUS_DOWN,
)
_FOLLOW: Final = (
    ErrorCode.REQUEST_INVALID,
    ErrorCode.EXECUTION_UNKNOWN,
    ErrorCode.EXECUTION_CLASSIC,
    ErrorCode.STREAM_GAP,
    ErrorCode.BUS_DOWN,
)


def _paths() -> Schema:
    """Describe the routes."""
    execution = id_of("The execution.")
    return {
        "/v1/executions": {"get": _list(), "post": _start()},
        "/v1/executions/{id}": {
            "get": {
                **_operation("getExecution", "Show an execution", ExecutionOut, (ErrorCode.EXECUTION_UNKNOWN,)),
                "description": (
                    "A durable one is there as soon as it is accepted, a classic one once it has ended or is held."
                ),
                "parameters": execution,
            },
        },
        "/v1/executions/{id}/stream": {"get": _stream(execution)},
        "/v1/executions/{id}/cancel": {
            "post": {
                **_operation(
                    "cancelExecution",
                    "Cancel an execution",
                    CancelOut,
                    (ErrorCode.EXECUTION_UNKNOWN, ErrorCode.BUS_DOWN),
                ),
                "description": (
                    "Whether it waits, runs or is held. After the answer no call with an effect begins that had not "
                    "begun before. Again is the same; an execution that has ended stays as it is."
                ),
                "parameters": execution,
            },
        },
        "/v1/events": {"get": _events()},
    }


def _list() -> Schema:
    return {
        **_operation("listExecutions", "List the executions", ExecutionPage, (ErrorCode.REQUEST_INVALID,)),
        "description": (
            "Newest first, without those of models that the key may not name. A page may be short, or empty, and still "
            "have a `next_cursor`."
        ),
        "parameters": [
            query("status", "Only those.", {"enum": list(get_args(ExecutionStatus))}),
            query("conversation_id", "Only those of this conversation.", ID_SCHEMA),
            *PAGE_PARAMETERS,
        ],
    }


def _start() -> Schema:
    headers = {
        **_HEADERS,
        LOCATION: "Where the execution is shown.",
        IDEMPOTENCY_REPLAYED: REPLAYED,
    }
    return {
        "summary": "Begin a background run",
        "description": (
            "A chat turn that runs durable and without its client: the answer comes once it is stored. "
            "`GET /v1/executions/{id}` shows how it stands, `GET /v1/executions/{id}/stream` tells it as it runs or "
            "afterwards. `stream` and `stream_options` change nothing here."
        ),
        "operationId": "createExecution",
        "parameters": [IDEMPOTENCY_PARAMETER],
        "requestBody": body_of(BackgroundRequest),
        "responses": {
            "202": {
                "description": "Accepted",
                "headers": headers_of(headers),
                "content": content(JSON, AcceptedOut),
            },
            **refusals((*SCOPED_CODES, *_ACCEPT), PROBLEMS),
        },
    }


def _stream(execution: list[Schema]) -> Schema:
    return {
        "summary": "Follow an execution",
        "description": (
            "Server-sent events, from its beginning to its end or hold, whether it runs or has ended, by any number of "
            "readers. Each has an `id` line and one `data` line of JSON whose `type` says what it is; the last one is "
            "`turn.ended`, `turn.held` or `error`. A reader that comes back with `Last-Event-ID` is told what follows "
            "that event, at any server."
        ),
        "operationId": "streamExecution",
        "parameters": [*execution, last_event_parameter("Of this execution's events, the last one that was received.")],
        "responses": {
            "200": {
                "description": "The events",
                "headers": headers_of({**_HEADERS, SERVER_TIMING: "Where the time went, in milliseconds."}),
                "content": events(*EVENTS),
            },
            **refusals((*SCOPED_CODES, *_FOLLOW), PROBLEMS),
        },
    }


def _events() -> Schema:
    kinds = ", ".join(f"`{each}`" for each in (*NEWS_TYPES, *PATTERNS))
    return {
        "summary": "Follow what happens",
        "description": (
            "Server-sent events without an end: what happens to the tenant's executions and approvals, as far as the "
            "key may know of them; `turn.*` needs the scope `chat`, `approval.*` the scope `approve`. A reader that "
            "comes back with `Last-Event-ID` goes on where it was; if that is not kept any more, the first event is "
            '`{"type":"events.gap"}`.'
        ),
        "operationId": "streamEvents",
        "parameters": [
            query("types", f"Which, with commas: {kinds}. Without it all that the key may know.", {"type": "string"}),
            last_event_parameter("The last event that was received.", "^([0-9]{1,18}-[0-9a-f]{8})?$"),
        ],
        "responses": {
            "200": {
                "description": "The events",
                "headers": headers_of(NAMED),
                "content": events(NewsItem),
            },
            **refusals((*SCOPED_CODES, ErrorCode.REQUEST_INVALID, ErrorCode.QUEUE_FULL, ErrorCode.BUS_DOWN), PROBLEMS),
        },
    }


def _operation(name: str, summary: str, answer: Described, codes: Sequence[ErrorCode]) -> dict[str, Any]:
    headers = NAMED if answer is ExecutionPage else _HEADERS
    return lookup(name, summary, answer, (*SCOPED_CODES, *codes), headers=headers, refusal=PROBLEMS)


FAMILY: Final = Family(
    "Executions",
    "Turns, whoever asked for them, and what happens to them.",
    _paths(),
)
