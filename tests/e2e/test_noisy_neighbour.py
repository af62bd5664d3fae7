"""A tenant that asks twenty times as often as it may: what another tenant's turns take beside it, and without it.

Two generators ask at a pace, whatever becomes of their requests. Times with and without the neighbour are taken in
turns, so that what else the machine does falls on both. The short form bounds the middle loosely: a p99 needs
thousands of turns and a quiet machine, which `pytest -m chaos` on this file has.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from cluster import GROUP, Cluster

LIMIT = 300
TIMES = 20
QUIET_PER_S = 20
WINDOW_S = 1.0
SETTLED_S = 0.2
ASKED = {"model": GROUP, "messages": [{"role": "user", "content": "@echo hello"}]}


def make_key(cluster: Cluster, tenant: str, **limits: int) -> str:
    reply = cluster.call(f"/v1/keys?tenant={tenant}", {"scopes": ["chat"], "limits": limits})
    assert reply.status == 201, reply.body
    made: dict[str, Any] = reply.json()
    return str(made["key"])


class Generator:
    """Asks at a pace, as one key."""

    def __init__(self, session: aiohttp.ClientSession, origin: str, key: str, per_s: float) -> None:
        self.statuses: Counter[int] = Counter()
        self._session = session
        self._url = f"{origin}/v1/chat/completions"
        self._headers = {"Authorization": f"Bearer {key}"}
        self._pause_s = 1 / per_s

    async def ask(self) -> float:
        """Return how long an answer took, in seconds."""
        began_s = time.perf_counter()
        async with self._session.post(self._url, json=ASKED, headers=self._headers) as reply:
            await reply.read()
        self.statuses[reply.status] += 1
        return time.perf_counter() - began_s

    async def keep_asking(self, for_s: float) -> list[float]:
        """Begin requests at the pace for so long, and return what each took."""
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        end_s = next_s + for_s
        async with asyncio.TaskGroup() as group:
            asked = []
            while next_s < end_s:
                asked.append(group.create_task(self.ask()))
                next_s += self._pause_s
                await asyncio.sleep(max(0.0, next_s - loop.time()))
        return [each.result() for each in asked]


@contextlib.asynccontextmanager
async def asking(generator: Generator) -> AsyncIterator[None]:
    """Have a generator ask while inside."""
    task = asyncio.create_task(generator.keep_asking(60))
    try:
        await asyncio.sleep(SETTLED_S)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def quantile(times_s: list[float], share: float) -> float:
    return sorted(times_s)[min(len(times_s) - 1, int(share * len(times_s)))]


@pytest.mark.requirement("limits:noisy-neighbour")
@pytest.mark.parametrize(
    ("windows", "share", "bound"), [(3, 0.5, 3.0), pytest.param(30, 0.99, 1.25, marks=pytest.mark.chaos)]
)
async def test_a_tenant_at_twenty_times_its_limit_costs_another_little_and_no_error(
    cluster: Cluster, windows: int, share: float, bound: float
) -> None:
    alone: list[float] = []
    beside: list[float] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        quiet = Generator(session, cluster.origin, make_key(cluster, "quiet"), QUIET_PER_S)
        key = make_key(cluster, "noisy", requests_per_minute=LIMIT)
        noisy = Generator(session, cluster.origin, key, TIMES * LIMIT / 60)
        await quiet.keep_asking(WINDOW_S)
        # What it may ask at once is gone before anything is measured.
        while noisy.statuses[429] == 0:
            await noisy.keep_asking(WINDOW_S / 2)
        for _ in range(windows):
            alone += await quiet.keep_asking(WINDOW_S)
            async with asking(noisy):
                beside += await quiet.keep_asking(WINDOW_S)
    ratio = quantile(beside, share) / quantile(alone, share)
    told = f"{share:.0%} of turns: {quantile(alone, share) * 1000:.1f} ms alone, "
    told += f"{quantile(beside, share) * 1000:.1f} ms beside: x {ratio:.2f}; the neighbour: {dict(noisy.statuses)}"
    print(f"\n{told}")
    assert set(quiet.statuses) == {200}
    assert set(noisy.statuses) == {200, 429}
    assert noisy.statuses[429] > noisy.statuses[200]
    assert ratio < bound, told
