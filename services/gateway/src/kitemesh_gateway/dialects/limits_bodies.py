"""Limits, and the names beside them, as the routes of keys and tenants take them."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from kitemesh_contracts.ids import is_id
from kitemesh_gateway.dialects.completions_messages import Body
from kitemesh_gateway.dialects.mistakes import wrong
from kitemesh_runtime.tenancy import Limits

ID_PATTERN: Final = "^[A-Za-z0-9_-]{1,64}$"
MODELS_MAX: Final = 1000
MODEL_MAX_CHARS: Final = 256
LIMIT_MAX: Final = 1_000_000_000

Bound = Annotated[int, Field(ge=1, le=LIMIT_MAX)]


def _check_id(text: str) -> str:
    if not is_id(text):
        raise wrong("must be 1 to 64 of A-Z, a-z, 0-9, _ and -")
    return text


def _check_line(text: str) -> str:
    if not text.isprintable():
        raise wrong("must be printable characters")
    return text


Id = Annotated[str, AfterValidator(_check_id), Field(json_schema_extra={"pattern": ID_PATTERN})]
Line = Annotated[str, AfterValidator(_check_line)]
Models = Annotated[
    tuple[Annotated[Line, Field(min_length=1, max_length=MODEL_MAX_CHARS)], ...],
    Field(max_length=MODELS_MAX, strict=False),
]
PriorityIn = Literal["interactive", "batch"]


class LimitsIn(Body):
    """Bounds; what is not given, or `null`, is not bounded here."""

    requests_per_minute: Annotated[Bound | None, Field(description="That start or resume a turn.")] = None
    tokens_per_minute: Annotated[Bound | None, Field(description="In and out.")] = None
    concurrent_turns: Annotated[Bound | None, Field(description="That are queued or run.")] = None


def limits_of(given: LimitsIn) -> Limits:
    """Return the limits that were given."""
    return Limits(
        requests_per_minute=given.requests_per_minute,
        tokens_per_minute=given.tokens_per_minute,
        concurrent_turns=given.concurrent_turns,
    )
