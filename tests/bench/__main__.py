"""`make bench`: this cluster and a bare aiohttp pass-through in one run; prints a table and writes JSON.

Cluster, stores and pass-through run on one core, upstream and generator on the other, where pinning works. The machine
is shared with whatever else runs on it: read the ratios, not the absolute figures.
"""

import asyncio
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import uvloop
import yaml

from bench import bench_measures
from bench.bench_client import Target
from kitemesh_cli.servers import LOOPBACK, die_with_parent, free_port

HERE = Path(__file__).parent
SERVER_CORE, CLIENT_CORE = {0}, {1}
SERVICES = ("gateway", "orchestrator", "model_runner", "tool_executor")


def catalog(upstream: int) -> dict[str, Any]:
    """Return a catalog whose one model is the bench's upstream."""
    return {
        "version": 1,
        "providers": {"bench": {"kind": "openai", "base_url": f"http://{LOOPBACK}:{upstream}/v1"}},
        "models": {"bench": {"provider": "bench"}},
        "agents": {"assistant": {"model": "bench"}},
    }


def pinned(cores: set[int]) -> Callable[[], None]:
    """Return what a child runs first: dying with us, on those cores."""
    arm = die_with_parent()

    def prepare() -> None:
        if arm is not None:
            arm()
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setaffinity(0, cores)

    return prepare


@contextlib.contextmanager
def child(command: list[str], cores: set[int], log: Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process while inside."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=pinned(cores),  # noqa: PLW1509  pins, then execs
            env={**os.environ, "PYTHONPATH": str(HERE.parent), **environ},
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(40)


def tail(log: Path) -> str:
    """Return the end of a log."""
    return log.read_text(errors="replace")[-2000:]


async def answering(port: int, path: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the port answers HTTP."""

    def ask() -> bool:
        try:
            urllib.request.urlopen(f"http://{LOOPBACK}:{port}{path}", timeout=1).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    async with asyncio.timeout(90):
        while not await asyncio.to_thread(ask):
            if process.poll() is not None:
                raise SystemExit(tail(log))
            await asyncio.sleep(0.1)


def members(supervisor: int) -> dict[str, psutil.Process]:
    """Return the cluster's processes by name."""
    found: dict[str, psutil.Process] = {}
    for process in psutil.Process(supervisor).children(recursive=True):
        line = " ".join(process.cmdline())
        for name in (*SERVICES, "nats-server", "mongod"):
            if f"kitemesh_{name}" in line or line.split(" ")[0].endswith(f"/{name}"):
                found[name] = process
    return found


def memory_kib(processes: dict[str, psutil.Process]) -> dict[str, float]:
    """Return each process's unique memory."""
    return {name: process.memory_full_info().uss / 1024 for name, process in processes.items()}


def cpu_s(processes: dict[str, psutil.Process]) -> dict[str, float]:
    """Return each process's CPU time so far."""
    return {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}


async def measure(cluster: Target, direct: Target, bare: Target, supervisor: int) -> dict[str, Any]:
    """Take every figure."""
    processes = members(supervisor)
    result: dict[str, Any] = {"idle_memory_mib": {n: round(v / 1024, 1) for n, v in memory_kib(processes).items()}}
    say("warming up")
    for target in (cluster, bare):
        await bench_measures.run_clients(target, "tokens=5", clients=16, seconds=3, stream=True)
    say("first tokens, 16 streams")
    firsts = await bench_measures.first_tokens(
        {"direct": direct, "pass-through": bare, "kitemesh": cluster}, streams=16, rounds=4, seconds=2
    )
    result["first_token_p50_ms"] = {name: round(value, 2) for name, value in firsts.items()}
    result["added_first_token_p50_ms"] = round(firsts["kitemesh"] - firsts["direct"], 2)
    say("whole turns, 64 clients")
    before = cpu_s(processes)
    whole = await bench_measures.run_clients(cluster, "tokens=20", clients=64, seconds=15, stream=False)
    turns = max(1.0, whole.per_s * 15)
    result["cpu_ms_per_turn"] = {
        name: round((after - before[name]) * 1000 / turns, 3) for name, after in cpu_s(processes).items()
    }
    result["cpu_ms_per_turn"]["all"] = round(sum(result["cpu_ms_per_turn"].values()), 3)
    bare_whole = await bench_measures.run_clients(bare, "tokens=20", clients=64, seconds=8, stream=False)
    result["whole_turns_per_s"] = {"kitemesh": round(whole.per_s), "pass-through": round(bare_whole.per_s)}
    result["whole_turn_ms"] = {"p50": round(whole.p50_ms, 1), "p99": round(whole.p99_ms, 1)}
    result["failures"] = whole.failures
    result["whole_turns_ratio"] = round(whole.per_s / bare_whole.per_s, 3)
    say("relayed deltas, 16 streams in flood")
    flood = await bench_measures.run_clients(cluster, "tokens=2000", clients=16, seconds=10, stream=True)
    bare_flood = await bench_measures.run_clients(bare, "tokens=2000", clients=16, seconds=5, stream=True)
    result["deltas_per_s"] = {"kitemesh": round(flood.events_per_s), "pass-through": round(bare_flood.events_per_s)}
    result["failures"] += flood.failures
    say("1,000 idle open streams")

    async def memory() -> dict[str, float]:
        return memory_kib(processes)

    idle, loaded = await bench_measures.open_streams(cluster, streams=1000, measure=memory)
    each = {name: round((loaded[name] - idle[name]) / 1000, 2) for name in idle}
    result["kib_per_open_stream"] = {**each, "services": round(sum(each.get(name, 0.0) for name in SERVICES), 1)}
    return result


def say(text: str) -> None:
    """Show progress."""
    print(f"  {text} …", file=sys.stderr, flush=True)


def show(result: dict[str, Any]) -> None:
    """Print the table, each target with its verdict."""
    added, whole = result["added_first_token_p50_ms"], result["whole_turns_per_s"]["kitemesh"]
    deltas, memory = result["deltas_per_s"]["kitemesh"], result["kib_per_open_stream"]["services"]
    rows = [
        ("added time to first token, p50, 16 streams", f"{added} ms", "≤ 6 ms", added <= 6),
        ("whole turns, 64 clients", f"{whole}/s", "≥ 500/s", whole >= 500),
        ("relayed deltas, 16 streams", f"{deltas}/s", "≥ 20,000/s", deltas >= 20_000),
        ("memory per idle open stream, 1,000 streams", f"{memory} KiB", "≤ 40 KiB", memory <= 40),
    ]
    for name, value, target, met in rows:
        print(f"{name:<45} {value:>12}   {target:>12}   {'met' if met else 'NOT MET'}")
    for name in ("first_token_p50_ms", "whole_turns_per_s", "whole_turn_ms", "whole_turns_ratio", "deltas_per_s"):
        print(f"{name:<45} {result[name]}")
    for name in ("cpu_ms_per_turn", "kib_per_open_stream", "idle_memory_mib", "failures"):
        print(f"{name:<45} {result[name]}")


async def bench() -> dict[str, Any]:
    """Start everything, measure, stop everything."""
    ports = {name: free_port() for name in ("upstream", "bare", "cluster")}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kitemesh-bench-")))
        logs = {name: folder / f"{name}.log" for name in ports}
        (folder / "catalog.yaml").write_text(yaml.safe_dump(catalog(ports["upstream"])))
        run = [sys.executable, "-m"]
        upstream = [*run, "bench.bench_upstream", str(ports["upstream"])]
        stack.enter_context(child(upstream, CLIENT_CORE, logs["upstream"]))
        origin = f"http://{LOOPBACK}:{ports['upstream']}"
        bare = [*run, "bench.bench_passthrough", str(ports["bare"]), origin]
        bare_process = stack.enter_context(child(bare, SERVER_CORE, logs["bare"]))
        cluster = [*run, "kitemesh_cli", "dev", "--port", str(ports["cluster"]), "--data", str(folder / "data")]
        process = stack.enter_context(
            child(
                cluster,
                SERVER_CORE,
                logs["cluster"],
                KITEMESH_CATALOG=str(folder / "catalog.yaml"),
                KITEMESH_SLOTS="2000",
            )
        )
        await answering(ports["bare"], "/", bare_process, logs["bare"])
        await answering(ports["cluster"], "/v1/models", process, logs["cluster"])
        key = (folder / "data" / "key").read_text().strip()
        path = "/v1/chat/completions"
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setaffinity(0, CLIENT_CORE)
        result = await measure(
            Target(ports["cluster"], path, "bench", key),
            Target(ports["upstream"], path, "bench"),
            Target(ports["bare"], path, "bench"),
            process.pid,
        )
    result["machine"] = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}
    return result


def main() -> None:
    """Run the bench; the one argument is where the JSON goes."""
    results = Path(sys.argv[1] if len(sys.argv) > 1 else "bench-results/latest.json")
    result = uvloop.run(bench())
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(result, indent=2) + "\n")
    show(result)


if __name__ == "__main__":
    main()
