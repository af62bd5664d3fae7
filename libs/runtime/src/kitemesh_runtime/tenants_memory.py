"""The memory twin of `Tenants`."""

from msgspec.structs import replace

from kitemesh_runtime.clock import Clock
from kitemesh_runtime.tenancy import Changes, TenantRecord


class MemoryTenants:
    """The `Tenants` port in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: dict[str, TenantRecord] = {}
        self._changed: dict[str, float] = {}

    async def get(self, tenant: str) -> TenantRecord | None:
        """Return the record, or `None` when nothing was ever said."""
        return self._records.get(tenant)

    async def put(self, record: TenantRecord) -> TenantRecord:
        """Store it in the place of what was said, and return it as it is stored."""
        now_s = self._clock.now_ms() / 1000
        self._changed[record.id] = now_s
        stored = self._records[record.id] = replace(record, updated_at_s=now_s)
        return stored

    async def remove(self, tenant: str) -> bool:
        """Take back all that was said; tell whether there was anything."""
        if self._records.pop(tenant, None) is None:
            return False
        self._changed[tenant] = self._clock.now_ms() / 1000
        return True

    async def page(self, *, after: str = "", limit: int = 100) -> list[TenantRecord]:
        """List records by name."""
        return [self._records[name] for name in sorted(self._records) if name > after][:limit]

    async def changes(self, since: float) -> Changes:
        """Return which records were put or removed since a mark; 0 is the beginning."""
        changed = [name for name, at_s in self._changed.items() if at_s >= since]
        return Changes(changed, self._clock.now_ms() / 1000)
