"""Turns in flight while faults happen.

A number of clients ask again as soon as they were answered, and new ones come at a fixed pace whatever became of those:
when everything stands still, somebody must be there to be refused.
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from chaos.chaos_turns import open_session
from chaos.load_client import PATIENCE_S, LoadClient
from chaos.load_turns import WORDS, LoadTurn, Mode

CLIENTS: Final = 8
STREAMED: Final = 0.75
LEAVING: Final = 0.4
"""Share of durable streams whose clients leave in the middle and come back elsewhere."""
PAUSE_S: Final = 0.3
"""After a refusal a client waits for so long, so that it does not ask thousands of times while all is down."""
NEW_EVERY_S: Final = 0.5
LOOK_S: Final = 0.02


class Load:
    """The clients; made by `running_load`.

    Attributes:
        turns: Every turn, in the order in which they were begun.

    """

    def __init__(self, client: LoadClient, rng: random.Random, modes: Sequence[Mode], name: str) -> None:
        self.turns: Final[list[LoadTurn]] = []
        self._client = client
        self._rng = rng
        self._modes = modes
        self._name = name
        self._numbers = itertools.count()
        self._ending = False

    async def keep_asking(self, first: int) -> None:
        """Be one client until the load ends."""
        while not self._ending:
            turn = self._begin()
            await self._client.drive(turn, first)
            if turn.result != "answered":
                await asyncio.sleep(PAUSE_S)

    async def keep_coming(self) -> None:
        """Be a new client every now and then until the load ends."""
        async with asyncio.TaskGroup() as group:
            for place in itertools.count():
                await asyncio.sleep(NEW_EVERY_S)
                if self._ending:
                    return
                group.create_task(self._client.drive(self._begin(), place))

    def _begin(self) -> LoadTurn:
        number = next(self._numbers)
        mode = self._modes[number % len(self._modes)]
        stream = self._rng.random() < STREAMED
        turn = LoadTurn(f"{self._name}-{number}", mode, stream=stream, keyed=mode == "durable")
        if turn.keyed and stream and self._rng.random() < LEAVING:
            turn.leave_after = self._rng.randint(1, WORDS)
        self.turns.append(turn)
        return turn

    def end(self) -> None:
        """Begin no more turns."""
        self._ending = True

    async def served_since(self, since_s: float, *, times: int, timeout_s: float) -> bool:
        """Wait until so many turns that were begun since then are served; `False` when they are not in time."""

        def found() -> int:
            return sum(turn.is_served and turn.began_s >= since_s for turn in self.turns if turn.asks)

        return await await_so(lambda: found() >= times, timeout_s=timeout_s)


@contextlib.asynccontextmanager
async def running_load(
    origins: Sequence[str], key: str, *, modes: Sequence[Mode], seed: int, name: str, clients: int = CLIENTS
) -> AsyncIterator[Load]:
    """Have clients while inside; leaving waits for the end of every turn."""
    async with open_session() as session:
        load = Load(LoadClient(origins, key, session), random.Random(seed), modes, name)
        tasks = [asyncio.create_task(load.keep_asking(place), name=f"client-{place}") for place in range(clients)]
        tasks.append(asyncio.create_task(load.keep_coming(), name="new-clients"))
        try:
            yield load
            load.end()
            async with asyncio.timeout(PATIENCE_S + 2 * NEW_EVERY_S):
                await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def await_so(condition: Callable[[], bool], *, timeout_s: float) -> bool:
    """Look again and again until it is so; `False` when it was not in time."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        await asyncio.sleep(LOOK_S)
    return True
