"""Gateways that share one store of budgets and one clock which is moved by hand."""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_gateway.limiter import Limited, Limiter, Permit
from kitemesh_runtime.budgets import Ask, Budgets, Grant
from kitemesh_runtime.budgets_memory import MemoryBudgets
from kitemesh_runtime.tenancy import Limits

BURST_S = 10.0
BUDGET_S = 600.0
SYNC_MS = 250


class Asker(Struct, frozen=True):
    tenant: str = "acme"
    key: str = "k1"
    limits: Limits = Limits()
    tenant_limits: Limits = Limits()


class HandClock:
    def __init__(self) -> None:
        self.ms = 1_750_000_000_000
        self._ids = itertools.count()

    def monotonic(self) -> float:
        return self.ms / 1000

    def now_ms(self) -> int:
        return self.ms

    def new_id(self) -> str:
        return f"id-{next(self._ids)}"


class FaultyBudgets:
    """Budgets that can be away, or take a question and not tell.

    Attributes:
        calls: How many questions were put in how many calls.

    """

    def __init__(self, inner: Budgets) -> None:
        self._inner = inner
        self.is_down = False
        self.is_mute = False
        self.calls: list[int] = []

    async def exchange(self, gateway: str, asks: Sequence[Ask]) -> Mapping[str, Grant]:
        self.calls.append(len(asks))
        if self.is_down:
            raise Unavailable(ErrorCode.STORE_DOWN, "down")
        await asyncio.sleep(0)
        grants = await self._inner.exchange(gateway, asks)
        await asyncio.sleep(0)
        if self.is_mute:
            raise Unavailable(ErrorCode.STORE_DOWN, "mute")
        return grants


class Fleet:
    """Some gateways, and what they let through."""

    def __init__(self, count: int = 3) -> None:
        self.clock = HandClock()
        self.store = FaultyBudgets(MemoryBudgets(self.clock))
        self.count = count
        self.gateways = [self.gateway(f"g{n}") for n in range(count)]
        self.admitted_ms: list[int] = []
        self.waits: list[float] = []
        self.turns = itertools.count()

    def gateway(self, name: str) -> Limiter:
        return Limiter(self.store, name, lambda: self.count, self.clock, burst_s=BURST_S, budget_s=BUDGET_S)

    async def sync(self) -> None:
        for limiter in self.gateways:
            await limiter.sync()

    async def pass_s(self, seconds: float) -> None:
        """Let time pass, with the background's work done in it."""
        for _ in range(round(seconds * 1000 / SYNC_MS)):
            self.clock.ms += SYNC_MS
            await self.sync()

    async def attempt(self, limiter: Limiter, asker: Asker, tokens: int = 0) -> Permit | None:
        try:
            permit = await limiter.admit(asker)
            if tokens:
                await limiter.reserve(permit, f"turn-{next(self.turns)}", tokens)
        except Limited as exc:
            self.waits.append(exc.retry_after_s or 0.0)
            return None
        self.admitted_ms.append(self.clock.ms)
        return permit

    async def load(
        self,
        asker: Asker,
        seconds: float,
        rates: Callable[[float], Sequence[float]],
        *,
        tokens: int = 0,
        used: int = 0,
        step_ms: int = 10,
    ) -> None:
        """Send requests to each gateway.

        Args:
            asker: From whom.
            seconds: For how long.
            rates: By the seconds since the beginning: how many a second to each gateway; fewer gateways than there are
                is those that are left.
            tokens: That each turn reserves; none when 0.
            used: That each turn has used when it ends at once.
            step_ms: All requests of a step come together.

        """
        owed = [0.0] * len(self.gateways)
        begun_ms = self.clock.ms
        while self.clock.ms - begun_ms < seconds * 1000:
            now_rates = rates((self.clock.ms - begun_ms) / 1000)
            asked = []
            for n, per_s in enumerate(now_rates):
                owed[n] += per_s * step_ms / 1000
                whole, owed[n] = int(owed[n]), owed[n] % 1
                asked += [self.attempt(self.gateways[n], asker, tokens) for _ in range(whole)]
            for permit in await asyncio.gather(*asked):
                if permit is not None and permit.turn:
                    self.gateways[0].ended(permit.turn, used)
                    self.gateways[1].ended(permit.turn, used)
                    self.gateways[2].ended(permit.turn, used)
            self.clock.ms += step_ms
            for n, limiter in enumerate(self.gateways[: len(now_rates)]):
                if (self.clock.ms + n * 80) % SYNC_MS < step_ms:
                    await limiter.sync()

    def most_in_a_minute(self) -> int:
        """Return the most requests that were let through within any 60 s."""
        most, first = 0, 0
        for last, moment in enumerate(self.admitted_ms):
            while moment - self.admitted_ms[first] >= 60_000:
                first += 1
            most = max(most, last - first + 1)
        return most
