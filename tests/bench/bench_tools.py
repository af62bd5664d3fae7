"""Turns that call a safe and a once tool, beside plain ones, and what a call is under way between model and tool."""

import json
import statistics
import urllib.request
from typing import Any, Final

from bench.bench_client import Target
from bench.bench_cluster import Cluster
from bench.bench_measures import asking, compare, put_on, quantile
from bench.bench_table import say
from kitemesh_cli.servers import LOOPBACK

CLIENTS: Final = 16
ROUNDS: Final = 2
SECONDS: Final = 3.0
HOPS_S: Final = 2.0
PLAIN: Final = "plain"
TURNS: Final = {
    PLAIN: "",
    "safe, then once": " calls=look/act",
    "both in one step": " calls=look+act",
    "safe, then once, in Python": " calls=weather/delete_record",
}


async def measure(cluster: Cluster, upstream: int) -> dict[str, Any]:
    """Take every figure of turns with tools."""
    say(f"turns with tools, {CLIENTS} clients")
    clerk = cluster.target("agent:clerk")
    bench = cluster.target("bench")
    loads = {
        name: asking(clerk if calls else bench, f"tokens=20 delay_ms=0 hold_s=0{calls}")
        for name, calls in TURNS.items()
    }
    for load in loads.values():
        await put_on(cluster.port, load, [], clients=CLIENTS, seconds=0.5)
    turns = await compare(cluster, loads, clients=CLIENTS, rounds=ROUNDS, seconds=SECONDS)
    plain = turns[PLAIN]
    for figures in turns.values():
        figures["rate_to_plain"] = round(figures["per_s"] / plain["per_s"], 3)
        figures["cpu_to_plain"] = round(figures["cpu_ms_per_turn"]["all"] / plain["cpu_ms_per_turn"]["all"], 2)
    return {
        "clients": CLIENTS,
        "turns": turns,
        "hops_ms": {f"clients {clients}": await _hops(clerk, upstream, clients) for clients in (1, CLIENTS)},
    }


async def _hops(clerk: Target, upstream: int, clients: int) -> dict[str, Any]:
    """Return how long calls are under way, median and p99."""
    say(f"from the model to its tool and back, {clients} clients")
    _taken(upstream)
    answers: list[Any] = []
    load = asking(clerk, f"tokens=20 delay_ms=0 hold_s=0{TURNS['safe, then once']}")
    await put_on(clerk.port, load, answers, clients=clients, seconds=HOPS_S)
    noted = _taken(upstream)
    names = {"look": "safe", "act": "once"}
    return {
        way: {
            names[tool]: {"p50": round(statistics.median(times), 2), "p99": round(quantile(times, 0.99), 2)}
            for tool, times in noted[way].items()
        }
        for way in ("to_tool", "to_model")
    }


def _taken(upstream: int) -> Any:
    with urllib.request.urlopen(f"http://{LOOPBACK}:{upstream}/hops", timeout=10) as answer:
        return json.load(answer)
