"""The tool ledger: what was begun, and what came of it.

What holds for every store is said in `stores`.
"""

from typing import Final, Literal, Protocol

from msgspec import Struct

from kitemesh_contracts.content import CallResult

Effect = Literal["safe", "keyed", "once"]
"""`safe` may run any number of times, `keyed` again under the same key, `once` never a second time."""


GIVEN_UP: Final = "given-up"
"""Stands as `by` in the rows of calls that had not begun when their turn was given up."""


LedgerState = Literal["dispatched", "finished", "unknown", "cancelled"]


class LedgerRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call with an effect.

    Attributes:
        by: Random for each delivery: tells one's own row from another's.
        result: Also kept when it came too late, after `unknown`.
        late: The result came after the call was given up as unknown.

    """

    id: str
    tenant: str
    turn: str
    tool: str
    effect: Effect
    state: LedgerState
    by: str
    args_sha256: str
    result: CallResult | None = None
    late: bool = False
    dispatched_at_s: float = 0.0
    ended_at_s: float | None = None


class Ledger(Protocol):
    """The tool ledger: the insert of a row is the dispatch of its call, and whoever inserts it first wins."""

    async def dispatch(self, tenant: str, row: LedgerRow) -> LedgerRow:
        """Insert a row as `dispatched` (or `cancelled`, to win against a dispatch) and return what is stored.

        The row is the caller's when its `by` is. Majority, before it returns; grouped. A row that was not there before
        comes back as it was given, without its times.

        Raises:
            Conflict: The row is another tenant's, or stands for other arguments and neither is `cancelled`
                (`store.duplicate`).

        """

    async def get(self, tenant: str, call: str) -> LedgerRow | None:
        """Return the row."""

    async def finish(self, tenant: str, call: str, by: str, result: CallResult) -> LedgerRow:
        """Store the result of the caller's dispatch and return the row; after `unknown` it is kept as late.

        Again changes nothing, and neither does who does not own the row.

        Raises:
            NotFound: There is no such row (`execution.unknown`); so do `take_over` and `give_up`.

        """

    async def take_over(self, tenant: str, row: LedgerRow, by: str) -> LedgerRow:
        """Make a `dispatched` row, as it was seen, the caller's, to run a `keyed` call again; return what is stored."""

    async def give_up(self, tenant: str, row: LedgerRow) -> LedgerRow:
        """Make a `dispatched` row, as it was seen, `unknown`; return what is stored."""

    async def reopen(self, tenant: str, call: str) -> None:
        """Remove a row that is `cancelled` by `GIVEN_UP`, so that the call may begin; any other stays."""

    async def unknown(self, tenant: str, *, limit: int = 100) -> list[LedgerRow]:
        """Return calls whose outcome is unknown, newest first."""
