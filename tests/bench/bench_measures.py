"""What the bench measures, each against one target: first tokens, whole turns, floods, open streams."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from bench.bench_client import Answer, Connection, Target, connect, request_bytes


class Rate(NamedTuple):
    """A throughput, and what it was made of."""

    per_s: float
    p50_ms: float
    p99_ms: float
    events_per_s: float
    failures: int


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


async def run_clients(target: Target, text: str, *, clients: int, seconds: float, stream: bool) -> Rate:
    """Ask with so many clients at once for so long."""
    data = request_bytes(target, text, stream=stream)
    connections = [await connect(target.port) for _ in range(clients)]
    answers: list[Answer] = []
    began = time.perf_counter()
    failures = sum(
        await asyncio.gather(*(loop_on(each, data, began + seconds, answers) for each in connections)),
    )
    took = time.perf_counter() - began
    for connection in connections:
        connection.transport.close()
    totals = [answer.total_s * 1000 for answer in answers]
    return Rate(
        len(answers) / took,
        statistics.median(totals) if totals else 0.0,
        quantile(totals, 0.99),
        sum(answer.characters for answer in answers) / took,
        failures,
    )


async def first_tokens(targets: dict[str, Target], *, streams: int, rounds: int) -> dict[str, float]:
    """Return the median time to first token of each target, asked in turn so that drift hits all alike, in ms."""
    seen: dict[str, list[float]] = {name: [] for name in targets}
    text = "tokens=20 delay_ms=5"
    connections = {name: [await connect(target.port) for _ in range(streams)] for name, target in targets.items()}
    for _ in range(rounds):
        for name, target in targets.items():
            data = request_bytes(target, text, stream=True)
            answers = await asyncio.gather(*(each.send(data) for each in connections[name]))
            seen[name] += [answer.first_s * 1000 for answer in answers if answer.status == 200]
    for group in connections.values():
        for connection in group:
            connection.transport.close()
    return {name: statistics.median(values) for name, values in seen.items()}


async def open_streams(
    target: Target, *, streams: int, measure: Callable[[], Awaitable[dict[str, float]]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Hold so many streams open, idle after their first token; return the memory before and meanwhile, in KiB."""
    before = await measure()
    data = request_bytes(target, "tokens=2 delay_ms=1 hold_s=600", stream=True)
    connections: list[Connection] = []
    for _ in range(0, streams, 50):
        batch = [await connect(target.port) for _ in range(50)]
        connections += batch
        for connection in batch:
            connection.send(data)
        async with asyncio.timeout(30):
            await asyncio.gather(*(connection.first() for connection in batch))
    during = await measure()
    for connection in connections:
        connection.transport.abort() if isinstance(connection.transport, asyncio.Transport) else None
    return before, during
