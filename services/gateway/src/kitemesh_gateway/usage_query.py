"""What a request for usage may say, and the cursors that continue its list. Pure; which day it is, is told."""

import re
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final, NamedTuple, Protocol, cast, get_args

from kitemesh_contracts.ids import is_id
from kitemesh_gateway.dialects.base import Mistake, Mistakes
from kitemesh_gateway.paging import PAGE, PAGE_MAX
from kitemesh_runtime.usage import By, Period

BYS: Final[tuple[By, ...]] = get_args(By)
DAYS: Final = 30
DAYS_MAX: Final = 400
CURSOR_MAX_BYTES: Final = 256
CURSOR_PATTERN: Final = f"^([0-9a-f]{{2}}){{1,{CURSOR_MAX_BYTES}}}$"
DAY_PATTERN: Final = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_DAY: Final = re.compile(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_FIRST_YEAR: Final = 1970


class Query(Protocol):
    """The parameters of a request."""

    def getall(self, key: str, default: Sequence[str], /) -> Sequence[str]:
        """Return every value of one."""


class UsageQuery(NamedTuple):
    """What is asked for.

    Attributes:
        tenant: Whose; `None` where none is named.
        after: The name of the last row seen.

    """

    period: Period
    by: By
    tenant: str | None
    after: str | None
    limit: int


def read_usage_query(query: Query, today: date) -> UsageQuery:
    """Read the query of a request.

    Raises:
        Mistakes: With everything that is wrong.

    """
    mistakes: list[Mistake] = []

    def one(name: str) -> str | None:
        given = query.getall(name, ())
        if len(given) > 1:
            mistakes.append(Mistake(name, "must be given once"))
        return given[0] if given else None

    def day(name: str) -> date | None:
        text = one(name)
        found = None if text is None else _day(text)
        if text is not None and found is None:
            mistakes.append(Mistake(name, "must be a day as YYYY-MM-DD"))
        return found

    first, last = day("from"), day("to")
    by, tenant, cursor, limit = one("by") or "day", one("tenant"), one("cursor"), one("limit") or str(PAGE)
    last = last or max(today, first or today)
    first = first or last - timedelta(days=DAYS - 1)
    if first > last:
        mistakes.append(Mistake("from", "must not be after `to`"))
    if (last - first).days >= DAYS_MAX:
        mistakes.append(Mistake("from", f"must not be more than {DAYS_MAX} days before `to`"))
    if by not in BYS:
        mistakes.append(Mistake("by", f"must be one of {', '.join(BYS)}"))
    if tenant is not None and not is_id(tenant):
        mistakes.append(Mistake("tenant", "must be an id: 1 to 64 of A-Z, a-z, 0-9, _ and -"))
    if tenant is not None and by == "tenant":
        mistakes.append(Mistake("tenant", "must not be given with by=tenant"))
    after = None if cursor is None else _after(cursor)
    if cursor is not None and after is None:
        mistakes.append(Mistake("cursor", "must be a next_cursor of this list"))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= len(str(PAGE_MAX)) and 1 <= int(limit) <= PAGE_MAX):
        mistakes.append(Mistake("limit", f"must be a number from 1 to {PAGE_MAX}"))
    if mistakes:
        raise Mistakes(mistakes)
    return UsageQuery(Period(first, last), cast("By", by), tenant, after, int(limit))


def cursor_behind(name: str) -> str:
    """Return the cursor that continues a list behind a row: its name, which may be empty or hold any character."""
    return f"={name}".encode().hex()


def _after(cursor: str) -> str | None:
    """Return the name in a cursor: anything that looks like one is one."""
    if not cursor or len(cursor) > 2 * CURSOR_MAX_BYTES or cursor.strip("0123456789abcdef") or len(cursor) % 2:
        return None
    return bytes.fromhex(cursor).decode(errors="replace")[1:]


def _day(text: str) -> date | None:
    if _DAY.match(text) is None:
        return None
    try:
        found = date.fromisoformat(text)
    except ValueError:
        return None
    return found if found.year >= _FIRST_YEAR and found != date.max else None
