"""`make chaos`: break real clusters while turns are in flight, scenario after scenario, and print what was found.

Exits with 1 when anything promised was violated. `turns` kills services at every failpoint beside turns with effects;
`upstreams` has models that fail in every way there is; the other scenarios break the servers beneath a cluster, or the
network between.
"""

import argparse
import asyncio
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from chaos import chaos_durable, infra_scenarios, upstream_run
from chaos.chaos_durable_table import render as render_durable
from chaos.chaos_durable_table import write_json as write_durable
from chaos.chaos_run import run
from chaos.chaos_table import render
from chaos.faulty_cluster import POINTS, faulty_cluster
from chaos.infra_table import render as render_infra
from chaos.infra_table import write_json

TURN_FAULTS: Final = 160


class Asked(NamedTuple):
    """What a scenario is told.

    Attributes:
        folder: For its data and logs.
        faults: How many at the least; `None` leaves it to the scenario.
        results: Where JSON goes.

    """

    folder: Path
    seed: int
    faults: int | None
    results: Path
    say: Callable[[str], None]


class Played(NamedTuple):
    """What a scenario found; its table has been printed."""

    faults: int
    violations: list[str]


def play_turns(asked: Asked, point: str | None = None) -> Played:
    """Kill services at every failpoint, or at one."""
    with faulty_cluster(asked.folder, doubled=True) as faulty:
        faults = asked.faults or TURN_FAULTS
        found = asyncio.run(run(faulty, seed=asked.seed, faults=faults, only=point, say=asked.say))
    asked.say("")
    asked.say(render(found.played, found.verdict))
    return Played(found.faults, found.verdict.violations)


def play_infra(name: str, asked: Asked) -> Played:
    """Break the servers beneath a cluster."""
    found = infra_scenarios.play(name, asked.folder, seed=asked.seed, faults=asked.faults, say=asked.say)
    asked.say("")
    asked.say(render_infra(found))
    asked.say(f"written to {write_json(found, asked.results)}")
    return Played(len(found.faults), found.violations)


def play_durable(name: str, asked: Asked) -> Played:
    """Break services beside durable turns."""
    found = chaos_durable.play(name, asked.folder, seed=asked.seed, faults=asked.faults, say=asked.say)
    asked.say("")
    asked.say(render_durable(found))
    asked.say(f"written to {write_durable(found, asked.results)}")
    return Played(len(found.faults), found.violations)


def play_upstreams(asked: Asked) -> Played:
    """Ask for turns over upstreams that fail in every way there is; a fault is a turn."""
    found = upstream_run.play(asked.folder, seed=asked.seed, turns=asked.faults or upstream_run.TURNS, say=asked.say)
    asked.say("")
    asked.say(upstream_run.render(found))
    asked.say(f"written to {upstream_run.write_json(found, asked.results)}")
    return Played(len(found.turns), found.violations)


SCENARIOS: Final[dict[str, Callable[[Asked], Played]]] = {
    "turns": play_turns,
    **{name: partial(play_durable, name) for name in chaos_durable.SCENARIOS},
    **{name: partial(play_infra, name) for name in infra_scenarios.SCENARIOS},
    "upstreams": play_upstreams,
}


def main() -> int:
    """Play what is asked for, each scenario on servers and a cluster of its own."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of an earlier run, to play its faults again")
    parser.add_argument("--faults", type=int, help="in each scenario, at the least; a number of its own without it")
    parser.add_argument(
        "--only",
        choices=(*SCENARIOS, *POINTS),
        metavar="NAME",
        help=f"one scenario ({', '.join(SCENARIOS)}), or `turns` with kills at one failpoint alone",
    )
    parser.add_argument("--keep", type=Path, help="folder of data and logs; a temporary one without it")
    parser.add_argument("--results", type=Path, default=Path("bench-results"), help="folder of the JSON files")
    given = parser.parse_args()
    # Who is told to end still ends what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    say = partial(print, flush=True)
    say(f"seed {seed}")
    if given.only in POINTS:
        chosen: dict[str, Callable[[Asked], Played]] = {given.only: partial(play_turns, point=given.only)}
    else:
        chosen = {name: play for name, play in SCENARIOS.items() if given.only in (None, name)}
    faults, violations = 0, 0
    for name, play in chosen.items():
        began_s = time.monotonic()
        say(f"\n== {name}")
        with tempfile.TemporaryDirectory(prefix="kitemesh-chaos-") as temporary:
            folder = (given.keep or Path(temporary)) / name
            folder.mkdir(parents=True, exist_ok=True)
            played = play(Asked(folder, seed, given.faults, given.results, say))
        for sentence in played.violations:
            say(f"VIOLATED: {sentence}")
        say(f"{name}: seed {seed}, {played.faults} faults in {time.monotonic() - began_s:.0f} s")
        faults += played.faults
        violations += len(played.violations)
    say(f"\n{faults} faults, {violations} violations, seed {seed}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
