"""`make bench`: this cluster and a bare aiohttp pass-through in one run; prints a table and writes JSON.

Clusters, stores and pass-through run on one core, upstream and generator on the other, where pinning works. The machine
is shared with whatever else runs on it: read the ratios, not the absolute figures.
"""

import argparse
import contextlib
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any, Final

import uvloop

from bench import (
    bench_durable,
    bench_history,
    bench_holds,
    bench_keys,
    bench_limits,
    bench_metrics,
    bench_sizing,
    bench_storage,
    bench_tools,
    bench_turns,
)
from bench.bench_cluster import CLIENT_CORE, RUN, answering, child, running
from bench.bench_table import show
from kitemesh_cli.servers import free_port

PARTS: Final = ("turns", "durable", "history", "tools", "holds", "limits", "keys", "sizing", "metrics", "storage")


async def bench(parts: list[str]) -> dict[str, Any]:
    """Start everything, measure, stop everything."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="kitemesh-bench-") as name:
        folder = Path(name)
        if "storage" in parts:
            result["storage"] = await bench_storage.measure(folder)
        if set(parts) - {"storage"}:
            result |= await on_cluster(parts, folder)
    result["machine"] = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}
    return result


async def on_cluster(parts: list[str], folder: Path) -> dict[str, Any]:
    """Measure what needs a cluster, and stop it."""
    result: dict[str, Any] = {}
    upstream = free_port()
    with contextlib.ExitStack() as stack:
        log = folder / "upstream.log"
        process = stack.enter_context(child([*RUN, "bench.bench_upstream", str(upstream)], CLIENT_CORE, log))
        await answering(upstream, "/hops", process, log)
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setaffinity(0, CLIENT_CORE)
        async with running(folder, "cluster", upstream) as cluster:
            if "turns" in parts:
                result |= await bench_turns.measure(cluster, upstream, folder)
            if "durable" in parts:
                result["durable"] = await bench_durable.measure(cluster, folder)
            if "history" in parts:
                result["history"] = await bench_history.measure(cluster)
            if "tools" in parts:
                result["tools"] = await bench_tools.measure(cluster, upstream)
            if "holds" in parts:
                result["holds"] = {"resumed": await bench_holds.measure(cluster)}
            if "limits" in parts:
                result["limits"] = await bench_limits.measure(cluster)
            if "keys" in parts:
                result["keys"] = await bench_keys.measure(cluster)
            if "sizing" in parts:
                result["sizing"] = await bench_sizing.measure(cluster)
        if "holds" in parts:
            result["holds"]["open"] = await bench_holds.measure_open(folder, upstream)
        if "metrics" in parts:
            result["metrics"] = await bench_metrics.measure(folder, upstream)
    return result


def parts_of(text: str) -> list[str]:
    """Read a list of parts."""
    chosen = text.split(",")
    if not set(chosen) <= set(PARTS):
        raise argparse.ArgumentTypeError(f"choose from {', '.join(PARTS)}, separated by commas")
    return chosen


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("results", nargs="?", type=Path, default=Path("bench-results/latest.json"), help="JSON file")
    parser.add_argument("--only", type=parts_of, default=list(PARTS), metavar="PARTS", help=", ".join(PARTS))
    given = parser.parse_args()
    result = uvloop.run(bench(given.only))
    given.results.parent.mkdir(parents=True, exist_ok=True)
    given.results.write_text(json.dumps(result, indent=2) + "\n")
    show(result)


if __name__ == "__main__":
    main()
