"""The memory twin of `Keys`."""

from msgspec.structs import replace

from kitemesh_contracts.errors import Bug, Conflict, ErrorCode
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.stores import KeyRecord


class MemoryKeys:
    """The `Keys` port in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: dict[str, KeyRecord] = {}

    async def put(self, tenant: str, record: KeyRecord) -> None:
        """Store a new key."""
        if record.tenant != tenant:
            raise Bug("a key was to be stored for another tenant than its own")
        if record.id in self._records or await self.find(record.digest) is not None:
            raise Conflict(ErrorCode.DUPLICATE, "it exists already")
        self._records[record.id] = record

    async def find(self, digest: str) -> KeyRecord | None:
        """Return the key with that digest, of whatever tenant."""
        return next((record for record in self._records.values() if record.digest == digest), None)

    async def revoke(self, tenant: str, key: str) -> KeyRecord | None:
        """Revoke the key for good and return it; again is the same. `None` when there is none."""
        record = self._records.get(key)
        if record is None or record.tenant != tenant:
            return None
        if record.revoked_at_s is None:
            record = self._records[key] = replace(record, revoked_at_s=self._clock.now_ms() / 1000)
        return record

    async def list(self, tenant: str) -> list[KeyRecord]:
        """Return the tenant's keys, newest first."""
        mine = [record for record in self._records.values() if record.tenant == tenant]
        return sorted(mine, key=lambda record: (record.created_at_s, record.id), reverse=True)
