"""What the route of usage answers, and how it is rendered. Pure."""

from collections.abc import Iterable

from msgspec import Struct

from kitemesh_gateway.instants import iso
from kitemesh_runtime.usage import By, UsageRow


class UsageOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the turns of one day, model, key or tenant cost together; one of the first four is there.

    Attributes:
        day: `YYYY-MM-DD`, in UTC.
        model: That answered; as the request named it, where none did.
        key: Its id; empty for requests without a credential.
        turns: Those that have ended.
        cached_tokens: The part of `input_tokens` that providers read from their caches.
        reasoning_tokens: The part of `output_tokens` that was reasoning.

    """

    day: str | None = None
    model: str | None = None
    key: str | None = None
    tenant: str | None = None
    turns: int
    completed: int
    failed: int
    cancelled: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int


class UsagePage(Struct, frozen=True, kw_only=True):
    """Usage, the latest day first, else by name.

    Attributes:
        as_of: Turns that ended before are counted; `null` when none ever was.
        next_cursor: Continues the list; `null` at its end.

    """

    data: tuple[UsageOut, ...]
    as_of: str | None
    next_cursor: str | None


def usage_out(row: UsageRow, by: By) -> UsageOut:
    """Render a row."""
    return UsageOut(
        day=row.name if by == "day" else None,
        model=row.name if by == "model" else None,
        key=row.name if by == "key" else None,
        tenant=row.name if by == "tenant" else None,
        turns=row.turns,
        completed=row.completed,
        failed=row.failed,
        cancelled=row.cancelled,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cached_tokens=row.cached_tokens,
        reasoning_tokens=row.reasoning_tokens,
    )


def usage_page(rows: Iterable[UsageRow], by: By, *, as_of_s: float, cursor: str | None) -> UsagePage:
    """Render a page."""
    return UsagePage(
        data=tuple(usage_out(row, by) for row in rows),
        as_of=iso(as_of_s) if as_of_s else None,
        next_cursor=cursor,
    )
