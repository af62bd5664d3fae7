"""The memory twin of `Usages`."""

from collections import defaultdict
from datetime import UTC, date, datetime

from kitemesh_runtime.clock import Clock
from kitemesh_runtime.usage import COUNTS, FRESH_S, SETTLED_S, Bill, By, Period, UsageRow

_Place = tuple[date, str, str, str]
"""A day, a tenant, a key and a model."""


class MemoryUsages:
    """The `Usages` port in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._noted: list[tuple[float, Bill]] = []
        self._counts: dict[_Place, dict[str, int]] = defaultdict(lambda: dict.fromkeys(COUNTS, 0))
        self._upto_s = 0.0

    def note(self, bill: Bill) -> None:
        """Take note of a turn that has just ended."""
        self._noted.append((self._clock.now_ms() / 1000, bill))

    async def roll_up(self) -> bool:
        """Count turns that were not counted; there are never more."""
        upto_s = float(int(self._clock.now_ms() / 1000) - SETTLED_S)
        if upto_s <= self._upto_s + FRESH_S:
            return False
        self._upto_s = upto_s
        noted, self._noted = self._noted, []
        for at_s, bill in noted:
            if at_s >= upto_s:
                self._noted.append((at_s, bill))
                continue
            day = datetime.fromtimestamp(at_s, UTC).date()
            counts = self._counts[day, bill.tenant, bill.key, bill.model]
            counts[bill.outcome] += 1
            for field in bill.usage.__struct_fields__:
                counts[field] += getattr(bill.usage, field)
        return False

    async def read(
        self, tenant: str | None, period: Period, *, by: By, after: str | None = None, limit: int
    ) -> list[UsageRow]:
        """Return what a tenant's turns cost, the latest day first, else by name."""
        rows: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(COUNTS, 0))
        for (day, whose, key, model), counts in self._counts.items():
            if tenant in (None, whose) and period.first <= day <= period.last:
                name = {"day": day.isoformat(), "tenant": whose, "key": key, "model": model}[by]
                for field, count in counts.items():
                    rows[name][field] += count
        is_day = by == "day"
        names = sorted(rows, reverse=is_day)
        if after is not None:
            names = [name for name in names if (name < after if is_day else name > after)]
        return [UsageRow(name=name, **rows[name]) for name in names[:limit]]

    async def as_of(self) -> float:
        """Return up to when turns are counted."""
        return self._upto_s
