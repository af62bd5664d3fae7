"""The memory twin of `Keys`."""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from kitemesh_contracts.errors import Bug, Conflict, ErrorCode
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.keys import KeyChanges, KeyRecord
from kitemesh_runtime.tenancy import Changes


class MemoryKeys:
    """The `Keys` port in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: dict[str, KeyRecord] = {}
        self._by_digest: dict[str, str] = {}
        self._changed: dict[str, float] = {}

    async def put(self, tenant: str, record: KeyRecord) -> None:
        """Store a new key."""
        if record.tenant != tenant:
            raise Bug("a key was to be stored for another tenant than its own")
        if record.id in self._records or record.digest in self._by_digest:
            raise Conflict(ErrorCode.DUPLICATE, "it exists already")
        self._by_digest[record.digest] = record.id
        self._store(record)

    async def find(self, digest: str) -> KeyRecord | None:
        """Return the key with that digest, of whatever tenant."""
        return self._records.get(self._by_digest.get(digest, ""))

    async def get(self, tenant: str, key: str) -> KeyRecord | None:
        """Return the key."""
        record = self._records.get(key)
        return record if record is not None and record.tenant == tenant else None

    async def revoke(self, tenant: str, key: str) -> KeyRecord | None:
        """Revoke the key for good and return it; again is the same. `None` when there is none."""
        record = await self.get(tenant, key)
        if record is None:
            return None
        return self._store(record if record.revoked_at_s is not None else replace(record, revoked_at_s=self._now_s()))

    async def update(self, tenant: str, key: str, changes: KeyChanges) -> KeyRecord | None:
        """Change the key and return it; `None` when there is none."""
        record = await self.get(tenant, key)
        if record is None:
            return None
        fields = {name: getattr(changes, name) for name in changes.__struct_fields__}
        fields = {name: value for name, value in fields.items() if value is not msgspec.UNSET}
        if changes.scopes is not msgspec.UNSET:
            fields["scopes"] = tuple(scope for scope in record.scopes if scope in changes.scopes)
        return self._store(replace(record, **fields))

    async def replace(self, tenant: str, key: str, *, by: str, grace_s: float) -> KeyRecord | None:
        """Have a key run out and name its successor; return it as it is then, `None` when it cannot."""
        record, now_s = await self.get(tenant, key), self._now_s()
        if record is None or record.revoked_at_s is not None or record.rotated_to:
            return None
        if record.expires_at_s is not None and record.expires_at_s <= now_s:
            return None
        until_s = now_s + grace_s
        expires_at_s = until_s if record.expires_at_s is None else min(record.expires_at_s, until_s)
        return self._store(replace(record, expires_at_s=expires_at_s, rotated_to=by))

    async def changes(self, since: float | None) -> Changes:
        """Return the ids of keys, of all tenants, that were stored or changed since a mark; `None` begins with now."""
        if since is None:
            return Changes((), self._now_s())
        return Changes([key for key, at_s in self._changed.items() if at_s >= since], self._now_s())

    async def page(self, tenant: str, *, before: str | None, limit: int) -> Sequence[KeyRecord]:
        """Return keys, newest first; `before` is the id of the last one seen, and nothing is behind an unknown one."""
        mine = await self.list(tenant)
        if before is not None:
            places = [place for place, record in enumerate(mine) if record.id == before]
            mine = mine[places[0] + 1 :] if places else []
        return mine[:limit]

    async def list(self, tenant: str) -> list[KeyRecord]:
        """Return the tenant's keys, newest first."""
        mine = [record for record in self._records.values() if record.tenant == tenant]
        return sorted(mine, key=lambda record: (record.created_at_s, record.id), reverse=True)

    def _store(self, record: KeyRecord) -> KeyRecord:
        self._changed[record.id] = self._now_s()
        self._records[record.id] = record
        return record

    def _now_s(self) -> float:
        return self._clock.now_ms() / 1000
