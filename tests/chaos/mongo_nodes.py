"""MongoDB for the faults: one mongod, or a replica set of three whose primary can be found, killed and frozen."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from chaos.nodes import Node, mongod_node, running
from chaos.small_disk import SmallDisk
from chaos.waiting import await_true
from kitemesh_cli.servers import LOOPBACK, free_port

SET: Final = "chaos"
ELECTION_MS: Final = 5_000
"""A primary that is silent for so long is replaced; the server's own default is 10 s."""
CATCH_UP_MS: Final = 2_000
"""A new primary waits for so long for what the old one may still tell.

By default it waits for a heartbeat that a frozen member never answers: 10 s more, for writes that no majority has
acknowledged and nobody here relies on.
"""
HEARTBEAT_MS: Final = 500
"""Members ask each other so often how far they are; by default every 2 s.

A secondary reports its writes to the member that it copies from, and waits 30 s (a constant of the server) for a frozen
one to take a report. For so long the new primary learns only from heartbeats that a majority has a write.
"""
FETCH: Final = ("--setParameter", "oplogNetworkTimeoutBufferSeconds=1")
"""A secondary leaves a member that has stopped sending after 6.5 s; by default (5) after 14.5 s."""
ASK_MS: Final = 1_000

Document = dict[str, Any]


class MongoSet:
    """Three members; made by `running_mongo_set`.

    Attributes:
        url: All of them, for clients.

    """

    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes: Final = nodes
        hosts = ",".join(f"{LOOPBACK}:{node.port}" for node in nodes.values())
        self.url: Final = f"mongodb://{hosts}/?replicaSet={SET}"

    def primary(self) -> str:
        """Name the primary, once all agree on one."""
        found: list[str] = []

        def look() -> bool:
            found[:] = [name for name, node in self.nodes.items() if _hello(node).get("isWritablePrimary")]
            return len(found) == 1

        await_true(look, "the replica set has a primary")
        return found[0]

    def is_whole(self) -> bool:
        """Tell whether one member is primary and the others follow it."""
        states = sorted("primary" if h.get("isWritablePrimary") else str(h.get("secondary")) for h in self._hellos())
        return states == ["True", "True", "primary"]

    def _hellos(self) -> list[Document]:
        return [_hello(node) for node in self.nodes.values()]


def mongo_url(port: int) -> str:
    """Name one mongod for clients."""
    return f"mongodb://{LOOPBACK}:{port}/?directConnection=true"


@contextlib.contextmanager
def running_mongo(folder: Path, *, disk: SmallDisk | None = None) -> Iterator[Node]:
    """Have one mongod while inside."""
    node = mongod_node("mongod", folder, free_port(), disk=disk)
    with running(node):
        yield node


@contextlib.contextmanager
def running_mongo_set(folder: Path, *, election_ms: int = ELECTION_MS) -> Iterator[MongoSet]:
    """Have a replica set while inside."""
    nodes = {name: mongod_node(name, folder, free_port(), "--replSet", SET, *FETCH) for name in ("m1", "m2", "m3")}
    with running(*nodes.values()):
        members = [{"_id": place, "host": f"{LOOPBACK}:{node.port}"} for place, node in enumerate(nodes.values())]
        settings = {
            "electionTimeoutMillis": election_ms,
            "catchUpTimeoutMillis": CATCH_UP_MS,
            "heartbeatIntervalMillis": HEARTBEAT_MS,
        }
        config = {"_id": SET, "members": members, "settings": settings}
        with _direct(nodes["m1"], timeout_ms=30_000) as client:
            client.admin.command("replSetInitiate", config)
        found = MongoSet(nodes)
        found.primary()
        await_true(found.is_whole, "the replica set is whole")
        yield found


def _direct(node: Node, *, timeout_ms: int = ASK_MS) -> MongoClient[Document]:
    return MongoClient(
        LOOPBACK,
        node.port,
        directConnection=True,
        serverSelectionTimeoutMS=timeout_ms,
        connectTimeoutMS=timeout_ms,
        socketTimeoutMS=timeout_ms,
    )


def _hello(node: Node) -> Document:
    try:
        with _direct(node) as client:
            return dict(client.admin.command("hello"))
    except PyMongoError:
        return {}
