"""What a reader of a tenant's news asks for, or everything that is wrong with it. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from kitemesh_contracts.headers import LAST_EVENT_ID
from kitemesh_contracts.news import NEWS_TYPES, NewsItem, NewsType
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway.auth import Principal
from kitemesh_gateway.dialects.base import Mistake, Mistakes
from kitemesh_gateway.feeds import Place

PATTERNS: Final = ("turn.*", "approval.*")
_NEEDS: Final[Mapping[NewsType, Scope]] = {
    kind: Scope.APPROVE if kind.startswith("approval.") else Scope.CHAT for kind in NEWS_TYPES
}
"""As the routes demand that show the same."""
_PLACE: Final = re.compile(r"\A([0-9]{1,18})-([0-9a-f]{8})\Z")


class Wanted(NamedTuple):
    """What a reader is told.

    Attributes:
        after: Behind which message; `None`: what is told from now on.

    """

    types: frozenset[NewsType]
    after: Place | None

    def check(self, principal: Principal) -> None:
        """Refuse a key that may not know all of it.

        Raises:
            KitemeshError: It lacks a scope (`permission.denied`).

        """
        for scope in sorted({_NEEDS[kind] for kind in self.types}):
            principal.require(scope)

    def includes(self, item: NewsItem, principal: Principal) -> bool:
        """Tell whether somebody with that key wants to know it, and may."""
        return item.type in self.types and principal.allows(item.model)


def id_of(place: Place) -> bytes:
    """Return an event's id; `wanted` reads it again."""
    return b"%d-%08x" % place


def wanted(types: Sequence[str], last_event_id: str | None, principal: Principal) -> Wanted:
    """Read what is asked for.

    Args:
        types: Every `types` of the query; without one, it is all that the key may know.
        last_event_id: The header; empty is as good as none.
        principal: Who asks.

    Raises:
        Mistakes: With everything that is wrong.
        KitemeshError: The key lacks a scope (`permission.denied`).

    """
    mistakes = []
    if len(types) > 1:
        mistakes.append(Mistake("types", "must be given once"))
    asked = types[0].split(",") if types else []
    if not all(each in NEWS_TYPES or each in PATTERNS for each in asked):
        mistakes.append(Mistake("types", f"must be some of {', '.join((*NEWS_TYPES, *PATTERNS))}, with commas"))
    match = _PLACE.match(last_event_id) if last_event_id else None
    if last_event_id and match is None:
        mistakes.append(Mistake(LAST_EVENT_ID, "must be the id of an event of this stream"))
    if mistakes:
        raise Mistakes(mistakes)
    if asked:
        kinds = [kind for kind in NEWS_TYPES if kind in asked or f"{kind.partition('.')[0]}.*" in asked]
    else:
        kinds = [kind for kind in NEWS_TYPES if _NEEDS[kind] in principal.scopes]
        if not kinds:
            principal.require(Scope.CHAT)
    found = Wanted(frozenset(kinds), None if match is None else Place(int(match[1]), int(match[2], 16)))
    found.check(principal)
    return found
