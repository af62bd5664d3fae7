"""One run of faults of the servers that a cluster stands on: turns in flight, fault after fault, and what was found.

It does not know what a fault is. A `Stage` names its faults; each is a context whose inside is measured: recovery is
counted from when it is entered, and leaving it puts right what is still wrong.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Final

from chaos.infra_found import Bounds, Fault, Found
from chaos.infra_judge import judge
from chaos.load import CLIENTS, Load, running_load
from chaos.load_turns import Mode
from chaos.rest import await_rest
from chaos.stage import Inject, Stage

RECOVERY_S: Final = 60.0
"""Nobody waits longer for the first turns after a fault."""
CALM_S: Final = (0.3, 1.5)
"""Between the end of a fault and the next, so that faults meet turns at every place."""


async def run(
    stage: Stage,
    *,
    scenario: str,
    seed: int,
    faults: int,
    bounds: Bounds,
    modes: Sequence[Mode],
    say: Callable[[str], None] = print,
) -> Found:
    """Play so many faults, each kind as often as the others, and judge every turn when all are at rest."""
    rng = random.Random(seed)
    found = Found(scenario, seed, bounds)
    began_s = time.monotonic()
    name = f"{scenario}-{seed}"
    async with stage.replicas.kept():
        async with running_load(stage.origins, stage.cluster.key, modes=modes, seed=seed, name=name) as load:
            await load.served_since(0.0, times=CLIENTS, timeout_s=RECOVERY_S)
            for number, kind in enumerate(islice(cycle(stage.faults), faults), 1):
                fault = await _play(load, kind, stage.faults[kind], rng)
                found.faults.append(fault)
                say(_line(number, faults, fault))
                await asyncio.sleep(rng.uniform(*CALM_S))
        found.turns = load.turns
        found.violations += await await_rest(stage.cluster)
    await asyncio.to_thread(judge, stage.cluster, found)
    found.took_s = time.monotonic() - began_s
    return found


async def _play(load: Load, kind: str, inject: Inject, rng: random.Random) -> Fault:
    began_s = time.monotonic()
    async with inject(rng):
        since_s = time.monotonic()
        await load.served_since(since_s, times=CLIENTS, timeout_s=RECOVERY_S)
    healed_s = time.monotonic()
    await load.served_since(healed_s, times=CLIENTS, timeout_s=RECOVERY_S)
    ends = [turn.ended_s for turn in load.turns if turn.is_served and turn.began_s >= since_s]
    return Fault(kind, began_s, since_s, healed_s, min(ends) - since_s if ends else None)


def _line(number: int, faults: int, fault: Fault) -> str:
    first = "no new turn was answered" if fault.first_s is None else f"first new answer after {fault.first_s:.2f} s"
    lasted = f"{fault.healed_s - fault.began_s:.1f} s"
    return f"fault {number}/{faults}, {fault.kind}, {lasted}: {first}"
