"""What is said of all tenants, in memory: asking it costs no query, however many tenants there are.

It is read whole once; after that one question every 1.5 s finds what changed. It does not know who uses it, or for
what; who must not go by something old looks at `fresh_until_s`.
"""

import asyncio
from contextlib import suppress
from typing import Final

from msgspec.structs import replace

from kitemesh_contracts import subjects
from kitemesh_contracts.errors import ErrorCode, KitemeshError, Unavailable
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.tenancy import DEFAULT_DAYS, DEFAULT_TENANT, Kind, TenantRecord, Tenants, merge

POLL_S: Final = 1.5
TRUSTED_S: Final = 4.0
"""With `POLL_S` and the time of a question it makes less than the 5 s in which a change must be known everywhere."""
REFRESH_S: Final = 2.5
PAGE: Final = 250
SINGLY_MAX: Final = 100
"""More changes than this are read as pages of all tenants."""
WHOLE_AFTER_S: Final = 1800.0
"""After so long a silence of the store everything is read: what was removed is told for an hour only."""


class Directory:
    """All tenants.

    Args:
        tenants: The store.
        clock: Time.

    """

    def __init__(self, tenants: Tenants, clock: Clock) -> None:
        self._tenants: Final = tenants
        self._clock: Final = clock
        self._said: dict[str, TenantRecord] = {}
        self._merged: dict[str, TenantRecord] = {}
        self._default = TenantRecord(id=DEFAULT_TENANT)
        self._mark = 0.0
        self._refreshing: asyncio.Task[None] | None = None
        self._told = asyncio.Event()
        self.fresh_until_s = float("-inf")
        """Until when, on the monotonic clock, it may be trusted; in the past before it was ever read."""
        self.version = 0
        """Counts changes: as long as it is the same, so is every answer."""

    def of(self, tenant: str) -> TenantRecord:
        """Return what holds for a tenant: what is said of it and, where that says nothing, of all."""
        return self._merged.get(tenant) or replace(self._default, id=tenant)

    def days(self, tenant: str, kind: Kind) -> int:
        """Return for how many days something of a tenant is kept."""
        record = self._merged.get(tenant) or self._default
        return record.retention_days.get(kind) or DEFAULT_DAYS[kind]

    def said_of(self, tenant: str) -> TenantRecord | None:
        """Return what is said of that tenant alone."""
        return self._said.get(tenant)

    async def listen(self, bus: Bus) -> None:
        """Follow the broadcast of changed tenants: it makes prompt what the next question would find."""
        await bus.subscribe(subjects.TENANT_ALL, lambda _subject, _payload: self._told.set())

    async def refresh(self) -> None:
        """Read what changed, once for everybody who waits for it.

        Raises:
            Unavailable: The store does not answer; what was known stays.

        """
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(), name="directory-refresh")
            self._refreshing.add_done_callback(self._refreshed)
        # Who goes away must not take it from the others.
        await asyncio.shield(self._refreshing)

    async def begin(self) -> None:
        """Read everything if the store answers; else `run` goes on trying."""
        with suppress(KitemeshError):
            await self.refresh()

    async def run(self) -> None:
        """Keep up with what changes, for ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._told.wait()
            self._told.clear()
            await self.begin()

    def _refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if not task.cancelled():
            # Seen here, so that a failure nobody waits for any more is not reported as lost.
            task.exception()

    async def _refresh(self) -> None:
        began_s = self._clock.monotonic()
        is_whole = began_s > self.fresh_until_s + WHOLE_AFTER_S
        try:
            async with asyncio.timeout(REFRESH_S):
                changes = await self._tenants.changes(0.0 if is_whole else self._mark)
                if is_whole or len(changes.changed) > SINGLY_MAX:
                    self._take_all(await self._read_all())
                else:
                    for name in changes.changed:
                        self._take(name, await self._tenants.get(name))
        except TimeoutError as exc:
            message = "The store does not answer; try again"
            raise Unavailable(ErrorCode.STORE_DOWN, message, retry_after_s=1) from exc
        self._mark = changes.mark
        self.fresh_until_s = began_s + TRUSTED_S

    async def _read_all(self) -> dict[str, TenantRecord]:
        said: dict[str, TenantRecord] = {}
        last = ""
        while True:
            page = await self._tenants.page(after=last, limit=PAGE)
            said |= {record.id: record for record in page}
            if len(page) < PAGE:
                return said
            last = page[-1].id

    def _take(self, name: str, record: TenantRecord | None) -> None:
        if record == self._said.get(name):
            return
        if record is None:
            del self._said[name]
        else:
            self._said[name] = record
        if name == DEFAULT_TENANT:
            self._take_all(self._said)
            return
        if record is None:
            del self._merged[name]
        else:
            self._merged[name] = merge(record, self._default)
        self.version += 1

    def _take_all(self, said: dict[str, TenantRecord]) -> None:
        self._said = said
        self._default = said.get(DEFAULT_TENANT) or TenantRecord(id=DEFAULT_TENANT)
        self._merged = {name: merge(record, self._default) for name, record in said.items()}
        self.version += 1
