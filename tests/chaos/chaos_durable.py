"""The scenarios `durable` and `ambiguous`: kills beside durable turns, and calls that run and report a time-out."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from chaos.chaos_durable_cluster import durable_cluster
from chaos.chaos_durable_run import CLIENTS, Found, run

PERCENT: Final = 5


class Scenario(NamedTuple):
    """A scenario.

    Attributes:
        faults: How many processes die in a full run.
        turns: How many turns each round has at the least.
        percent: How many calls of a hundred are ambiguous, in every process.

    """

    faults: int
    turns: int
    percent: int = 0


SCENARIOS: Final = {"durable": Scenario(156, CLIENTS), "ambiguous": Scenario(0, 400, PERCENT)}


def play(
    name: str,
    folder: Path,
    *,
    seed: int,
    faults: int | None = None,
    turns: int | None = None,
    clients: int = CLIENTS,
    say: Callable[[str], None] = print,
) -> Found:
    """Play a scenario in a folder of its own."""
    scenario = SCENARIOS[name]
    doubt = f"{seed}:{scenario.percent}" if scenario.percent else ""
    with durable_cluster(folder, **({"KITEMESH_AMBIGUITY": doubt} if doubt else {})) as durable:
        return asyncio.run(
            run(
                durable,
                seed=seed,
                faults=scenario.faults if faults is None else faults,
                least=scenario.turns if turns is None else turns,
                clients=clients,
                ambiguity=doubt,
                say=say,
            )
        )
