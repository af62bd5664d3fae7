"""Calls that wait for a person.

What holds for every store is said in `stores`.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from msgspec import Struct

from kitemesh_runtime.ledger import Effect

HoldStatus = Literal["open", "decided", "expired", "cancelled"]


class Verdict(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a person decided of one call.

    Attributes:
        arguments: Canonical JSON text to run instead; `None` leaves the call's own.
        sha256: Of `arguments`.
        by: The key's id; empty for the anonymous principal.
        origin: The address that it came from.
        at_s: Epoch seconds of the database's clock; set by the store.

    """

    approved: bool
    reason: str = ""
    arguments: str | None = None
    sha256: str = ""
    by: str = ""
    origin: str = ""
    at_s: float = 0.0


class HeldCall(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call exactly as it will run.

    Attributes:
        arguments: Canonical JSON text, secrets included: never shown as it is.
        sentence: The call for people, secrets masked.
        shown: The arguments for people: canonical JSON text, secrets masked.

    """

    id: str
    name: str
    version: str
    effect: Effect
    arguments: str
    sha256: str
    sentence: str
    shown: str
    verdict: Verdict | None = None


class Hold(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Calls of one step that wait for a person. Its id is the public approval id.

    Attributes:
        scope: What a key needs to decide it.
        together: One answer must decide every call.
        version: Counts its writes, from 1.
        applied: The newest version that the turn has taken note of.
        texts: User messages to append behind the results, as the answers brought them.
        reason: Why it was cancelled.

    """

    id: str
    tenant: str
    turn: str
    step: int
    model: str
    calls: tuple[HeldCall, ...]
    status: HoldStatus = "open"
    scope: str = "approve"
    together: bool = False
    conversation: str | None = None
    agent: str | None = None
    version: int = 1
    applied: int = 1
    texts: tuple[str, ...] = ()
    reason: str = ""
    created_at_s: float = 0.0
    expires_at_s: float = 0.0


class Decided(NamedTuple):
    """What `decide` answered.

    Attributes:
        won: The caller's write changed the hold.
        hold: As it is now; `None` when there is no such hold of the tenant.

    """

    won: bool
    hold: Hold | None


class Holds(Protocol):
    """Holds. Only a conditional write changes a status, and each write counts as a version."""

    async def open(self, tenant: str, hold: Hold, *, expires_after_s: float) -> Hold:
        """Store a hold that runs out by the database's clock, and return what is stored; again changes nothing.

        What is stored may have other calls: somebody may have seen them, so an id never stands for others later.

        Raises:
            Conflict: The id is another tenant's (`store.duplicate`), or it was erased (`store.stale`).

        """

    async def get(self, tenant: str, hold: str) -> Hold | None:
        """Return the hold."""

    async def page(self, tenant: str, *, status: HoldStatus | None, before: str | None, limit: int) -> list[Hold]:
        """Return holds, newest first; `before` is the id of the last one seen, and nothing is behind an unknown one."""

    async def decide(
        self, tenant: str, hold: str, verdicts: dict[str, Verdict], *, texts: Sequence[str] = ()
    ) -> Decided:
        """Decide calls in one write, if the hold is open, has not run out, and has none of these decided.

        The last call decided makes the status `decided`. `texts` are kept only when the write wins.
        """

    async def expire(self, tenant: str, hold: str) -> Hold | None:
        """End an open hold whose time has come by the database's clock; return it as it is now."""

    async def cancel(self, tenant: str, hold: str, reason: str, *, only_open: bool = False) -> Hold | None:
        """End an open hold, or one decided and not yet applied unless `only_open`; return it as it is now."""

    async def applied(self, tenant: str, hold: str, *, version: int) -> None:
        """Note that the turn has taken note of that version; a smaller one changes nothing."""

    async def due(self, *, limit: int = 100) -> list[Hold]:
        """Return open holds that have run out, and those not `applied` for 5 s, of all tenants.

        What cannot be read is left out, logged, and not looked at again for a minute.
        """

    async def count_open(self) -> int:
        """Count open holds of all tenants, up to a bound; for a gauge."""

    async def oldest_open_s(self) -> float:
        """Return the age of the oldest open hold of all tenants by the database's clock; 0 without one."""

    async def erase(self, tenant: str, *, conversation: str | None = None, turns: Sequence[str] = ()) -> None:
        """Empty the holds of a conversation, and of turns; nothing is written to them for an hour, then they go."""
