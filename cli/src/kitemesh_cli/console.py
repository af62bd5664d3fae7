"""What a person sees while a cluster runs: steps with their time, then one line for each thing that happens.

A terminal may go away under it; the cluster does not care.
"""

import asyncio
import os
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

_PATIENCE_S: Final = 5.0
_WIDTH: Final = 64


class Step:
    """Something under way; what is put into `detail` is printed when it is done."""

    def __init__(self) -> None:
        self.detail = ""


def say(text: str) -> None:
    """Print a line now."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError:
        # Whoever read it is gone: a closed pipe or a closed terminal. Later lines go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@asynccontextmanager
async def step(name: str) -> AsyncIterator[Step]:
    """Print what was done and how long it took; before that, every few seconds, that it still goes on."""
    started = time.monotonic()
    current = Step()
    ticking = asyncio.create_task(_tick(name, started), name=f"tick-{name}")
    try:
        yield current
    finally:
        ticking.cancel()
    *first, last = textwrap.wrap(current.detail, _WIDTH, break_on_hyphens=False) or [""]
    for number, line in enumerate(first):
        say(f"  {'' if number else name:<16}{line}")
    say(f"  {'' if first else name:<16}{last:<{_WIDTH}}{time.monotonic() - started:5.1f} s")


async def _tick(name: str, started: float) -> None:
    while True:
        await asyncio.sleep(_PATIENCE_S)
        say(f"  {name:<16}still waiting after {time.monotonic() - started:.0f} s")
