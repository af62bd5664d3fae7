"""Errors of `POST /run/v1/chat/completions`: three bodies of its own, and problem details for all the others. Pure."""

from http import HTTPStatus

from msgspec import Struct

from kitemesh_contracts.codec import encode
from kitemesh_contracts.errors import MEANINGS, ErrorInfo
from kitemesh_gateway.dialects.base import JSON, ErrorBody, Refused
from kitemesh_gateway.dialects.problems import problem_body


class FieldOut(Struct, frozen=True, kw_only=True):
    """One thing that is wrong.

    Attributes:
        field: Dotted path; empty for the body as a whole.
        value: What stands there; null where nothing does, or something long or compound.

    """

    field: str
    message: str
    value: str | float | bool | None


class InvalidOut(Struct, frozen=True, kw_only=True):
    """The answer to a request that is wrong.

    Attributes:
        details: Everything that is wrong, where it is the fields.

    """

    error: str
    details: tuple[FieldOut, ...]


class MissingOut(Struct, frozen=True, kw_only=True):
    """The answer to a request that names what there is not."""

    error: str


class FailedOut(Struct, frozen=True, kw_only=True):
    """The answer when something broke here."""

    error: str
    message: str


def error_body(error: ErrorInfo, about: Refused) -> ErrorBody:
    """Return the body of an error."""
    match HTTPStatus(MEANINGS[error.code].status):
        case HTTPStatus.BAD_REQUEST:
            details = tuple(
                FieldOut(field=mistake.field, message=mistake.what, value=mistake.value) for mistake in about.mistakes
            )
            return ErrorBody(JSON, encode(InvalidOut(error=error.message, details=details)))
        case HTTPStatus.NOT_FOUND:
            return ErrorBody(JSON, encode(MissingOut(error=error.message)))
        case HTTPStatus.INTERNAL_SERVER_ERROR as status:
            return ErrorBody(JSON, encode(FailedOut(error=status.phrase, message=error.message)))
        case _:
            return problem_body(error, about)
