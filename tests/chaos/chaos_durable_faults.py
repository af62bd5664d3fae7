"""Kills of a cluster's processes beside durable turns: at failpoints, at random moments, and of both of a service."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Final, NamedTuple

import aiohttp

from chaos.chaos_durable_cluster import POINTS, SERVICES, Durable

PER_SERVICE: Final = 3
"""Faults of one service in a round: a job that meets all of them is still delivered once more."""
SPREAD_S: Final = 1.5
"""A fault comes within this time after the service has recovered from the one before."""
PASS_S: Final = 20.0
"""Something passes an armed failpoint within this time."""
LOOK_S: Final = 0.02
RANDOM: Final = "killed at random"
BOTH: Final = "both killed"


class Fault(NamedTuple):
    """A process that died, in seconds of the monotonic clock.

    Attributes:
        kind: The failpoint, or how else.
        back_s: How long it took until both processes of the service were ready; `None` when they were not in time.

    """

    service: str
    kind: str
    at_s: float
    back_s: float | None


class Round(NamedTuple):
    """What happens to each service, in order, beside what happens to the others."""

    kinds: dict[str, tuple[str, ...]]

    @property
    def faults(self) -> int:
        """How many processes die."""
        return sum(2 if kind == BOTH else 1 for kinds in self.kinds.values() for kind in kinds)


def plan(rng: random.Random, faults: int) -> list[Round]:
    """Plan at least so many faults; every failpoint and the random kill equally often, and both of each service."""
    decks: dict[str, Iterator[str]] = {
        service: cycle([*rng.sample(points, len(points)), RANDOM]) for service, points in POINTS.items()
    }
    rounds: list[Round] = []
    while (left := faults - sum(each.faults for each in rounds)) > 0:
        number = len(rounds)
        if number % 4 == 3:
            # By itself: nobody else's death is to explain what becomes of it.
            rounds.append(Round({SERVICES[number // 4 % len(SERVICES)]: (BOTH,)}))
        else:
            each = min(PER_SERVICE, -(-left // len(SERVICES)))
            rounds.append(Round({service: tuple(islice(deck, each)) for service, deck in decks.items()}))
    return rounds


class Breaker:
    """Has faults happen, never two of one service at a time.

    Attributes:
        faults: That happened.
        missed: Failpoints that nothing passed in time.

    """

    def __init__(self, durable: Durable, session: aiohttp.ClientSession, rng: random.Random) -> None:
        self._durable = durable
        self._session = session
        self._seed = rng.random()
        self.faults: list[Fault] = []
        self.missed: Counter[str] = Counter()

    async def play(self, each: Round) -> None:
        """Have all the faults of a round happen."""
        async with asyncio.TaskGroup() as group:
            for service, kinds in each.kinds.items():
                group.create_task(self._break(service, kinds))

    async def _break(self, service: str, kinds: tuple[str, ...]) -> None:
        # Of its own, so that how long another service takes does not change what is drawn.
        rng = random.Random(f"{self._seed}/{service}")
        for kind in kinds:
            await asyncio.sleep(rng.uniform(0, SPREAD_S))
            times_s = await self._kill(service, kind, rng)
            back = await self._durable.fleet.back(service, self._session)
            for at_s in times_s:
                self.faults.append(Fault(service, kind, at_s, time.monotonic() - at_s if back else None))

    async def _kill(self, service: str, kind: str, rng: random.Random) -> list[float]:
        pids = self._durable.fleet.pids(service)
        if kind in (BOTH, RANDOM):
            doomed = list(pids.values()) if kind == BOTH else [rng.choice(list(pids.values()))]
            for pid in doomed:
                os.kill(pid, signal.SIGKILL)
            at_s = time.monotonic()
            await self._replaced(service, set(doomed))
            return [at_s] * len(doomed)
        faulty = self._durable.faulty
        faulty.arm(kind)
        end_s = time.monotonic() + PASS_S
        while faulty.left(kind):
            if time.monotonic() > end_s:
                (faulty.folder / kind).unlink(missing_ok=True)
                self.missed[kind] += 1
                return []
            await asyncio.sleep(LOOK_S)
        at_s = time.monotonic()
        await self._replaced(service, set(pids.values()))
        return [at_s]

    async def _replaced(self, service: str, pids: set[int]) -> None:
        """Wait until one of these processes, or all of them, is another by now."""
        fleet = self._durable.fleet
        while set(fleet.pids(service).values()) >= pids:  # noqa: ASYNC110  another process sets no event here
            await asyncio.sleep(LOOK_S)
