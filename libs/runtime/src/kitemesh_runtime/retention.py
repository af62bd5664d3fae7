"""How long what is stored of a tenant is kept: which days hold, said as a callable that the stores are given. Pure."""

from collections.abc import Callable
from typing import Final, Protocol

from kitemesh_runtime.tenancy import DEFAULT_DAYS, Kind, TenantRecord

Days = Callable[[str, Kind], int]
"""Says how many days a tenant's documents of a kind are kept."""

HOUR_MS: Final = 3600 * 1000
DAY_MS: Final = 24 * HOUR_MS
TOMBSTONE_MS: Final = HOUR_MS
"""What keeps something that was erased from being written again stays for so long."""


def default_days(_: str, kind: Kind) -> int:
    """Say what holds where nobody said anything."""
    return DEFAULT_DAYS[kind]


def days_of(own: TenantRecord | None, default: TenantRecord | None, kind: Kind) -> int:
    """Say what holds for a tenant, given what is said of it and of all."""
    for record in (own, default):
        if record is not None and kind in record.retention_days:
            return record.retention_days[kind]
    return DEFAULT_DAYS[kind]


class Retention(Protocol):
    """Brings changed days to what is stored already; what is stored from then on has them anyway.

    The audit keeps the dates that it was written with.
    """

    async def apply(self) -> bool:
        """Bring them to a bounded number of documents; tell whether there are more to be brought now."""


class MemoryRetention:
    """The `Retention` port in memory, where nothing ever goes."""

    async def apply(self) -> bool:
        """Do nothing: there is nothing to be done."""
        return False
