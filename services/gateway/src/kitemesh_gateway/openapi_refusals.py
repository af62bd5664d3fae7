"""What operations are refused with, in `/openapi.json`. Pure."""

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

from kitemesh_contracts.errors import MEANINGS, ErrorCode
from kitemesh_contracts.headers import RETRY_AFTER, SHOULD_RETRY
from kitemesh_gateway.dialects.base import FINAL, JSON, RETRIED
from kitemesh_gateway.dialects.completions_errors import CODES, ErrorEnvelope
from kitemesh_gateway.dialects.problems import PROBLEM_JSON, Problem, code_of
from kitemesh_gateway.openapi_bodies import NAMED, Described, Schema, content, headers_of


def _meant(code: ErrorCode) -> int:
    return MEANINGS[code].status


class Refusal(NamedTuple):
    """How a route family refuses.

    Attributes:
        media: Type of the body.
        body: What it is.
        codes: What codes are called there; any other goes out as it is.
        others: Type and body of the statuses that have one of their own.
        status: Of a code.

    """

    media: str
    body: Described
    codes: Mapping[ErrorCode, str] = {}
    others: Mapping[int, tuple[str, Described]] = {}
    status: Callable[[ErrorCode], int] = _meant


COMPLETIONS: Final = Refusal(JSON, ErrorEnvelope, CODES)
PROBLEMS: Final = Refusal(PROBLEM_JSON, Problem)
RUN_PROBLEMS: Final = Refusal(PROBLEM_JSON, Problem, {code: code_of(_meant(code)) for code in ErrorCode})


def refusals(codes: Sequence[ErrorCode], refusal: Refusal = COMPLETIONS) -> Schema:
    """Describe what an operation may be refused with, by status."""
    described: Schema = {}
    for status in sorted({refusal.status(code) for code in codes}):
        mine = [code for code in codes if refusal.status(code) == status]
        told = dict.fromkeys(refusal.codes.get(code, code.value) for code in mine)
        headers = dict(NAMED)
        if status in RETRIED:
            headers[RETRY_AFTER] = "Seconds after which a retry may succeed."
        if any(code in FINAL or MEANINGS[code].outcome == "failed" for code in mine):
            headers[SHOULD_RETRY] = "`false` where a retry would run a tool once more, or end the same way."
        media, body = refusal.others.get(status, (refusal.media, refusal.body))
        described[str(status)] = {
            "description": f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in told)}",
            "content": content(media, body),
            "headers": headers_of(headers),
        }
    return described
