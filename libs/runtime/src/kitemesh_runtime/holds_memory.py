"""The memory twin of `Holds`."""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from kitemesh_contracts.errors import Bug, Conflict, ErrorCode
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.holds import Decided, HeldCall, Hold, HoldStatus, Verdict

UNAPPLIED_S: Final = 5.0


class MemoryHolds:
    """The `Holds` port in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._holds: dict[str, Hold] = {}
        self._changed_at_s: dict[str, float] = {}
        self._erased: set[str] = set()

    async def open(self, tenant: str, hold: Hold, *, expires_after_s: float) -> Hold:
        """Store a hold that runs out by the clock, and return what is stored; again changes nothing."""
        if hold.tenant != tenant:
            raise Bug("a hold was to be stored for another tenant than its own")
        if hold.id in self._erased:
            raise Conflict(ErrorCode.STALE, "it was erased")
        if hold.id not in self._holds:
            now_s = self._now_s()
            self._put(replace(hold, created_at_s=now_s, expires_at_s=now_s + expires_after_s))
        stored = self._holds[hold.id]
        if stored.tenant != tenant:
            raise Conflict(ErrorCode.DUPLICATE, "it exists already")
        return stored

    async def get(self, tenant: str, hold: str) -> Hold | None:
        """Return the hold."""
        found = self._holds.get(hold)
        return found if found is not None and found.tenant == tenant else None

    async def page(self, tenant: str, *, status: HoldStatus | None, before: str | None, limit: int) -> list[Hold]:
        """Return holds, newest first; `before` is the id of the last one seen."""
        mine = [hold for hold in self._holds.values() if hold.tenant == tenant and status in (None, hold.status)]
        if before is not None:
            last = await self.get(tenant, before)
            mine = [hold for hold in mine if last is not None and _age(hold) < _age(last)]
        return sorted(mine, key=_age, reverse=True)[: max(limit, 0)]

    async def decide(
        self, tenant: str, hold: str, verdicts: dict[str, Verdict], *, texts: Sequence[str] = ()
    ) -> Decided:
        """Decide calls at once, if the hold is open, has not run out, and has none of these decided."""
        found = await self.get(tenant, hold)
        if found is None or not verdicts or found.status != "open" or found.expires_at_s <= self._now_s():
            return Decided(won=False, hold=found)
        if not verdicts.keys() <= {call.id for call in found.calls if call.verdict is None}:
            return Decided(won=False, hold=found)
        calls = tuple(self._decided(call, verdicts.get(call.id)) for call in found.calls)
        status: HoldStatus = "open" if any(call.verdict is None for call in calls) else "decided"
        decided = replace(found, calls=calls, status=status, texts=(*found.texts, *texts), version=found.version + 1)
        return Decided(won=True, hold=self._put(decided))

    async def expire(self, tenant: str, hold: str) -> Hold | None:
        """End an open hold whose time has come by the clock; return it as it is now."""
        found = await self.get(tenant, hold)
        if found is None or found.status != "open" or found.expires_at_s > self._now_s():
            return found
        return self._put(replace(found, status="expired", version=found.version + 1))

    async def cancel(self, tenant: str, hold: str, reason: str, *, only_open: bool = False) -> Hold | None:
        """End an open hold, or one decided and not yet applied unless `only_open`; return it as it is now."""
        found = await self.get(tenant, hold)
        if found is None:
            return None
        unapplied = found.status == "decided" and found.applied < found.version
        if found.status != "open" and (only_open or not unapplied):
            return found
        return self._put(replace(found, status="cancelled", reason=reason, version=found.version + 1))

    async def applied(self, tenant: str, hold: str, *, version: int) -> None:
        """Note that the turn has taken note of that version; a smaller one changes nothing."""
        found = await self.get(tenant, hold)
        if found is not None:
            self._holds[hold] = replace(found, applied=max(found.applied, version))

    async def due(self, *, limit: int = 100) -> list[Hold]:
        """Return open holds that have run out, and those not `applied` for 5 s, of all tenants."""
        dated = [(due_at_s, hold) for hold in self._holds.values() if (due_at_s := self._due_at_s(hold)) is not None]
        dated.sort(key=lambda entry: entry[0])
        return [hold for due_at_s, hold in dated if due_at_s <= self._now_s()][:limit]

    async def count_open(self) -> int:
        """Count open holds of all tenants."""
        return sum(hold.status == "open" for hold in self._holds.values())

    async def oldest_open_s(self) -> float:
        """Return the age of the oldest open hold of all tenants; 0 without one."""
        now_s = self._now_s()
        return max((now_s - hold.created_at_s for hold in self._holds.values() if hold.status == "open"), default=0.0)

    async def erase(self, tenant: str, *, conversation: str | None = None, turns: Sequence[str] = ()) -> None:
        """Empty the holds of a conversation, and of turns; nothing is written to them any more."""
        for hold in list(self._holds.values()):
            is_of = hold.turn in turns or (conversation is not None and hold.conversation == conversation)
            if hold.tenant == tenant and is_of:
                del self._holds[hold.id], self._changed_at_s[hold.id]
                self._erased.add(hold.id)

    def _decided(self, call: HeldCall, verdict: Verdict | None) -> HeldCall:
        return call if verdict is None else replace(call, verdict=replace(verdict, at_s=self._now_s()))

    def _due_at_s(self, hold: Hold) -> float | None:
        times_s = [hold.expires_at_s] if hold.status == "open" else []
        if hold.applied < hold.version:
            times_s.append(self._changed_at_s[hold.id] + UNAPPLIED_S)
        return min(times_s, default=None)

    def _put(self, hold: Hold) -> Hold:
        self._holds[hold.id] = hold
        self._changed_at_s[hold.id] = self._now_s()
        return hold

    def _now_s(self) -> float:
        return self._clock.now_ms() / 1000


def _age(hold: Hold) -> tuple[float, str]:
    return hold.created_at_s, hold.id
