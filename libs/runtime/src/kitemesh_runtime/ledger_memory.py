"""The memory twin of `Ledger`."""

from msgspec.structs import replace

from kitemesh_contracts.content import CallResult
from kitemesh_contracts.errors import Bug, Conflict, ErrorCode, NotFound
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.ledger import GIVEN_UP, LedgerRow


class MemoryLedger:
    """The `Ledger` port in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: dict[str, LedgerRow] = {}

    async def dispatch(self, tenant: str, row: LedgerRow) -> LedgerRow:
        """Insert a row as `dispatched` (or `cancelled`, to win against a dispatch)."""
        if row.tenant != tenant:
            raise Bug("a call was to be dispatched for another tenant than its own")
        stored = self._rows.get(row.id)
        if stored is None:
            now_s = self._now_s()
            ended_at_s = None if row.state == "dispatched" else now_s
            self._rows[row.id] = replace(row, dispatched_at_s=now_s, ended_at_s=ended_at_s)
            return row
        same = stored.args_sha256 == row.args_sha256 or "cancelled" in (stored.state, row.state)
        if stored.tenant != tenant or not same:
            raise Conflict(ErrorCode.DUPLICATE, "it exists already")
        return stored

    async def get(self, tenant: str, call: str) -> LedgerRow | None:
        """Return the row."""
        row = self._rows.get(call)
        return row if row is not None and row.tenant == tenant else None

    async def finish(self, tenant: str, call: str, by: str, result: CallResult) -> LedgerRow:
        """Store the result of the caller's dispatch and return the row; after `unknown` it is kept as late."""
        row = await self._existing(tenant, call)
        if row.by == by and row.result is None:
            if row.state == "dispatched":
                row = replace(row, state="finished", result=result, ended_at_s=self._now_s())
            elif row.state == "unknown":
                row = replace(row, result=result, late=True)
            self._rows[call] = row
        return row

    async def take_over(self, tenant: str, row: LedgerRow, by: str) -> LedgerRow:
        """Make a `dispatched` row, as it was seen, the caller's, to run a `keyed` call again; return what is stored."""
        stored = await self._existing(tenant, row.id)
        if (stored.state, stored.by) == ("dispatched", row.by):
            stored = self._rows[row.id] = replace(stored, by=by)
        return stored

    async def give_up(self, tenant: str, row: LedgerRow) -> LedgerRow:
        """Make a `dispatched` row, as it was seen, `unknown`; return what is stored."""
        stored = await self._existing(tenant, row.id)
        if (stored.state, stored.by) == ("dispatched", row.by):
            stored = self._rows[row.id] = replace(stored, state="unknown", ended_at_s=self._now_s())
        return stored

    async def reopen(self, tenant: str, call: str) -> None:
        """Remove a row that is `cancelled` by `GIVEN_UP`, so that the call may begin; any other stays."""
        row = await self.get(tenant, call)
        if row is not None and (row.state, row.by) == ("cancelled", GIVEN_UP):
            del self._rows[call]

    async def unknown(self, tenant: str, *, limit: int = 100) -> list[LedgerRow]:
        """Return calls whose outcome is unknown, newest first."""
        mine = [row for row in self._rows.values() if row.tenant == tenant and row.state == "unknown"]
        return sorted(mine, key=lambda row: (row.dispatched_at_s, row.id), reverse=True)[:limit]

    async def _existing(self, tenant: str, call: str) -> LedgerRow:
        row = await self.get(tenant, call)
        if row is None:
            raise NotFound(ErrorCode.EXECUTION_UNKNOWN, "there is no such call")
        return row

    def _now_s(self) -> float:
        return self._clock.now_ms() / 1000
