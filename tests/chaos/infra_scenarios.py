"""The scenarios of `make chaos` that break the servers beneath a cluster: what stands, how often, what is promised."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, NamedTuple

from chaos.disk_faults import disk_stage
from chaos.infra_found import NOMINAL_S, Bounds, Found
from chaos.infra_run import run
from chaos.load_turns import Mode
from chaos.mongo_faults import mongo3_stage
from chaos.nats_faults import nats3_stage, nats_stage
from chaos.proxy_faults import proxy_stage
from chaos.stage import Stage

MODES: Final[tuple[Mode, ...]] = ("durable", "classic")


class Scenario(NamedTuple):
    """A scenario.

    Attributes:
        opened: Opens its stage in a folder, with a seed.
        faults: How many a full run plays.
        bounds: What is promised.

    """

    opened: Callable[[Path, int], AbstractContextManager[Stage]]
    faults: int
    bounds: Bounds


SCENARIOS: Final = {
    "nats": Scenario(nats_stage, 60, Bounds(first_s=5.0)),
    "nats3": Scenario(nats3_stage, 30, Bounds(first_s=10.0 + NOMINAL_S)),
    "mongo3": Scenario(mongo3_stage, 50, Bounds(full_s=15.0)),
    "disk": Scenario(disk_stage, 8, Bounds(refusal_s=3.0)),
    "proxy": Scenario(proxy_stage, 32, Bounds()),
}


def play(
    name: str,
    folder: Path,
    *,
    seed: int,
    faults: int | None = None,
    modes: Sequence[Mode] = MODES,
    say: Callable[[str], None] = print,
) -> Found:
    """Play a scenario in a folder of its own."""
    scenario = SCENARIOS[name]
    folder.mkdir(parents=True, exist_ok=True)
    with scenario.opened(folder, seed) as stage:
        return asyncio.run(
            run(
                stage,
                scenario=name,
                seed=seed,
                faults=faults or scenario.faults,
                bounds=scenario.bounds,
                modes=modes,
                say=say,
            )
        )
