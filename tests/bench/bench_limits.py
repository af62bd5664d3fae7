"""What a key with limits, its tenant's limits and a group with weights cost a turn, beside one with nothing of it."""

import json
import subprocess
import sys
from typing import Any, Final

from bench.bench_client import Target
from bench.bench_cluster import CHAT, GROUP, Cluster
from bench.bench_measures import asking, compare, first_tokens, put_on, quantile
from bench.bench_table import say

CLIENTS: Final = 16
ROUNDS: Final = 6
SECONDS: Final = 2.0
STREAMS: Final = 16
TENANT: Final = "limited"
PLENTY: Final = ("--limit-requests", "6000000", "--limit-tokens", "600000000", "--limit-turns", "10000")
"""Limits that are never reached, so that what is measured is asking for them."""
OFF: Final = "without"
ON: Final = "with"
WHOLE: Final = "tokens=20 delay_ms=0 hold_s=0"


async def measure(cluster: Cluster) -> dict[str, Any]:
    """Take every figure."""
    say(f"key, limits and routing, with and without, {CLIENTS} clients")
    _verb(cluster, "tenants", "set", TENANT, *PLENTY)
    key = _verb(cluster, "keys", "create", "--tenant", TENANT, *PLENTY)["key"]
    targets = {
        OFF: Target(cluster.port, CHAT, "bench"),
        ON: Target(cluster.port, CHAT, f"group:{GROUP}", key),
    }
    loads = {name: asking(target, WHOLE) for name, target in targets.items()}
    for load in loads.values():
        await put_on(cluster.port, load, [], clients=CLIENTS, seconds=1.0)
    turns = await compare(cluster, loads, clients=CLIENTS, rounds=ROUNDS, seconds=SECONDS)
    firsts = await first_tokens(targets, streams=STREAMS, rounds=ROUNDS, seconds=SECONDS)
    medians = {name: round(quantile(times, 0.5), 2) for name, times in firsts.items()}
    cpu = {name: figures["cpu_ms_per_turn"]["all"] for name, figures in turns.items()}
    return {
        "clients": CLIENTS,
        "turns": turns,
        "first_token_p50_ms": {**medians, "more": round(medians[ON] - medians[OFF], 2)},
        "cpu_ratio": round(cpu[ON] / cpu[OFF], 3),
    }


def _verb(cluster: Cluster, *words: str) -> Any:
    command = [sys.executable, "-m", "kitemesh_cli", *words, "--json", "--data", str(cluster.data)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
