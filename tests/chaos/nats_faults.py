"""What can happen to NATS: one server killed, or wiped as well; of three, the leader killed, frozen or cut off."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from chaos.nats_nodes import NatsCluster, nats_url, running_nats, running_nats_cluster
from chaos.nodes import Node
from chaos.stage import Inject, Stage, cluster_on
from chaos.tcp_proxy import running_proxies
from cluster import Cluster
from kitemesh_contracts import topology

DOWN_S: Final = (0.0, 2.0)
LEFT_S: Final = (0.0, 2.0)
"""A node stays away for so long after the cluster has recovered without it."""
STREAMS: Final = len(topology.topology())
LED: Final = (topology.TURN, topology.EVENT, topology.MODEL)
"""Streams that every turn passes."""

Act = Callable[[Node], Awaitable[None]]


@contextlib.contextmanager
def nats_stage(folder: Path, seed: int) -> Iterator[Stage]:
    """Stand on one nats-server."""
    with (
        running_nats(folder) as node,
        cluster_on(
            folder,
            partial(one_node_faults, node),
            KITEMESH_NATS_URL=nats_url(node.port),
        ) as stage,
    ):
        yield stage


def one_node_faults(node: Node, cluster: Cluster) -> dict[str, Inject]:
    """Name what can happen to one nats-server; recovery is counted from when its port is back."""
    return {"NATS killed": partial(_kill, node), "NATS wiped": partial(_wipe, node, cluster)}


@contextlib.asynccontextmanager
async def _kill(node: Node, rng: random.Random) -> AsyncIterator[None]:
    node.kill()
    await asyncio.sleep(rng.uniform(*DOWN_S))
    await node.start_beside()
    yield


@contextlib.asynccontextmanager
async def _wipe(node: Node, cluster: Cluster, rng: random.Random) -> AsyncIterator[None]:
    node.kill()
    node.wipe()
    await asyncio.sleep(rng.uniform(*DOWN_S))
    await node.start_beside()
    await asyncio.to_thread(cluster.verb, "bootstrap")
    yield


@contextlib.contextmanager
def nats3_stage(folder: Path, seed: int) -> Iterator[Stage]:
    """Stand on three nats-servers, each stream three times."""
    with running_proxies(seed) as proxies, running_nats_cluster(folder, proxies) as nats:
        faults = three_node_faults(nats)
        with cluster_on(folder, lambda _: faults, KITEMESH_NATS_URL=nats.url, KITEMESH_REPLICAS="3") as stage:
            yield stage


def three_node_faults(nats: NatsCluster) -> dict[str, Inject]:
    """Name what can happen to the leader of a stream; recovery is counted from the moment that it happens."""
    return {
        "NATS leader killed": partial(_lose, nats, _crash, Node.start_beside),
        "NATS leader frozen": partial(_lose, nats, _freeze, _thaw),
        "NATS leader cut off": partial(_lose, nats, partial(_cut_off, nats), partial(_connect, nats)),
    }


@contextlib.asynccontextmanager
async def _lose(nats: NatsCluster, lose: Act, restore: Act, rng: random.Random) -> AsyncIterator[None]:
    leader = nats.nodes[await nats.leader_of(rng.choice(LED))]
    await lose(leader)
    try:
        yield
        await asyncio.sleep(rng.uniform(*LEFT_S))
    finally:
        await restore(leader)
    # Two of three must be left by the next fault, or it would not be the one that is promised to be survived.
    await nats.await_whole(STREAMS)


async def _crash(node: Node) -> None:
    node.kill()


async def _freeze(node: Node) -> None:
    node.freeze()


async def _thaw(node: Node) -> None:
    node.thaw()


async def _cut_off(nats: NatsCluster, node: Node) -> None:
    nats.cut_off(node.name)


async def _connect(nats: NatsCluster, node: Node) -> None:
    nats.connect(node.name)
