"""What a turn costs that is read at a model's pace, and what it moves: the figures that docs/sizing.md reckons with.

The other parts of the bench ask as fast as answers come; people wait for theirs, and each token is then a message of
its own. What the processes use while nobody asks is taken off. Bytes are those that nats-server reads and writes, its
files included, and those that mongod counts itself.
"""

import asyncio
import json
from typing import Any, Final

from bench.bench_client import Answer, Target
from bench.bench_cluster import Cluster, Use, spent
from bench.bench_measures import asking, figures, per_turn, put_on
from bench.bench_table import say
from kitemesh_contracts.topology import OUT
from kitemesh_runtime.bus_nats import open_bus
from kitemesh_runtime.driver_mongo import Database, open_database

CLIENTS: Final = 48
SECONDS: Final = 6.0
WARM_S: Final = 1.0
IDLE_S: Final = 5.0
TOKENS: Final = 100
PACE_MS: Final = 20
PACED: Final = f"tokens={TOKENS} delay_ms={PACE_MS} hold_s=0"
_MS: Final = 1000


async def measure(cluster: Cluster) -> dict[str, Any]:
    """Measure each kind of turn by itself."""
    clerk = cluster.target("agent:clerk")._replace(mode="durable")
    plain = {mode: cluster.target("bench", mode) for mode in ("classic", "durable")}
    kinds: dict[str, tuple[Target, str, bool]] = {
        **{f"{mode}, whole": (target, PACED, False) for mode, target in plain.items()},
        **{f"{mode}, streamed": (target, PACED, True) for mode, target in plain.items()},
        "durable with two tools, streamed": (clerk, f"{PACED} calls=look+act", True),
    }
    environ = cluster.environment()
    found: dict[str, Any] = {}
    idle = await _idle(cluster)
    async with open_database(environ["KITEMESH_MONGO_URL"], name=environ["KITEMESH_MONGO_DATABASE"]) as database:
        for name, (target, text, stream) in kinds.items():
            say(f"{name}, {TOKENS} tokens at {_MS // PACE_MS} a second, {CLIENTS} clients")
            load = asking(target, text, stream=stream)
            await put_on(cluster.port, load, [], clients=CLIENTS, seconds=WARM_S)
            answers: list[Answer] = []
            bytes_before, cpu_before = await _bytes(cluster, database), cluster.cpu_s()
            took_s, failures = await put_on(cluster.port, load, answers, clients=CLIENTS, seconds=SECONDS)
            cpu_s, moved = spent(cpu_before, cluster.cpu_s()), spent(bytes_before, await _bytes(cluster, database))
            worked_s = {each: max(0.0, used - idle[each] * took_s) for each, used in cpu_s.items()}
            found[name] = {
                **figures(answers, took_s),
                "failures": failures,
                "cpu_ms_per_turn": per_turn(worked_s, len(answers)),
                "kib_per_turn": {each: round(size / 1024 / max(1, len(answers)), 2) for each, size in moved.items()},
            }
    return {"clients": CLIENTS, "tokens": TOKENS, "tokens_per_s": _MS / PACE_MS, "turns": found}


async def _idle(cluster: Cluster) -> Use:
    """Return the share of a core that each process uses while nobody asks."""
    say("what the processes use while nobody asks")
    before = cluster.cpu_s()
    await asyncio.sleep(IDLE_S)
    return {name: used / IDLE_S for name, used in spent(before, cluster.cpu_s()).items()}


async def _bytes(cluster: Cluster, database: Database) -> Use:
    nats = cluster.processes["nats-server"].io_counters()
    server = await database.command({"serverStatus": 1})
    async with open_bus(cluster.environment()["KITEMESH_NATS_URL"], name="bench") as bus:
        out = json.loads(await bus.request(f"$JS.API.STREAM.INFO.{OUT}", b"", timeout_s=5))["state"]
    return {
        "nats-server reads": nats.read_chars,
        "nats-server writes": nats.write_chars,
        "mongod is sent": server["network"]["bytesIn"],
        "mongod answers": server["network"]["bytesOut"],
        "mongod's journal": server["wiredTiger"]["log"]["log bytes written"],
        f"kept in {OUT}": out["bytes"],
    }
