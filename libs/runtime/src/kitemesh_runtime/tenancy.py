"""What a tenant, and each of its keys, may do: values only, and the ports that keep them.

What is not said of a key is as its tenant says, and what is not said of a tenant is as the installation says.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeVar

from msgspec import Struct

from kitemesh_contracts.commands import Priority

T = TypeVar("T")

Kind = Literal["turns", "conversations", "holds", "ledger", "audit"]
"""What is kept for a number of days: `claims` and files go with their turns and conversations."""

DEFAULT_DAYS: Final[Mapping[Kind, int]] = {"turns": 30, "conversations": 30, "holds": 30, "ledger": 400, "audit": 400}
DEFAULT_TENANT: Final = "*"
"""The record that holds for every tenant as far as its own does not say; no tenant can be called so."""
DEFAULT_NAME: Final = "_default"
"""How subjects, paths and cursors name it, where only ids can stand."""


class Limits(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Bounds; `None` is no bound of this one.

    Attributes:
        requests_per_minute: That start or resume a turn.
        tokens_per_minute: In and out, estimated before and settled after each turn.
        concurrent_turns: Turns that are queued or run; held ones do not count.

    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_turns: int | None = None


class TenantRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is said of a tenant.

    Attributes:
        id: Its name; `DEFAULT_TENANT` for what holds for all.
        limits: Of the whole tenant.
        key_limits: Of each of its keys that has none of its own.
        default_agent: Answers where neither request nor key names one.
        models: What its keys may name at most; `None` allows all.
        priority: Of its turns, where neither request nor key says one.
        retention_days: By kind, where it is not the default.
        updated_at_s: Epoch seconds of the database's clock.

    """

    id: str
    limits: Limits = Limits()
    key_limits: Limits = Limits()
    default_agent: str | None = None
    models: tuple[str, ...] | None = None
    priority: Priority | None = None
    retention_days: dict[Kind, int] = {}
    updated_at_s: float = 0.0


def merge_limits(own: Limits, fallback: Limits) -> Limits:
    """Complete limits by what holds where they say nothing."""
    if fallback == _NONE:
        return own
    return Limits(
        requests_per_minute=_or(own.requests_per_minute, fallback.requests_per_minute),
        tokens_per_minute=_or(own.tokens_per_minute, fallback.tokens_per_minute),
        concurrent_turns=_or(own.concurrent_turns, fallback.concurrent_turns),
    )


def merge(own: TenantRecord, fallback: TenantRecord) -> TenantRecord:
    """Complete what is said of a tenant, field by field, by what holds for all."""
    return TenantRecord(
        id=own.id,
        limits=merge_limits(own.limits, fallback.limits),
        key_limits=merge_limits(own.key_limits, fallback.key_limits),
        default_agent=_or(own.default_agent, fallback.default_agent),
        models=_or(own.models, fallback.models),
        priority=_or(own.priority, fallback.priority),
        retention_days={**fallback.retention_days, **own.retention_days},
        updated_at_s=max(own.updated_at_s, fallback.updated_at_s),
    )


_NONE: Final = Limits()


def _or(own: T | None, fallback: T | None) -> T | None:
    return fallback if own is None else own


class Changes(NamedTuple):
    """What changed since a mark.

    Attributes:
        changed: In no order; some of them may have been told before.
        mark: What to ask with next.

    """

    changed: Sequence[str]
    mark: float


class Tenants(Protocol):
    """What is said of tenants. A tenant of which nothing is said is as the default."""

    async def get(self, tenant: str) -> TenantRecord | None:
        """Return the record, or `None` when nothing was ever said."""

    async def put(self, record: TenantRecord) -> TenantRecord:
        """Store it in the place of what was said, and return it as it is stored."""

    async def remove(self, tenant: str) -> bool:
        """Take back all that was said; tell whether there was anything."""

    async def page(self, *, after: str = "", limit: int = 100) -> list[TenantRecord]:
        """List records by name."""

    async def changes(self, since: float) -> Changes:
        """Return which records were put or removed since a mark; 0 is the beginning.

        A removed one is told for an hour. Some are told several times: a mark lies some seconds back, so that nothing
        is missed that was being written meanwhile.
        """
