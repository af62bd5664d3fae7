"""A whole run of seeded faults on one cluster, and what it found."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from chaos.chaos_rounds import Played, plan, play
from chaos.chaos_turns import open_session
from chaos.faulty_cluster import Faulty
from chaos.invariants import Verdict, judge
from chaos.rest import await_rest


@dataclass
class Found:
    """What a run found."""

    played: list[Played] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def faults(self) -> int:
        """How many processes were killed."""
        return sum(len(each.kills) for each in self.played)

    def add(self, played: Played, verdict: Verdict) -> None:
        """Take in a round."""
        self.played.append(played)
        self.verdict.violations += verdict.violations
        self.verdict.lost |= verdict.lost
        self.verdict.duplicated |= verdict.duplicated
        self.verdict.unknown |= verdict.unknown


async def run(
    faulty: Faulty, *, seed: int, faults: int, only: str | None = None, say: Callable[[str], None] = print
) -> Found:
    """Play every round of the plan, each to its end, and judge each."""
    rng = random.Random(seed)
    found = Found()
    rounds = plan(rng, faults, only)
    async with faulty.replicas.kept(), open_session() as session:
        for number, each in enumerate(rounds, 1):
            began_s = time.monotonic()
            played = await play(faulty, session, each, rng, f"s{seed}-r{number}")
            left = await await_rest(faulty.cluster)
            verdict = await asyncio.to_thread(judge, faulty, played.turns)
            verdict.violations += [f"round {number}: {sentence}" for sentence in left]
            if played.missed:
                verdict.violations.append(f"round {number}: not every kill happened: {dict(played.missed)}")
            found.add(played, verdict)
            say(_line(number, len(rounds), played, verdict, time.monotonic() - began_s))
    return found


def _line(number: int, rounds: int, played: Played, verdict: Verdict, took_s: float) -> str:
    results = Counter(turn.result for turn in played.turns)
    told = ", ".join(f"{count} {result}" for result, count in results.most_common())
    points = ", ".join(f"{times} x {point}" for point, times in Counter(kill.point for kill in played.kills).items())
    wrong = "".join(f"\n    {sentence}" for sentence in verdict.violations)
    return f"round {number}/{rounds}, {played.effect}, {took_s:.0f} s: {points}; turns: {told}{wrong}"
