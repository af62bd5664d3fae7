"""The native routes: this server's own shapes, and problem details (RFC 9457) for everything that is refused.

Where one of them runs a turn, it is asked for as in `completions`, and streamed in events of its own.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from msgspec import Struct

from kitemesh_contracts.codec import encode
from kitemesh_contracts.errors import MEANINGS, ErrorInfo
from kitemesh_gateway.dialects.base import SSE_HEADERS, ErrorBody, Facts, TurnRequest
from kitemesh_gateway.dialects.native_bodies import parse_background
from kitemesh_gateway.dialects.native_stream import NativeEncoder

PROBLEM_JSON: Final = "application/problem+json"
SHOWN_PATH_CHARS: Final = 256


class ProblemError(Struct, frozen=True, kw_only=True):
    """The same once more, where other clients look for it."""

    code: str
    message: str


class Problem(Struct, frozen=True, kw_only=True):
    """Body of every refusal of the native routes.

    Attributes:
        code: What happened, one stable word.
        detail: What happened, for people; everything that is wrong with a request at once.
        instance: The path of the request.
        requestId: Also in the header `x-request-id`.
        title: What the status is called.

    """

    code: str
    detail: str
    instance: str
    requestId: str  # noqa: N815  the wire's name
    status: int
    title: str
    error: ProblemError


class Native:
    """`/v1/approvals` and `/v1/executions`."""

    name = "native"
    stream_headers: Mapping[str, str] = SSE_HEADERS

    def parse(self, body: object) -> TurnRequest:
        """Validate a decoded body."""
        return parse_background(body)

    def encoder(self, facts: Facts) -> NativeEncoder:
        """Return the encoder of one answer."""
        return NativeEncoder(facts)

    def refusal(self, error: ErrorInfo, *, request_id: str, param: str | None, path: str = "") -> ErrorBody:  # noqa: ARG002  the detail names every field
        """Return the body of an error."""
        status = MEANINGS[error.code].status
        code = error.code.value
        problem = Problem(
            code=code,
            detail=error.message,
            # Half a surrogate pair can come out of a path and not into JSON.
            instance=path[:SHOWN_PATH_CHARS].encode(errors="replace").decode(),
            requestId=request_id,
            status=status,
            title=HTTPStatus(status).phrase,
            error=ProblemError(code=code, message=error.message),
        )
        return ErrorBody(PROBLEM_JSON, encode(problem))
