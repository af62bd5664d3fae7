"""Turns that are held and resumed, and what open holds cost while nobody answers them."""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from bench.bench_client import Answer, Connection, Target, ask, post_bytes, request_bytes
from bench.bench_cluster import Cluster, running, spent
from bench.bench_fill import Filled, settle
from bench.bench_measures import Load, compare, put_on, quantile
from bench.bench_table import say

CLIENTS: Final = 16
ROUNDS: Final = 2
SECONDS: Final = 4.0
OPEN: Final = 10_000
IDLE_S: Final = 60.0
WATCHED: Final = ("orchestrator", "mongod", "nats-server")
TRIED: Final = 20
HELD: Final = "tokens=20 delay_ms=0 hold_s=0 calls=pay"
RESUME: Final = "/v1/chat/resume"


async def measure(cluster: Cluster) -> dict[str, Any]:
    """Take the figures of turns that are held and resumed."""
    say(f"turns held and resumed, {CLIENTS} clients")
    held: list[float] = []
    load = _holding(cluster.target("agent:clerk"), held)
    await put_on(cluster.port, load, [], clients=CLIENTS, seconds=0.5)
    held.clear()
    found = await compare(cluster, {"resumed": load}, clients=CLIENTS, rounds=ROUNDS, seconds=SECONDS)
    resumed = found["resumed"]
    resumed["held_p50_ms"] = round(quantile(held, 0.5), 1)
    resumed["held_p99_ms"] = round(quantile(held, 0.99), 1)
    return {"clients": CLIENTS, **resumed}


async def measure_open(folder: Path, upstream: int) -> dict[str, Any]:
    """Compare two clusters that do nothing for a minute, the same minute, one with open holds and one without."""
    say(f"{OPEN:,} open holds")
    async with AsyncExitStack() as stack:
        without, with_holds = await asyncio.gather(
            *(stack.enter_async_context(running(folder, name, upstream)) for name in ("without", "with")),
        )
        status, held = await ask(with_holds.target("agent:clerk"), *_chat(with_holds))
        if status != 200 or "approval_id" not in held["kitemesh"]:
            raise SystemExit(f"nothing was held: {status} {held}")
        filled = await stack.enter_async_context(Filled.of(with_holds, held))
        began = time.perf_counter()
        copies = await filled.copy(OPEN - 1)
        created_s = time.perf_counter() - began
        await asyncio.gather(settle(without), settle(with_holds))
        opened = await filled.count_open()
        say(f"two clusters idle, one with {opened:,} open holds, {IDLE_S:.0f} s")
        before = [each.cpu_s() for each in (without, with_holds)]
        began = time.perf_counter()
        await asyncio.sleep(IDLE_S)
        lasted = time.perf_counter() - began
        shares = [
            _shares(spent(b, each.cpu_s()), lasted) for b, each in zip(before, (without, with_holds), strict=True)
        ]
        left = await filled.count_open()
        failures = abs(opened - OPEN) + abs(left - opened)
        say(f"resuming {TRIED} of them")
        for copy in copies[:: len(copies) // TRIED][:TRIED]:
            status, answer = await ask(with_holds.target("agent:clerk"), RESUME, _approval(copy))
            failures += status != 200 or answer["choices"][0]["finish_reason"] != "stop"
    none, many = shares
    return {
        "holds": opened,
        "copied_in_s": round(created_s, 1),
        "seconds": round(lasted, 1),
        "core_percent_without": none,
        "core_percent_with": many,
        "core_percent_more": round(sum(many[name] - none[name] for name in WATCHED), 2),
        "failures": failures,
    }


def _shares(cpu_s: dict[str, float], lasted_s: float) -> dict[str, float]:
    """Return what share of a core each process used, in percent."""
    each = {name: round(100 * used / lasted_s, 2) for name, used in cpu_s.items()}
    return {**each, "watched": round(sum(each[name] for name in WATCHED), 2), "all": round(sum(each.values()), 2)}


def _chat(cluster: Cluster) -> tuple[str, Any]:
    target = cluster.target("agent:clerk")
    return target.path, {"model": target.model, "messages": [{"role": "user", "content": HELD}]}


def _holding(target: Target, held: list[float]) -> Load:
    """Return the load of a turn that is held and resumed at once; its answers are those of the resume."""
    data = request_bytes(target, HELD, stream=False)

    async def load(connection: Connection, until: float, answers: list[Answer]) -> int:
        failures = 0
        while time.perf_counter() < until:
            first = await connection.send(data)
            approval = _approval(json.loads(connection.body)) if first.status == 200 else None
            if approval is None:
                failures += 1
                continue
            held.append(first.total_s * 1000)
            answer = await connection.send(post_bytes(target, RESUME, approval))
            if answer.status == 200 and answer.characters:
                answers.append(answer)
            else:
                failures += 1
        return failures

    return load


def _approval(held: Any) -> Any:
    """Return what approves all of a held answer; `None` if it is not held."""
    approval = held["kitemesh"].get("approval_id")
    if approval is None:
        return None
    calls = [call["id"] for call in held["choices"][0]["message"]["tool_calls"]]
    return {"model": held["model"], "approval_id": approval, "approved_tool_execution_ids": calls}
