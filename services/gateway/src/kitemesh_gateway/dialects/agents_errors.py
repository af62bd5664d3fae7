"""Errors of `/api/agents/{id}/chat`: one object, and fewer statuses than elsewhere. Pure.

Whatever went wrong behind this server is a 500 that says no more, and a conversation that takes no message now a 429.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import UNSET, Struct, UnsetType

from kitemesh_contracts.codec import encode
from kitemesh_contracts.errors import MEANINGS, ErrorCode, ErrorInfo
from kitemesh_gateway.dialects.base import JSON, ErrorBody, Mistake, Refused
from kitemesh_gateway.instants import iso

INVALID: Final = "Invalid message"
LIMITED: Final = "Rate limited"
FAILED: Final = "AI service error"
NO_AGENT: Final = "There is no such agent, or it is not available to this key"
MESSAGE: Final = "message"
_LIMITED_STATUS: Final = 429
_FAILED_STATUS: Final = 500

STATUSES: Final[Mapping[int, int]] = {502: _FAILED_STATUS, 504: _FAILED_STATUS}
"""Statuses that are another one here."""


class ErrorOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong.

    Attributes:
        code: The status.
        approval_id: What the conversation waits for, where that is why.
        expires_at: When it ends by itself, ISO 8601 in UTC.

    """

    code: int
    message: str
    approval_id: str | UnsetType = UNSET
    expires_at: str | UnsetType = UNSET


class ErrorEnvelope(Struct, frozen=True, kw_only=True):
    """Body of every refusal."""

    error: ErrorOut


def status_of(code: ErrorCode) -> int:
    """Return the status of an error."""
    if code is ErrorCode.CONVERSATION_BUSY:
        return _LIMITED_STATUS
    status = MEANINGS[code].status
    return STATUSES.get(status, status)


def sentence_of(error: ErrorInfo, mistakes: tuple[Mistake, ...] = ()) -> str:
    """Say what went wrong, in the words of this family where it has some."""
    status = status_of(error.code)
    if status == _FAILED_STATUS:
        return FAILED
    if status == _LIMITED_STATUS:
        return LIMITED
    if error.code is ErrorCode.MODEL_UNKNOWN:
        return NO_AGENT
    if any(mistake.field == MESSAGE for mistake in mistakes):
        others = [f"{mistake.field}: {mistake.what}" for mistake in mistakes if mistake.field != MESSAGE]
        return "; ".join([INVALID, *others])
    return error.message


def error_body(error: ErrorInfo, about: Refused) -> ErrorBody:
    """Return the body of an error, and its status."""
    status = status_of(error.code)
    expires_at_ms = error.expires_at_ms
    out = ErrorOut(
        code=status,
        message=sentence_of(error, about.mistakes),
        approval_id=UNSET if error.approval is None else error.approval,
        expires_at=UNSET if expires_at_ms is None else iso(expires_at_ms / 1000),
    )
    return ErrorBody(JSON, encode(ErrorEnvelope(error=out)), status)
