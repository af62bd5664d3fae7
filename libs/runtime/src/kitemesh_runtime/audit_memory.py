"""The memory twin of `Audit`."""

from msgspec.structs import replace

from kitemesh_contracts.errors import Bug, Conflict, ErrorCode
from kitemesh_runtime.audit import AuditRow
from kitemesh_runtime.clock import Clock


class MemoryAudit:
    """The `Audit` port in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: dict[str, AuditRow] = {}

    async def append(self, tenant: str, row: AuditRow) -> None:
        """Note a deed. Twice is the same as once."""
        if row.tenant != tenant:
            raise Bug("a deed was to be noted for another tenant than its own")
        at_s = row.at_s or self._clock.now_ms() / 1000
        noted = self._rows.setdefault(row.id, replace(row, calls=dict(row.calls), at_s=at_s))
        if noted.tenant != tenant:
            raise Conflict(ErrorCode.DUPLICATE, "it exists already")

    async def about(self, tenant: str, subject: str) -> list[AuditRow]:
        """Return what was done to a subject, oldest first."""
        mine = [row for row in self._rows.values() if (row.tenant, row.subject) == (tenant, subject)]
        return sorted(mine, key=lambda row: (row.at_s, row.id))

    async def page(self, tenant: str, *, subject: str | None, before: str | None, limit: int) -> list[AuditRow]:
        """Return what was done, newest first."""
        mine = [row for row in self._rows.values() if row.tenant == tenant and subject in (None, row.subject)]
        newest = sorted(mine, key=lambda row: (row.at_s, row.id), reverse=True)
        if before is not None:
            last = self._rows.get(before)
            if last is None or last.tenant != tenant:
                return []
            newest = [row for row in newest if (row.at_s, row.id) < (last.at_s, last.id)]
        return newest[:limit]
