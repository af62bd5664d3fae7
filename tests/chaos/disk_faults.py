"""What a full disk does: under NATS and under MongoDB, each on a file system of a few megabytes, filled from outside.

Neither server heals by itself. mongod ends when its disk is full, as its makers want it. nats-server (2.15.1) goes on,
but takes nothing into a stream that could not be written once, whatever room there is later; its `/healthz` says so.
As by a supervisor with a liveness probe, what ended is started again at once, and what is not well once there is room.
"""

import asyncio
import contextlib
import http.client
import random
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from chaos.mongo_nodes import mongo_url, running_mongo
from chaos.nats_nodes import nats_url, running_nats
from chaos.nodes import Node
from chaos.small_disk import SmallDisk, small_disk
from chaos.stage import Inject, Stage, cluster_on
from kitemesh_cli.servers import LOOPBACK, ServerMissing, free_port

NATS_DISK_MB: Final = 64
MONGO_DISK_MB: Final = 512
"""mongod keeps 200 MB of journal ready."""
FULL_S: Final = (4.0, 8.0)
AGAIN_S: Final = 0.5
REFILL_S: Final = 0.05


class SmallServers(NamedTuple):
    """Two servers with small disks.

    Attributes:
        nats_health_port: Where nats-server says whether it is well.

    """

    nats: Node
    mongo: Node
    nats_disk: SmallDisk
    mongo_disk: SmallDisk
    nats_health_port: int

    def faults(self, full_s: tuple[float, float] = FULL_S) -> dict[str, Inject]:
        """Name what can happen to the disks; recovery is counted from when there is room, and the server runs."""
        return {
            "disk full under NATS": partial(_fill_nats, self.nats, self.nats_health_port, self.nats_disk, full_s),
            "disk full under MongoDB": partial(_fill_mongo, self.mongo, self.mongo_disk, full_s),
        }


@contextlib.contextmanager
def running_small_servers(folder: Path) -> Iterator[SmallServers]:
    """Have them while inside."""
    health_port = free_port()
    with (
        small_disk(folder / "nats-disk", NATS_DISK_MB) as nats_disk,
        small_disk(folder / "mongo-disk", MONGO_DISK_MB) as mongo_disk,
        running_nats(folder, disk=nats_disk, more=f'http: "{LOOPBACK}:{health_port}"\n') as nats,
        running_mongo(folder, disk=mongo_disk) as mongo,
    ):
        yield SmallServers(nats, mongo, nats_disk, mongo_disk, health_port)


@contextlib.contextmanager
def disk_stage(folder: Path, seed: int) -> Iterator[Stage]:
    """Stand on two servers with small disks."""
    with (
        running_small_servers(folder) as servers,
        cluster_on(
            folder,
            lambda _: servers.faults(),
            KITEMESH_NATS_URL=nats_url(servers.nats.port),
            KITEMESH_MONGO_URL=mongo_url(servers.mongo.port),
        ) as stage,
    ):
        yield stage


@contextlib.asynccontextmanager
async def _fill_nats(
    node: Node, health_port: int, disk: SmallDisk, full_s: tuple[float, float], rng: random.Random
) -> AsyncIterator[None]:
    disk.fill()
    try:
        await asyncio.sleep(rng.uniform(*full_s))
    finally:
        disk.free()
    if not await asyncio.to_thread(_is_healthy, health_port):
        node.kill()
        await node.start_beside()
    yield


@contextlib.asynccontextmanager
async def _fill_mongo(
    node: Node, disk: SmallDisk, full_s: tuple[float, float], rng: random.Random
) -> AsyncIterator[None]:
    keeping = asyncio.create_task(_keep(node), name="keep-server")
    try:
        disk.fill()
        # Its journal has room for a while; a checkpoint, which comes every minute, has not.
        await asyncio.to_thread(_checkpoint, node.port)
        await _keep_full(disk, rng.uniform(*full_s))
        disk.free()
        yield
    finally:
        disk.free()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def _keep_full(disk: SmallDisk, for_s: float) -> None:
    """Take what a server gives back when it starts again, too: mongod begins with the removal of old journals."""
    end_s = time.monotonic() + for_s
    while time.monotonic() < end_s:
        await asyncio.to_thread(disk.fill)
        await asyncio.sleep(REFILL_S)


async def _keep(node: Node) -> None:
    while True:
        if not node.is_running:
            with contextlib.suppress(ServerMissing):
                await node.start_beside()
        await asyncio.sleep(AGAIN_S)


def _checkpoint(port: int) -> None:
    with (
        contextlib.suppress(PyMongoError),
        MongoClient[dict[str, object]](LOOPBACK, port, directConnection=True, timeoutMS=1_000) as client,
    ):
        client.admin.command("fsync")


def _is_healthy(port: int) -> bool:
    """Tell what nats-server says of itself, all its streams included."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=1)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
