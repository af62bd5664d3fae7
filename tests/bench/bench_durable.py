"""Durable turns beside classic ones, and streams that go on at another gateway."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any, Final

import psutil

from bench import bench_measures
from bench.bench_client import Target
from bench.bench_cluster import Cluster, second_gateway
from bench.bench_measures import asking, compare, put_on, quantile
from bench.bench_streams import Reading, numbered, read
from bench.bench_table import say

MODES: Final = ("classic", "durable")
STREAMS: Final = 16
CLIENTS: Final = 64
DELTAS: Final = 1000
LAST: Final = b"w%d " % (DELTAS - 1)
RESUMES: Final = 40
READERS: Final = 200
READER_TOKENS: Final = 60
READER_PAUSE_MS: Final = 100
SHOWN_BEFORE: Final = 20
LEVEL: Final = 2
"""A reader that is so few tokens behind has caught up."""

LATEST_S: Final = 60.0


async def measure(cluster: Cluster, folder: Path) -> dict[str, Any]:
    """Take every figure of durable turns."""
    targets = {mode: cluster.target("bench", mode) for mode in MODES}
    for target in targets.values():
        await put_on(cluster.port, asking(target, "tokens=5", stream=True), [], clients=STREAMS, seconds=1.0)
    return {
        "first_token_ms": await _first_tokens(targets),
        "whole_turns": await _whole_turns(cluster, targets),
        "resumed": await _resumed(cluster, folder),
        "gateway_killed": await _gateway_killed(cluster, folder),
    }


async def _first_tokens(targets: dict[str, Target]) -> dict[str, Any]:
    say(f"first tokens, classic and durable, {STREAMS} streams")
    times = await bench_measures.first_tokens(targets, streams=STREAMS, rounds=4, seconds=2)
    found = {
        mode: {"p50": round(quantile(each, 0.5), 2), "p95": round(quantile(each, 0.95), 2)}
        for mode, each in times.items()
    }
    more = {name: round(found["durable"][name] - found["classic"][name], 2) for name in ("p50", "p95")}
    return {**found, "more": more}


async def _whole_turns(cluster: Cluster, targets: dict[str, Target]) -> dict[str, Any]:
    say(f"whole turns, classic and durable, {CLIENTS} clients")
    loads = {mode: asking(target, "tokens=20") for mode, target in targets.items()}
    return await compare(cluster, loads, clients=CLIENTS, rounds=3, seconds=3.0)


async def _resumed(cluster: Cluster, folder: Path) -> dict[str, Any]:
    """Tell a stream again and again at a gateway that has not seen it, while it runs and after it has ended."""
    say(f"a stream of {DELTAS:,} deltas, resumed at another gateway {RESUMES} times while it runs and afterwards")
    running, ended = (f"tokens={DELTAS} delay_ms=2 hold_s=0 numbered linger_s={linger_s}" for linger_s in (30, 0))
    here = cluster.target("bench", "durable")
    async with second_gateway(cluster, folder) as (port, gateway), asyncio.timeout(LATEST_S):
        there = here._replace(port=port)
        first, second = await read(here, running), await read(here, ended)
        await asyncio.gather(first.until(LAST), second.ended)
        events = len(second.told().ids)
        found = {
            "running": await _resume_often(there, running, first.told().ids[0], gateway, until=LAST),
            "ended": await _resume_often(there, ended, second.told().ids[0], gateway, until=b"[DONE]"),
        }
        first.transport.close()
        second.transport.close()
    return {"deltas": DELTAS, "events": events, "resumes": RESUMES, **found}


async def _resume_often(
    target: Target, text: str, position: str, gateway: psutil.Process, *, until: bytes
) -> dict[str, Any]:
    times: list[float] = []
    failures = 0
    await _resume(target, text, position, until)
    before = sum(gateway.cpu_times()[:2])
    for _ in range(RESUMES):
        began = time.perf_counter()
        reading = await _resume(target, text, position, until)
        times.append((time.perf_counter() - began) * 1000)
        failures += reading.told().text != numbered(DELTAS)
    cpu_s = sum(gateway.cpu_times()[:2]) - before
    return {
        "p50_ms": round(quantile(times, 0.5), 1),
        "p95_ms": round(quantile(times, 0.95), 1),
        "gateway_cpu_us_per_delta": round(cpu_s * 1e6 / RESUMES / DELTAS, 1),
        "failures": failures,
    }


async def _resume(target: Target, text: str, position: str, until: bytes) -> Reading:
    reading = await read(target, text, position)
    await reading.until(until)
    reading.transport.abort()
    return reading


async def _gateway_killed(cluster: Cluster, folder: Path) -> dict[str, Any]:
    """Kill a gateway with all its readers, who go on at another one at once."""
    say(f"{READERS} streams whose gateway is killed")
    text = f"tokens={READER_TOKENS} delay_ms={READER_PAUSE_MS} hold_s=0 numbered"
    here = cluster.target("bench", "durable")
    async with second_gateway(cluster, folder) as (port, gateway), asyncio.timeout(LATEST_S):
        there = here._replace(port=port)
        before = [await read(there, text) for _ in range(READERS)]
        await before[-1].until(b"w%d " % SHOWN_BEFORE)
        gateway.send_signal(signal.SIGKILL)
        killed = time.perf_counter()
        await asyncio.gather(*(reading.ended for reading in before))
        after = await asyncio.gather(*(read(here, text, reading.told().ids[-1]) for reading in before))
        await asyncio.gather(*(reading.ended for reading in after))
    for reading in after:
        reading.transport.close()
    caught_up = [_caught_up_s(one, other) - killed for one, other in zip(before, after, strict=True)]
    inexact = sum(not _is_exact(one, other) for one, other in zip(before, after, strict=True))
    return {
        "readers": READERS,
        "shown_before": sum(reading.told().text.count(" ") for reading in before),
        "caught_up_p50_ms": round(quantile(caught_up, 0.5) * 1000),
        "caught_up_last_ms": round(max(caught_up) * 1000),
        "failures": inexact,
    }


def _is_exact(before: Reading, after: Reading) -> bool:
    """Tell whether two readings are together one whole stream, each event once."""
    one, other = before.told(), after.told()
    ids = one.ids + other.ids
    return other.done and one.text + other.text == numbered(READER_TOKENS) and len(set(ids)) == len(ids)


def _caught_up_s(before: Reading, after: Reading) -> float:
    """Return when a reader was level again with a stream that has gone on at the pace that it had before."""
    counts = [each for each in before.counts() if each[1]]
    (began, one), (until, shown) = counts[0], counts[-1]
    pace = (shown - one) / (until - began)
    for moment, more in after.counts():
        if shown + more >= min(READER_TOKENS, one + pace * (moment - began) - LEVEL):
            return moment
    return float("inf")
