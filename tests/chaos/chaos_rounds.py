"""Rounds of faults: which failpoints kill beside turns of which class, and when each kill happened."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Final, NamedTuple

import aiohttp

from chaos.chaos_turns import SHAPES, Client, Turn
from chaos.effect_catalog import EFFECTS, Effect
from chaos.faulty_cluster import ORCHESTRATOR, RUNNER, TOOL, Faulty

CLIENTS: Final = 24
"""Turns in flight at once."""
ROUND_S: Final = 60.0
"""All the kills of a round happen within this time."""
PER_SERVICE: Final = 3
"""Kills of one service in a round: a job that meets all of them is still delivered once more."""
SPREAD_S: Final = 3.0
"""The kills of a round are armed over so long, so that they meet turns at every place."""
LOOK_S: Final = 0.02


class Round(NamedTuple):
    """What is armed beside turns of one class."""

    effect: Effect
    arms: Counter[str]


class Kill(NamedTuple):
    """A kill that happened."""

    point: str
    effect: Effect
    at_s: float


@dataclass
class Played:
    """A round that was played.

    Attributes:
        missed: Points that nothing passed often enough.

    """

    effect: Effect
    turns: list[Turn] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    missed: Counter[str] = field(default_factory=Counter)


def plan(rng: random.Random, faults: int, only: str | None = None) -> list[Round]:
    """Plan at least so many faults: every point with every class equally often, as far as the number goes."""
    groups = [[only]] if only else [rng.sample(points, len(points)) for points in (ORCHESTRATOR, TOOL, RUNNER)]
    rounds = -(-faults // (PER_SERVICE * len(groups)))
    decks = {effect: [_deck(group, PER_SERVICE * place) for group in groups] for place, effect in enumerate(EFFECTS)}
    return [
        Round(effect, Counter(point for deck in decks[effect] for point in islice(deck, PER_SERVICE)))
        for effect in islice(cycle(EFFECTS), rounds)
    ]


def _deck(points: Sequence[str], start: int) -> Iterator[str]:
    return islice(cycle(points), start, None)


async def play(faulty: Faulty, session: aiohttp.ClientSession, each: Round, rng: random.Random, name: str) -> Played:
    """Keep turns in flight until every kill has happened, and wait for the last of them to end."""
    played = Played(each.effect)
    client = Client(faulty.cluster, session)
    under_way = asyncio.Event()
    killed = asyncio.Event()

    async def ask(number: int) -> None:
        asked = 0
        while asked == 0 or not killed.is_set():
            shape = SHAPES[(number + asked) % len(SHAPES)]
            turn = Turn(f"{name}-{number}-{asked}", each.effect, shape, stream=rng.random() < 0.5)
            played.turns.append(turn)
            if len(played.turns) == CLIENTS:
                under_way.set()
            await client.drive(turn)
            asked += 1

    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(ask(number))
        await under_way.wait()
        await _kill(faulty, each, rng, played)
        killed.set()
    return played


async def _kill(faulty: Faulty, each: Round, rng: random.Random, played: Played) -> None:
    """Arm every failpoint in turn and note each kill; returns when all have happened, or the round's time is up."""
    began_s = time.monotonic()
    due = sorted(((rng.uniform(0, SPREAD_S), point) for point in each.arms.elements()), reverse=True)
    armed: Counter[str] = Counter()
    happened: Counter[str] = Counter()
    while happened != each.arms and (now_s := time.monotonic()) < began_s + ROUND_S:
        while due and began_s + due[-1][0] <= now_s:
            _, point = due.pop()
            armed[point] += 1
            faulty.arm(point)
        for point in armed:
            killed = armed[point] - faulty.left(point)
            played.kills += [Kill(point, each.effect, now_s)] * (killed - happened[point])
            happened[point] = killed
        await asyncio.sleep(LOOK_S)
    played.missed = each.arms - happened
    faulty.disarm()
