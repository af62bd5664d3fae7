"""A whole run of seeded faults beside durable turns, round after round, and what it found."""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from chaos.chaos_durable_client import DurableClient
from chaos.chaos_durable_cluster import Durable
from chaos.chaos_durable_faults import Breaker, Fault, Round, plan
from chaos.chaos_durable_judge import judge_durable
from chaos.chaos_durable_turns import DurableTurn, continued, write_turn
from chaos.chaos_turns import open_session
from chaos.invariants import Verdict
from chaos.rest import await_rest

CLIENTS: Final = 12
"""Turns in flight at once."""


@dataclass
class Found:
    """What a run found.

    Attributes:
        ambiguity: As the processes were told it; empty for none.
        missed: Failpoints that nothing passed.
        doubted: Calls that ran and were told as timed out.

    """

    seed: int
    ambiguity: str = ""
    faults: list[Fault] = field(default_factory=list)
    turns: list[DurableTurn] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)
    missed: Counter[str] = field(default_factory=Counter)
    doubted: Counter[str] = field(default_factory=Counter)
    took_s: float = 0.0

    @property
    def violations(self) -> list[str]:
        """One sentence each."""
        return self.verdict.violations


async def run(
    durable: Durable,
    *,
    seed: int,
    faults: int,
    least: int = CLIENTS,
    clients: int = CLIENTS,
    ambiguity: str = "",
    say: Callable[[str], None] = print,
) -> Found:
    """Play every round of the plan and judge each when all is at rest.

    Args:
        durable: The cluster.
        seed: Of the plan and of every moment that is drawn.
        faults: Processes that die, at the least; with none there is one round without.
        least: Turns of a round.
        clients: How many ask at once.
        ambiguity: As the processes were told it.
        say: Is told how it goes.

    """
    rng = random.Random(seed)
    found = Found(seed, ambiguity)
    began_s = time.monotonic()
    rounds = plan(rng, faults) or [Round({})]
    async with durable.fleet.kept(), open_session() as session:
        numbers = itertools.count()
        for place, each in enumerate(rounds, 1):
            load = _Load(durable, session, rng, f"s{seed}-r{place}", numbers)
            round_s = time.monotonic()
            breaker = Breaker(durable, session, rng)
            await load.beside(breaker, each, clients, least)
            broken_s = time.monotonic() - round_s
            left = await await_rest(durable.faulty.cluster)
            verdict = await asyncio.to_thread(judge_durable, durable, load.turns)
            verdict.violations += left
            verdict.violations += [
                f"{fault.service} was not back after {fault.kind}" for fault in breaker.faults if fault.back_s is None
            ]
            _add(found, breaker, load.turns, verdict)
            took_s = time.monotonic() - round_s
            say(
                _line(
                    f"round {place}/{len(rounds)}, {broken_s:.0f} + {took_s - broken_s:.0f} s", breaker, load, verdict
                )
            )
    found.doubted = durable.doubted()
    found.took_s = time.monotonic() - began_s
    return found


class _Load:
    """The clients of a round."""

    def __init__(
        self,
        durable: Durable,
        session: aiohttp.ClientSession,
        rng: random.Random,
        name: str,
        numbers: "itertools.count[int]",
    ) -> None:
        self._client = DurableClient(durable.origins, durable.faulty.cluster.key, session)
        self._rng = rng
        self._name = name
        self._numbers = numbers
        self._under_way = asyncio.Event()
        self._over = False
        self.turns: list[DurableTurn] = []

    async def beside(self, breaker: Breaker, each: Round, clients: int, least: int) -> None:
        """Keep turns in flight until every fault has happened, and wait for the last of them to end."""
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._ask(clients, least))
            await self._under_way.wait()
            await breaker.play(each)
            self._over = True

    async def _ask(self, clients: int, least: int) -> None:
        while not (self._over and len(self.turns) >= least):
            number = next(self._numbers)
            turn = write_turn(f"{self._name}-{number}", number, stream=self._rng.random() < 0.5)
            await self._drive(turn, clients)
            if turn.kind == "talk" and turn.result == "answered":
                await self._drive(continued(turn), clients)

    async def _drive(self, turn: DurableTurn, clients: int) -> None:
        self.turns.append(turn)
        if len(self.turns) >= clients:
            self._under_way.set()
        await self._client.drive(turn)


def _add(found: Found, breaker: Breaker, turns: list[DurableTurn], verdict: Verdict) -> None:
    found.faults += breaker.faults
    found.missed += breaker.missed
    found.turns += turns
    found.verdict.violations += verdict.violations
    found.verdict.lost |= verdict.lost
    found.verdict.duplicated |= verdict.duplicated
    found.verdict.unknown |= verdict.unknown


def _line(head: str, breaker: Breaker, load: _Load, verdict: Verdict) -> str:
    kinds = Counter(fault.kind for fault in breaker.faults)
    told = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    results = Counter(turn.result for turn in load.turns)
    turns = ", ".join(f"{count} {result}" for result, count in results.most_common())
    missed = f"; not passed: {dict(breaker.missed)}" if breaker.missed else ""
    wrong = "".join(f"\n    {sentence}" for sentence in verdict.violations)
    return f"{head}: {told}{missed}; turns: {turns}{wrong}"
