"""When a cluster is at rest: no queue holds a message, no turn runs, and only what is held is locked."""

import asyncio
import time
from typing import Any, Final

import msgspec
from pymongo import MongoClient

from cluster import Cluster
from kitemesh_contracts import topology
from kitemesh_runtime.bus_nats import open_bus

QUEUES: Final = (topology.TURN, topology.CONTROL, topology.EVENT, topology.MODEL, topology.TOOL)
HEALED_S: Final = 60.0
"""A turn has ended, or is held, so long after the last fault."""
LOOK_S: Final = 0.2


async def await_rest(cluster: Cluster) -> list[str]:
    """Wait until no queue holds a message and no turn runs; return what is left when the promised time is up."""
    environ = cluster.environment()
    end_s = time.monotonic() + HEALED_S
    async with open_bus(environ["KITEMESH_NATS_URL"], name="chaos") as bus:
        with MongoClient[dict[str, Any]](environ["KITEMESH_MONGO_URL"]) as client:
            store = client[environ["KITEMESH_MONGO_DATABASE"]]
            while True:
                infos = [await bus.request(f"$JS.API.STREAM.INFO.{name}", b"", timeout_s=5) for name in QUEUES]
                queued = {
                    name: count
                    for name, info in zip(QUEUES, infos, strict=True)
                    if (count := msgspec.json.decode(info)["state"]["messages"])
                }
                running = {"live": True, "status": {"$ne": "held"}}
                live = [f"{turn['_id']} is {turn['status']}" for turn in store["turns"].find(running, {"status": 1})]
                locked = store["conversations"].count_documents({"active": {"$ne": None}})
                held = store["turns"].count_documents({"live": True, "status": "held"})
                left = [f"{name} holds {count} messages" for name, count in queued.items()] + live
                if locked > held:
                    left.append(f"{locked} conversations are locked, by {held} held turns and others")
                if not left or time.monotonic() > end_s:
                    return left
                await asyncio.sleep(LOOK_S)
