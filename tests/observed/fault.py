"""What a fault is, and what several of them do: ask many times at once, keep asking, freeze and thaw processes."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple

import aiohttp

from observed.load import Client
from observed.stage import Stage

LOOK_S: Final = 0.5
WAIT_S: Final = 20.0

Inject = Callable[[Stage, Client], AbstractAsyncContextManager[None]]
"""It begins when the context is entered, and leaving puts right what is wrong."""


class Fault(NamedTuple):
    """Something that goes wrong.

    Attributes:
        alerts: That have to fire because of it.

    """

    name: str
    alerts: tuple[str, ...]
    inject: Inject


@contextlib.asynccontextmanager
async def beside(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do something else while inside; leaving ends it."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(look: Callable[[], Awaitable[bool]], *, timeout_s: float = WAIT_S) -> bool:
    """Look again and again until it is so; `False` when it was not in time."""
    end_s = time.monotonic() + timeout_s
    while True:
        if await look():
            return True
        if time.monotonic() > end_s:
            return False
        await asyncio.sleep(LOOK_S)


async def keep(ask: Callable[[], Awaitable[object]], *, every_s: float) -> None:
    """Ask again and again, whatever is answered and however long that takes."""

    async def once() -> None:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            await ask()

    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(once())
            await asyncio.sleep(every_s)


async def many(ask: Callable[[], Awaitable[object]], times: int) -> None:
    """Ask so many times at once, whatever is answered."""

    async def once() -> None:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            await ask()

    await asyncio.gather(*(once() for _ in range(times)))


def process_ids(stage: Stage, *instances: str) -> list[int]:
    """Return the process ids of instances, by the names under which they are scraped."""
    kept = stage.cluster.processes()
    return [kept[each].pid if each in kept else stage.replicas.pid(each) for each in instances]


@contextlib.contextmanager
def frozen(*ids: int) -> Iterator[None]:
    """Stop processes where they are while inside; their sockets stay open."""
    for each in ids:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in ids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGCONT)


async def stutter(*ids: int, still_s: float, moving_s: float) -> None:
    """Have processes stand still again and again, for so long each time."""
    while True:
        with frozen(*ids):
            await asyncio.sleep(still_s)
        await asyncio.sleep(moving_s)
