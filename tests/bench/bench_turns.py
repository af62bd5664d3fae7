"""Plain turns: first tokens, whole turns, relayed deltas and open streams, beside a bare pass-through in one run."""

import statistics
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench import bench_measures
from bench.bench_client import Target
from bench.bench_cluster import CHAT, RUN, SERVER_CORE, SERVICES, Cluster, answering, child, spent
from bench.bench_table import say
from kitemesh_cli.servers import LOOPBACK, free_port


async def measure(cluster: Cluster, upstream: int, folder: Path) -> dict[str, Any]:
    """Take every figure of plain turns."""
    port, log = free_port(), folder / "bare.log"
    command = [*RUN, "bench.bench_passthrough", str(port), f"http://{LOOPBACK}:{upstream}"]
    async with AsyncExitStack() as stack:
        process = stack.enter_context(child(command, SERVER_CORE, log))
        await answering(port, "/", process, log)
        return await _measure(cluster, Target(upstream, CHAT, "bench"), Target(port, CHAT, "bench"))


async def _measure(cluster: Cluster, direct: Target, bare: Target) -> dict[str, Any]:
    mine = cluster.target("bench")
    result: dict[str, Any] = {
        "idle_memory_mib": {name: round(kib / 1024, 1) for name, kib in cluster.memory_kib().items()}
    }
    say("warming up")
    for target in (mine, bare):
        await bench_measures.run_clients(target, "tokens=5", clients=16, seconds=3, stream=True)
    say("first tokens, 16 streams")
    times = await bench_measures.first_tokens(
        {"direct": direct, "pass-through": bare, "kitemesh": mine}, streams=16, rounds=4, seconds=2
    )
    firsts = {name: statistics.median(each) for name, each in times.items()}
    result["first_token_p50_ms"] = {name: round(value, 2) for name, value in firsts.items()}
    result["added_first_token_p50_ms"] = round(firsts["kitemesh"] - firsts["direct"], 2)
    say("whole turns, 64 clients")
    before = cluster.cpu_s()
    whole = await bench_measures.run_clients(mine, "tokens=20", clients=64, seconds=15, stream=False)
    result["cpu_ms_per_turn"] = bench_measures.per_turn(spent(before, cluster.cpu_s()), whole.answers)
    bare_whole = await bench_measures.run_clients(bare, "tokens=20", clients=64, seconds=5, stream=False)
    result["whole_turns_per_s"] = {"kitemesh": round(whole.per_s), "pass-through": round(bare_whole.per_s)}
    result["whole_turn_ms"] = {"p50": round(whole.p50_ms, 1), "p99": round(whole.p99_ms, 1)}
    result["failures"] = whole.failures
    result["whole_turns_ratio"] = round(whole.per_s / bare_whole.per_s, 3)
    say("relayed deltas, 16 streams in flood")
    flood = await bench_measures.run_clients(mine, "tokens=2000", clients=16, seconds=10, stream=True)
    bare_flood = await bench_measures.run_clients(bare, "tokens=2000", clients=16, seconds=3, stream=True)
    result["deltas_per_s"] = {"kitemesh": round(flood.events_per_s), "pass-through": round(bare_flood.events_per_s)}
    result["failures"] += flood.failures
    say("1,000 idle open streams")
    idle, loaded = await bench_measures.open_streams(mine, streams=1000, measure=cluster.memory_kib)
    each = {name: round((loaded[name] - idle[name]) / 1000, 2) for name in idle}
    result["kib_per_open_stream"] = {**each, "services": round(sum(each.get(name, 0.0) for name in SERVICES), 1)}
    return result
