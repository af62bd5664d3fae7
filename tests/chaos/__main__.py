"""`make chaos`: kill processes of a real cluster at every failpoint beside turns with effects; prints what it found.

Exits with 1 when anything promised was violated.
"""

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from chaos.chaos_run import run
from chaos.chaos_table import render
from chaos.faulty_cluster import POINTS, faulty_cluster


def main() -> int:
    """Run once."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of an earlier run, to play its rounds again")
    parser.add_argument("--faults", type=int, default=160, help="kills at the least")
    parser.add_argument("--only", choices=POINTS, help="kill at this failpoint alone")
    parser.add_argument("--keep", type=Path, help="folder of the cluster's data and logs; a temporary one without it")
    asked = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if asked.seed is None else asked.seed
    say = partial(print, flush=True)
    say(f"seed {seed}")
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kitemesh-chaos-") as temporary:
        folder = asked.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with faulty_cluster(folder, doubled=True) as faulty:
            found = asyncio.run(run(faulty, seed=seed, faults=asked.faults, only=asked.only, say=say))
    say("")
    say(render(found.played, found.verdict))
    say(f"seed {seed}, {found.faults} faults in {time.monotonic() - began_s:.0f} s")
    for sentence in found.verdict.violations:
        say(f"VIOLATED: {sentence}")
    return 1 if found.verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
