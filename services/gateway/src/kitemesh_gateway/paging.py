"""The pages of the native lists: what a query may say, and the cursors that continue a list."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from kitemesh_contracts.ids import is_id
from kitemesh_gateway.dialects.base import Mistake, Mistakes
from kitemesh_gateway.exchange import Exchange

PAGE: Final = 20
PAGE_MAX: Final = 100
READS_MAX: Final = 10
"""From the store for one page: where few entries fit, it is short, and the next one goes on."""


class PageQuery(NamedTuple):
    """What a page is asked for.

    Attributes:
        before: The id of the last one seen.
        ids: What is asked for besides, by the name of its parameter.

    """

    status: str | None
    before: str | None
    limit: int
    ids: dict[str, str]


def read_query(exchange: Exchange, statuses: Sequence[str], ids: Sequence[str] = ()) -> PageQuery:
    """Read the query of a request.

    Args:
        exchange: The request.
        statuses: What `status` may be; none where the list knows no such parameter.
        ids: Further parameters, each an id.

    Raises:
        Mistakes: With everything that is wrong.

    """
    query = exchange.request.query
    names = ("status", *ids, "cursor", "limit")
    mistakes = [Mistake(name, "must be given once") for name in names if len(query.getall(name, [])) > 1]
    status, cursor, limit = query.get("status"), query.get("cursor"), query.get("limit", str(PAGE))
    if status is not None and statuses and status not in statuses:
        mistakes.append(Mistake("status", f"must be one of {', '.join(statuses)}"))
    given = {name: query[name] for name in ids if name in query}
    mistakes += [
        Mistake(name, "must be an id: 1 to 64 of A-Z, a-z, 0-9, _ and -")
        for name, value in given.items()
        if not is_id(value)
    ]
    if cursor is not None and not is_id(cursor):
        mistakes.append(Mistake("cursor", "must be a next_cursor of this list"))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= len(str(PAGE_MAX)) and 1 <= int(limit) <= PAGE_MAX):
        mistakes.append(Mistake("limit", f"must be a number from 1 to {PAGE_MAX}"))
    if mistakes:
        raise Mistakes(mistakes)
    return PageQuery(status, cursor, int(limit), given)


def cursor_of(last: str | None) -> str | None:
    """Return the cursor that continues a list behind an id; `None` at its end.

    It is that id, so `/openapi.json` can say what a cursor looks like: what looks like one is one.
    """
    return last
