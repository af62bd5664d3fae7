"""`make dashboards-check`: has every panel and every rule data, and does every alert fire when something breaks?

It starts a cluster and a Prometheus that scrapes it every second under the rules, shortened; then it has load, a
healthy minute and real faults. Exits with 1 when a query had no data, or an alert did not fire, or did too early.
"""

import asyncio
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from kitemesh_observability.alerts import ALERTS
from kitemesh_observability.rules import rules
from observed.run import SCALE, run
from observed.stage import running_stage
from observed.table import render, wrong

MEMORY_BYTES: Final = 512 * 1024 * 1024
"""Limit of the alert on memory here."""


def say(text: str) -> None:
    """Tell what happens."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def main() -> int:
    """Be the verb."""
    # As Ctrl-C does it: everything that was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    say("starting a cluster and a Prometheus")
    with tempfile.TemporaryDirectory(prefix="kitemesh-observed-") as folder:
        shortened = {"kitemesh.yaml": rules(SCALE, memory_bytes=MEMORY_BYTES)}
        with running_stage(Path(folder) / "run", shortened, for_faults=True) as stage:
            found = asyncio.run(run(stage, say=say))
    problems = wrong(found, [alert.name for alert in ALERTS])
    say(f"{render(found)}\n\n{found.took_s:.0f} s")
    for problem in problems:
        say(f"WRONG: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
