"""What turns cost, counted from the turns themselves: by hour, tenant, key and model. Values, and the port.

A turn counts once, when it has ended, by the hour of the database's clock; also one that is erased, before or after it
was counted. It is `SETTLED_S` old by then: nothing that is stored so long ago can still be lost or come late.
"""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Final, Literal, NamedTuple, Protocol

from msgspec import Struct

from kitemesh_contracts.content import Usage
from kitemesh_contracts.deltas import TurnOutcome
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.turns import TurnRecord

By = Literal["day", "model", "key", "tenant"]

SETTLED_S: Final = 20
"""Longer than any write takes, and than a primary that lost its majority goes on being one."""
FRESH_S: Final = 10
"""As long as less is to be counted, nobody counts."""


class Bill(NamedTuple):
    """What one turn cost.

    Attributes:
        key: Empty for the anonymous principal.
        model: That answered; the one that was asked for, where none did.

    """

    tenant: str
    key: str
    model: str
    outcome: TurnOutcome
    usage: Usage


def bill_of(turn: TurnRecord | LiveTurn) -> Bill:
    """Say what a turn cost that was not counted before; one that had not ended counts as cancelled."""
    usage = _without(turn.usage, turn.billed)
    if isinstance(turn, LiveTurn):
        return Bill(turn.tenant, turn.key, turn.model, "cancelled", usage)
    return Bill(turn.tenant, turn.key, turn.served_by or turn.model, turn.status, usage)


def _without(usage: Usage, billed: Usage) -> Usage:
    if billed == Usage():
        return usage
    return Usage(**{name: max(0, getattr(usage, name) - getattr(billed, name)) for name in usage.__struct_fields__})


Note = Callable[[Bill], None]


class UsageRow(Struct, frozen=True, kw_only=True):
    """What the turns of one day, model, key or tenant cost together.

    Attributes:
        name: The day as `YYYY-MM-DD` in UTC, the model, the key's id (empty for requests without one) or the tenant.
        cached_tokens: The part of `input_tokens` that providers read from their caches.
        reasoning_tokens: The part of `output_tokens` that was reasoning.

    """

    name: str
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def turns(self) -> int:
        """All of them."""
        return self.completed + self.failed + self.cancelled


COUNTS: Final = tuple(field for field in UsageRow.__struct_fields__ if field != "name")


class Period(NamedTuple):
    """Whole days in UTC, the last one included."""

    first: date
    last: date

    @property
    def end(self) -> date:
        """The day after."""
        return self.last + timedelta(days=1)


class Usages(Protocol):
    """Usage. It is kept as long as the audit."""

    async def roll_up(self) -> bool:
        """Count turns that were not counted, a bounded number; tell whether there are more to be counted now.

        Any number of replicas may call it at any time; what one that died had begun, another does again, to the same
        effect.
        """

    async def read(
        self, tenant: str | None, period: Period, *, by: By, after: str | None = None, limit: int
    ) -> list[UsageRow]:
        """Return what a tenant's turns cost, the latest day first, else by name.

        Args:
            tenant: Whose; `None` for all tenants.
            period: Which days.
            by: What a row is of.
            after: The name of the last one seen.
            limit: How many.

        """

    async def as_of(self) -> float:
        """Return up to when turns are counted, epoch seconds of the database's clock; 0 when none were ever."""
