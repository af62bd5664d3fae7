"""How the bench measures, whatever the target: first tokens, rates, floods, open streams, loads that take turns."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from bench.bench_client import Answer, Connection, Target, connect, request_bytes
from bench.bench_cluster import Cluster, spent

FIRST_TOKEN_TOKENS: Final = 20
FIRST_TOKEN_DELAY_MS: Final = 10


Load = Callable[[Connection, float, list[Answer]], Awaitable[int]]
"""Asks on a connection until a time, adds each good answer, and returns how many failed."""


class Rate(NamedTuple):
    """A throughput, and what it was made of."""

    per_s: float
    p50_ms: float
    p99_ms: float
    events_per_s: float
    failures: int
    answers: int


def quantile(values: list[float], share: float) -> float:
    """Return the value below which that share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


async def loop_on(connection: Connection, data: bytes, until: float, answers: list[Answer]) -> int:
    """Ask again and again on one connection; return how many answers failed."""
    failures = 0
    while time.perf_counter() < until:
        answer = await connection.send(data)
        if answer.status == 200 and answer.characters:
            answers.append(answer)
        else:
            failures += 1
    return failures


def asking(target: Target, text: str, *, stream: bool = False) -> Load:
    """Return the load of one and the same chat request."""
    data = request_bytes(target, text, stream=stream)

    async def load(connection: Connection, until: float, answers: list[Answer]) -> int:
        return await loop_on(connection, data, until, answers)

    return load


async def put_on(port: int, load: Load, answers: list[Answer], *, clients: int, seconds: float) -> tuple[float, int]:
    """Put a load on with so many clients for so long; return how long it took, and how many failed."""
    connections = [await connect(port) for _ in range(clients)]
    began = time.perf_counter()
    failures = sum(await asyncio.gather(*(load(each, began + seconds, answers) for each in connections)))
    took = time.perf_counter() - began
    for connection in connections:
        connection.transport.close()
    return took, failures


async def compare(
    cluster: Cluster, loads: dict[str, Load], *, clients: int, rounds: int, seconds: float
) -> dict[str, dict[str, Any]]:
    """Put loads on in turn, so that drift hits all alike; return rate, latency, failures and CPU of each."""
    answers: dict[str, list[Answer]] = {name: [] for name in loads}
    took, failures = dict.fromkeys(loads, 0.0), dict.fromkeys(loads, 0)
    cpu_s: dict[str, dict[str, float]] = {name: dict.fromkeys(cluster.processes, 0.0) for name in loads}
    for _ in range(rounds):
        for name, load in loads.items():
            before = cluster.cpu_s()
            lasted, failed = await put_on(cluster.port, load, answers[name], clients=clients, seconds=seconds)
            took[name] += lasted
            failures[name] += failed
            for process, used in spent(before, cluster.cpu_s()).items():
                cpu_s[name][process] += used
    return {
        name: {
            **figures(answers[name], took[name]),
            "failures": failures[name],
            "cpu_ms_per_turn": per_turn(cpu_s[name], len(answers[name])),
        }
        for name in loads
    }


def figures(answers: list[Answer], took_s: float) -> dict[str, Any]:
    """Return rate and latency of answers that took so long in all."""
    totals = [answer.total_s * 1000 for answer in answers]
    return {
        "per_s": round(len(answers) / took_s, 1),
        "p50_ms": round(quantile(totals, 0.5), 1),
        "p99_ms": round(quantile(totals, 0.99), 1),
    }


def per_turn(cpu_s: dict[str, float], turns: int) -> dict[str, float]:
    """Return the CPU of a turn in ms, by process and of all."""
    each = {name: round(used * 1000 / max(1, turns), 3) for name, used in cpu_s.items()}
    return {**each, "all": round(sum(each.values()), 3)}


async def run_clients(target: Target, text: str, *, clients: int, seconds: float, stream: bool) -> Rate:
    """Ask with so many clients at once for so long."""
    answers: list[Answer] = []
    load = asking(target, text, stream=stream)
    took, failures = await put_on(target.port, load, answers, clients=clients, seconds=seconds)
    totals = [answer.total_s * 1000 for answer in answers]
    return Rate(
        len(answers) / took,
        statistics.median(totals) if totals else 0.0,
        quantile(totals, 0.99),
        sum(answer.characters for answer in answers) / took,
        failures,
        len(answers),
    )


async def first_tokens(
    targets: dict[str, Target], *, streams: int, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Return the times to first token of each target in ms, while so many streams are always open.

    Streams are staggered, so that they do not all begin at once; targets take turns, so that drift hits all alike.
    """
    seen: dict[str, list[Answer]] = {name: [] for name in targets}
    text = f"tokens={FIRST_TOKEN_TOKENS} delay_ms={FIRST_TOKEN_DELAY_MS}"
    length_s = FIRST_TOKEN_TOKENS * FIRST_TOKEN_DELAY_MS / 1000
    connections = {name: [await connect(target.port) for _ in range(streams)] for name, target in targets.items()}

    async def staggered(name: str, place: int, until: float) -> None:
        await asyncio.sleep(length_s * place / streams)
        data = request_bytes(targets[name], text, stream=True)
        await loop_on(connections[name][place], data, until, seen[name])

    for _ in range(rounds):
        for name in targets:
            until = time.perf_counter() + seconds
            await asyncio.gather(*(staggered(name, place, until) for place in range(streams)))
    for group in connections.values():
        for connection in group:
            connection.transport.close()
    return {name: [answer.first_s * 1000 for answer in answers] for name, answers in seen.items()}


async def open_streams(
    target: Target, *, streams: int, measure: Callable[[], dict[str, float]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Hold so many streams open, idle after their first token; return the memory before and meanwhile, in KiB."""
    before = measure()
    data = request_bytes(target, "tokens=2 delay_ms=1 hold_s=600", stream=True)
    connections: list[Connection] = []
    answers: list[asyncio.Future[Answer]] = []
    for _ in range(0, streams, 50):
        batch = [await connect(target.port) for _ in range(50)]
        connections += batch
        answers += [connection.send(data) for connection in batch]
        async with asyncio.timeout(30):
            await asyncio.gather(*(connection.first() for connection in batch))
    during = measure()
    for connection in connections:
        connection.transport.abort()
    # Every one of them was cut off on purpose.
    await asyncio.gather(*answers, return_exceptions=True)
    return before, during
