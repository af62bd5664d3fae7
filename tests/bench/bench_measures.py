"""What the bench measures, each against one target: first tokens, whole turns, floods, open streams."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from bench.bench_client import Answer, Connection, Target, connect, request_bytes

FIRST_TOKEN_TOKENS: Final = 20
FIRST_TOKEN_DELAY_MS: Final = 10


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


async def first_tokens(targets: dict[str, Target], *, streams: int, rounds: int, seconds: float) -> dict[str, float]:
    """Return the median time to first token of each target in ms, while so many streams are always open.

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
    return {name: statistics.median(answer.first_s * 1000 for answer in answers) for name, answers in seen.items()}


async def open_streams(
    target: Target, *, streams: int, measure: Callable[[], Awaitable[dict[str, float]]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Hold so many streams open, idle after their first token; return the memory before and meanwhile, in KiB."""
    before = await measure()
    data = request_bytes(target, "tokens=2 delay_ms=1 hold_s=600", stream=True)
    connections: list[Connection] = []
    answers: list[asyncio.Future[Answer]] = []
    for _ in range(0, streams, 50):
        batch = [await connect(target.port) for _ in range(50)]
        connections += batch
        answers += [connection.send(data) for connection in batch]
        async with asyncio.timeout(30):
            await asyncio.gather(*(connection.first() for connection in batch))
    during = await measure()
    for connection in connections:
        connection.transport.abort()
    # Every one of them was cut off on purpose.
    await asyncio.gather(*answers, return_exceptions=True)
    return before, during
