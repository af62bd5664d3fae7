"""`make scale-demo`: scale each service of a real cluster by itself, have replicas leave, and say what that did.

Writes the tables into docs/scaling.md and the plot beside it, and what both were made of to bench-results/. When a turn
failed, or a wait is not what it should be, it exits with 1 and leaves docs/ as it is.
"""

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from scale.scale_plot import plot
from scale.scale_record import Run
from scale.scale_scenes import Pace, leave, scale_executors, scale_gateways, scale_runners
from scale.scale_stage import SLOTS, Stage, stage
from scale.scale_table import failures, placed, render
from scale.scale_verdict import mistakes

ROOT: Final = Path(__file__).parents[2]
DOCUMENT: Final = ROOT / "docs" / "scaling.md"
PICTURE: Final = ROOT / "docs" / "scaling.png"
COMMAND: Final = "make scale-demo"
SHOWN: Final = 20


def say(text: str) -> None:
    """Show progress."""
    print(f"  {text}", file=sys.stderr, flush=True)


async def play(on: Stage) -> None:
    """Play every scene."""
    pace = Pace()
    async with on.watched():
        await scale_runners(on, pace, say, counts=(1, 2, 4))
        await scale_executors(on, pace, say, counts=(1, 2))
        await scale_gateways(on, pace, say, counts=(1, 2, 3))
        await leave(on, pace, say)


def main() -> int:
    """Be the verb."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "bench-results", help="folder for what was kept")
    parser.add_argument("--again", type=Path, metavar="JSON", help="only draw what was kept of an earlier run")
    parser.add_argument("--dry", action="store_true", help="leave docs/ as it is; the plot goes to the results")
    arguments = parser.parse_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    if arguments.again is not None:
        run = msgspec.json.decode(arguments.again.read_bytes(), type=Run)
    else:
        machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
        run = Run(command=COMMAND, machine=machine, slots=SLOTS)
        with tempfile.TemporaryDirectory(prefix="kitemesh-scale-") as folder, stage(Path(folder), run) as on:
            asyncio.run(play(on))
        kept = arguments.results / "scale.json"
        kept.write_bytes(msgspec.json.encode(run))
        say(f"kept in {kept}")
    tables, found = render(run), mistakes(run)
    print(tables)
    for turn in failures(run)[:SHOWN]:
        print(f"failed: {turn}", file=sys.stderr)
    for mistake in found:
        print(f"not as it should be: {mistake}", file=sys.stderr)
    if found:
        busy = f"{os.getloadavg()[1]:.1f} on {os.cpu_count()} cores"
        print(
            f"waits follow from the slots only where the processor is not short; the load was {busy}", file=sys.stderr
        )
    told = not found and not arguments.dry
    plot(run, PICTURE if told else arguments.results / PICTURE.name)
    if told:
        DOCUMENT.write_text(placed(DOCUMENT.read_text(), tables))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
