"""What metrics cost: a cluster that in turn is as shipped, and scraped as the compose file has it, and counts nothing.

`unmetered/sitecustomize.py` empties what counts, and fills it again, when the services are told to by a signal.
"""

import asyncio
import contextlib
import re
import signal
import statistics
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp

from bench.bench_client import Answer
from bench.bench_cluster import HERE, SERVICES, Cluster, running, spent
from bench.bench_measures import Load, asking, per_turn, put_on
from bench.bench_table import say
from kitemesh_cli.servers import LOOPBACK

CLIENTS: Final = 32
PAIRS: Final = 6
SECONDS: Final = 5.0
SCRAPE_EVERY_S: Final = 5.0
SCRAPES: Final = 100
WHOLE: Final = "tokens=20"
ON: Final = "with"
OFF: Final = "without"
_HEALTH: Final = re.compile(r"http://127\.0\.0\.1:(\d+)/healthz")


class Measured(NamedTuple):
    """One load on one cluster."""

    answers: int
    per_s: float
    failures: int
    cpu_s: dict[str, float]


async def measure(folder: Path, upstream: int) -> dict[str, Any]:
    """Take every figure."""
    switched = {"PYTHONPATH": f"{HERE / 'unmetered'}:{HERE.parent}"}
    async with running(folder, "metered", upstream, **switched) as cluster:
        return await _measure(cluster, await _health_ports(folder / "metered.log"))


async def _measure(cluster: Cluster, ports: list[int]) -> dict[str, Any]:
    result: dict[str, Any] = {"clients": CLIENTS, "pairs": PAIRS}
    async with aiohttp.ClientSession() as session:
        result["scrape"] = await _scrapes(session, cluster, ports)
        state = ON
        for kind, mode, stream in (("classic", "", False), ("durable, streamed", "durable", True)):
            say(f"{kind} turns, with metrics and without, {CLIENTS} clients")
            seen: dict[str, list[Measured]] = {ON: [], OFF: []}
            for pair in range(-1, PAIRS):
                # The first pair warms up, and each goes first as often as the other.
                for name in (ON, OFF) if pair % 2 else (OFF, ON):
                    if name != state:
                        _switch(cluster)
                        state = name
                    load = asking(cluster.target("bench", mode), WHOLE, stream=stream)
                    async with _scraping(session, ports if name == ON else []):
                        measured = await _put_on(cluster, load)
                    if pair >= 0:
                        seen[name].append(measured)
            result[kind] = _figures(seen)
    return result


def _switch(cluster: Cluster) -> None:
    for service in SERVICES:
        cluster.processes[service].send_signal(signal.SIGUSR1)


async def _put_on(cluster: Cluster, load: Load) -> Measured:
    answers: list[Answer] = []
    before = cluster.cpu_s()
    took, failures = await put_on(cluster.port, load, answers, clients=CLIENTS, seconds=SECONDS)
    return Measured(len(answers), len(answers) / took, failures, spent(before, cluster.cpu_s()))


def _figures(seen: dict[str, list[Measured]]) -> dict[str, Any]:
    cpu = {
        name: per_turn(
            {process: sum(each.cpu_s[process] for each in rounds) for process in rounds[0].cpu_s},
            sum(each.answers for each in rounds),
        )
        for name, rounds in seen.items()
    }
    pairs = [on.per_s / off.per_s for on, off in zip(seen[ON], seen[OFF], strict=True)]
    return {
        "per_s": {name: round(statistics.median(each.per_s for each in rounds), 1) for name, rounds in seen.items()},
        "cpu_ms_per_turn": cpu,
        "per_s_ratio": round(statistics.median(pairs), 3),
        "per_s_ratios": [round(each, 3) for each in sorted(pairs)],
        "cpu_ratio": round(cpu[ON]["all"] / cpu[OFF]["all"], 3),
        "failures": sum(each.failures for rounds in seen.values() for each in rounds),
    }


@contextlib.asynccontextmanager
async def _scraping(session: aiohttp.ClientSession, ports: list[int]) -> AsyncIterator[None]:
    """Read the metrics of every port while inside, as Prometheus does."""

    async def scrape() -> None:
        while True:
            for port in ports:
                await _read(session, port)
            await asyncio.sleep(SCRAPE_EVERY_S)

    task = asyncio.create_task(scrape(), name="scrape")
    try:
        yield
    finally:
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(outcome, Exception):
            raise outcome


async def _read(session: aiohttp.ClientSession, port: int) -> bytes:
    async with session.get(f"http://{LOOPBACK}:{port}/metrics", headers={"Accept-Encoding": "gzip"}) as reply:
        return await reply.read()


async def _scrapes(session: aiohttp.ClientSession, cluster: Cluster, ports: list[int]) -> dict[str, float]:
    """Return what a process tells and what that costs it, HTTP included; its own work meanwhile is in it."""
    before = cluster.cpu_s()
    texts = [await _read(session, port) for _ in range(SCRAPES) for port in ports]
    used = spent(before, cluster.cpu_s())
    return {
        "kib": round(sum(map(len, texts)) / len(texts) / 1024, 1),
        "cpu_ms": round(sum(used[name] for name in SERVICES) / len(texts) * 1000, 2),
    }


async def _health_ports(log: Path) -> list[int]:
    """Return where the services of a cluster show their metrics, once its supervisor has printed it."""
    async with asyncio.timeout(10):
        while True:
            found = _HEALTH.findall(await asyncio.to_thread(log.read_text))
            if len(found) == len(SERVICES):
                return [int(port) for port in found]
            await asyncio.sleep(0.1)
