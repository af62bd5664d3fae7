"""What every operation of `/openapi.json` is put together from. Pure."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from kitemesh_contracts.errors import MEANINGS, ErrorCode
from kitemesh_contracts.headers import IDEMPOTENCY_KEY, LAST_EVENT_ID, REQUEST_ID, RETRY_AFTER, SHOULD_RETRY
from kitemesh_gateway.dialects.base import FINAL, JSON, RETRIED
from kitemesh_gateway.dialects.completions_errors import CODES
from kitemesh_gateway.dialects.native import PROBLEM_JSON
from kitemesh_gateway.paging import PAGE, PAGE_MAX

Schema = dict[str, Any]

REF: Final = "#/components/schemas/{name}"
NAMED: Final[Mapping[str, str]] = {
    REQUEST_ID: "The client's, if it is 1 to 255 of A-Z, a-z, 0-9, _, = and -; else generated.",
}
AUTH_CODES: Final = (ErrorCode.CREDENTIAL_INVALID, ErrorCode.STORE_DOWN, ErrorCode.DRAINING)
BODY_CODES: Final = (
    ErrorCode.REQUEST_INVALID,
    ErrorCode.REQUEST_MALFORMED,
    ErrorCode.REQUEST_TIMEOUT,
    ErrorCode.REQUEST_TOO_LARGE,
    ErrorCode.REQUEST_MEDIA_TYPE,
)
REPLAYED: Final = "`true`: the turn is that of an earlier request with the same `Idempotency-Key`."


class Refusal(NamedTuple):
    """How a route family refuses.

    Attributes:
        media: Type of the body.
        schema: Of the body.
        codes: What codes are called there; any other goes out as it is.

    """

    media: str
    schema: str
    codes: Mapping[ErrorCode, str]


COMPLETIONS: Final = Refusal(JSON, "ErrorEnvelope", CODES)
PROBLEMS: Final = Refusal(PROBLEM_JSON, "Problem", {})


def lookup(
    name: str,
    summary: str,
    schema: str,
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
            "200": {"description": "The answer", "headers": headers_of(headers), "content": content(JSON, schema)},
            **refusals(codes, refusal),
        },
    }


def refusals(codes: Sequence[ErrorCode], refusal: Refusal = COMPLETIONS) -> Schema:
    """Describe what an operation may be refused with, by status."""
    described: Schema = {}
    for status in sorted({MEANINGS[code].status for code in codes}):
        mine = [code for code in codes if MEANINGS[code].status == status]
        told = dict.fromkeys(refusal.codes.get(code, code.value) for code in mine)
        headers = dict(NAMED)
        if status in RETRIED:
            headers[RETRY_AFTER] = "Seconds after which a retry may succeed."
        if any(code in FINAL or MEANINGS[code].outcome == "failed" for code in mine):
            headers[SHOULD_RETRY] = "`false` where a retry would run a tool once more, or end the same way."
        described[str(status)] = {
            "description": f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in told)}",
            "content": content(refusal.media, refusal.schema),
            "headers": headers_of(headers),
        }
    return described


def content(media: str, schema: str) -> Schema:
    """Describe a body."""
    return {media: {"schema": {"$ref": REF.format(name=schema)}}}


def headers_of(described: Mapping[str, str]) -> Schema:
    """Describe headers."""
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in described.items()}


def id_of(description: str) -> list[Schema]:
    """Describe an id in a path."""
    schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
    return [{"name": "id", "in": "path", "required": True, "description": description, "schema": schema}]


def query(name: str, description: str, schema: dict[str, Any]) -> Schema:
    """Describe a parameter of a query."""
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def header(name: str, description: str, schema: dict[str, Any]) -> Schema:
    """Describe a header of a request."""
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def last_event_parameter(description: str) -> Schema:
    """Describe where a stream is gone on from."""
    return header(LAST_EVENT_ID, description, {"type": "string"})


PAGE_PARAMETERS: Final = (
    query("cursor", "`next_cursor` of the page before.", {"type": "string"}),
    query("limit", f"Most of a page; {PAGE} without it.", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX}),
)
IDEMPOTENCY_PARAMETER: Final = header(
    IDEMPOTENCY_KEY,
    "Printable ASCII, kept for 24 hours for the tenant and route. The same key with the same body, byte by byte, gets "
    "the turn that it began, which is always a durable one, or its result; with another body it is refused.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
)
