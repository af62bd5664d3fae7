"""Problem details (RFC 9457): the refusals of every route family that does not have an error body of its own. Pure."""

from http import HTTPStatus
from typing import Final

from msgspec import Struct

from kitemesh_contracts.codec import encode
from kitemesh_contracts.errors import MEANINGS, ErrorInfo
from kitemesh_gateway.dialects.base import ErrorBody, Refused
from kitemesh_gateway.instants import iso

PROBLEM_JSON: Final = "application/problem+json"
SHOWN_PATH_CHARS: Final = 256


class ProblemError(Struct, frozen=True, kw_only=True):
    """The same once more, where other clients look for it."""

    code: str
    message: str


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a request was refused.

    Attributes:
        code: What happened, one stable word.
        detail: What happened, for people; everything that is wrong with a request at once.
        instance: The conversation that it is about where one is known, else the path of the request.
        requestId: Also in the header `x-request-id`.
        title: What the status is called.
        approval_id: The approval that is in the way.
        expires_at: When that ends by itself, ISO 8601 in UTC.

    """

    code: str
    detail: str
    instance: str
    requestId: str  # noqa: N815  the wire's name
    status: int
    title: str
    error: ProblemError
    approval_id: str | None = None
    expires_at: str | None = None


def code_of(status: int) -> str:
    """Return what the run API calls a status."""
    return HTTPStatus(status).phrase.lower().replace(" ", "_")


def problem_body(error: ErrorInfo, about: Refused) -> ErrorBody:
    """Return the body as the run API publishes it: its codes are the names of the statuses."""
    code = code_of(MEANINGS[error.code].status)
    instance = f"/conversations/{about.conversation}" if about.conversation else about.path
    return problem(error, code=code, instance=instance, request_id=about.request_id)


def problem(error: ErrorInfo, *, code: str, instance: str, request_id: str) -> ErrorBody:
    """Return the body of an error."""
    status = MEANINGS[error.code].status
    expires_at_ms = error.expires_at_ms
    told = Problem(
        code=code,
        detail=error.message,
        # Half a surrogate pair can come out of a path and not into JSON.
        instance=instance[:SHOWN_PATH_CHARS].encode(errors="replace").decode(),
        requestId=request_id,
        status=status,
        title=HTTPStatus(status).phrase,
        error=ProblemError(code=code, message=error.message),
        approval_id=error.approval,
        expires_at=None if expires_at_ms is None else iso(expires_at_ms / 1000),
    )
    return ErrorBody(PROBLEM_JSON, encode(told))
