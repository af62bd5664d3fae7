"""Errors as OpenAI-compatible clients read them. Pure."""

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

from kitemesh_contracts.codec import encode
from kitemesh_contracts.errors import MEANINGS, ErrorCode, ErrorInfo
from kitemesh_gateway.instants import iso

ErrorType = Literal[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "conflict_error",
    "gone_error",
    "rate_limit_error",
    "internal_error",
    "upstream_error",
    "unavailable",
    "upstream_timeout",
]

TYPES: Final[Mapping[int, ErrorType]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "conflict_error",
    410: "gone_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "internal_error",
    502: "upstream_error",
    503: "unavailable",
    504: "upstream_timeout",
}
"""What a status is called."""

CODES: Final[Mapping[ErrorCode, str]] = {
    ErrorCode.MODEL_UNKNOWN: "model_not_found",
    ErrorCode.QUEUE_FULL: "queue_full",
    ErrorCode.CONVERSATION_FULL: "queue_full",
    ErrorCode.RATE_LIMITED: "rate_limit_exceeded",
    ErrorCode.CONCURRENCY_LIMITED: "concurrency_limit_exceeded",
    ErrorCode.UPSTREAM_LIMITED: "rate_limit_exceeded",
    ErrorCode.UPSTREAM_CONTEXT: "context_length_exceeded",
}
"""Codes that clients know by another name; every other one goes out as it is."""

PARAMS: Final[Mapping[ErrorCode, str]] = {
    ErrorCode.MODEL_UNKNOWN: "model",
    ErrorCode.UPSTREAM_CONTEXT: "messages",
    ErrorCode.CONVERSATION_UNKNOWN: "metadata.conversation_id",
    ErrorCode.CONVERSATION_BUSY: "metadata.conversation_id",
    ErrorCode.CONVERSATION_FULL: "metadata.conversation_id",
    ErrorCode.CONVERSATION_HELD: "metadata.conversation_id",
    ErrorCode.IDEMPOTENCY_MISMATCH: "Idempotency-Key",
    ErrorCode.IDEMPOTENCY_PENDING: "Idempotency-Key",
    ErrorCode.EXECUTION_CLASSIC: "Last-Event-ID",
    ErrorCode.STREAM_GAP: "Last-Event-ID",
    ErrorCode.APPROVAL_UNKNOWN: "approval_id",
    ErrorCode.APPROVAL_GONE: "approval_id",
    ErrorCode.APPROVAL_DECIDED: "approval_id",
}
"""The field at fault where the code alone says it."""


class HeldOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The approval in the way.

    Attributes:
        expires_at: When it ends by itself, ISO 8601 in UTC.

    """

    approval_id: str
    expires_at: str | None = None


class ErrorOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong."""

    message: str
    type: ErrorType
    code: str
    param: str | None
    request_id: str
    kitemesh: HeldOut | None = None


class ErrorEnvelope(Struct, frozen=True, kw_only=True):
    """Body of every refusal, and the last event of a stream that could not finish."""

    error: ErrorOut


def error_body(error: ErrorInfo, *, request_id: str, param: str | None = None) -> bytes:
    """Return the JSON of an error."""
    return encode(
        ErrorEnvelope(
            error=ErrorOut(
                message=error.message,
                type=TYPES[MEANINGS[error.code].status],
                code=CODES.get(error.code, error.code.value),
                param=param or PARAMS.get(error.code),
                request_id=request_id,
                kitemesh=_held(error),
            ),
        ),
    )


def _held(error: ErrorInfo) -> HeldOut | None:
    if error.approval is None:
        return None
    expires_at_ms = error.expires_at_ms
    return HeldOut(approval_id=error.approval, expires_at=None if expires_at_ms is None else iso(expires_at_ms / 1000))
