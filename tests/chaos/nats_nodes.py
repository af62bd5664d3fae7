"""NATS for the faults: one node, or a cluster of three whose connections all pass proxies, so that one can be cut off.

A node reaches another through the proxy of this pair and clients reach it through one of its own; what the nodes tell
each other and clients about addresses names proxies only.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from chaos.nodes import Node, nats_node, running
from chaos.small_disk import SmallDisk
from chaos.tcp_proxy import Proxies, TcpProxy
from kitemesh_cli.servers import LOOPBACK, free_port
from kitemesh_contracts.errors import KitemeshError
from kitemesh_runtime.bus_nats import NatsBus, open_bus

READY_S: Final = 30.0
WHOLE_S: Final = 60.0
ASK_S: Final = 1.0

# An address that refuses: a node that hears of another from a third must not go round the proxies.
_NOWHERE: Final = f"{LOOPBACK}:1"

_CLUSTER: Final = """\
client_advertise: "{client}"
cluster {{
  name: "kitemesh-chaos"
  listen: "{listen}"
  advertise: "{nowhere}"
  routes: [{routes}]
}}
"""


class NatsCluster:
    """Three nodes; made by `running_nats_cluster`.

    Attributes:
        url: All of them, for clients.

    """

    def __init__(
        self, nodes: dict[str, Node], doors: dict[str, TcpProxy], pairs: dict[tuple[str, str], TcpProxy]
    ) -> None:
        self.nodes: Final = nodes
        self.url: Final = ",".join(f"nats://{LOOPBACK}:{door.port}" for door in doors.values())
        self._doors = doors
        self._pairs = pairs

    def cut_off(self, name: str) -> None:
        """Let nothing pass between a node and the other nodes, or the clients; nobody is told."""
        for proxy in self._around(name):
            proxy.hold()

    def connect(self, name: str) -> None:
        """Undo `cut_off`."""
        for proxy in self._around(name):
            proxy.heal()

    async def leader_of(self, stream: str) -> str:
        """Name the node that leads a stream."""
        info = await self.ask(f"STREAM.INFO.{stream}")
        return str(info["cluster"]["leader"])

    async def ask(self, question: str) -> dict[str, Any]:
        """Ask JetStream until it answers."""
        end_s = time.monotonic() + READY_S
        while True:
            try:
                async with open_bus(self.url, name="chaos", connect_timeout_s=2.0) as bus:
                    return await _ask(bus, question)
            except (KitemeshError, KeyError):
                if time.monotonic() > end_s:
                    raise
            await asyncio.sleep(0.1)

    async def await_whole(self, streams: int) -> None:
        """Return once every replica of every stream is current.

        Raises:
            TimeoutError: They were not in time.

        """
        async with asyncio.timeout(WHOLE_S):
            found: list[Any] = []
            while len(found) < streams or not all(_is_whole(each.get("cluster", {})) for each in found):
                await asyncio.sleep(0.1)
                found = (await self.ask("STREAM.LIST")).get("streams") or []

    def _around(self, name: str) -> list[TcpProxy]:
        return [self._doors[name], *(proxy for pair, proxy in self._pairs.items() if name in pair)]


def nats_url(port: int) -> str:
    """Name one node for clients."""
    return f"nats://{LOOPBACK}:{port}"


@contextlib.contextmanager
def running_nats(folder: Path, *, more: str = "", disk: SmallDisk | None = None) -> Iterator[Node]:
    """Have one node while inside; `more` is further configuration."""
    node = nats_node("nats", folder, free_port(), more=more, disk=disk)
    with running(node):
        yield node


@contextlib.contextmanager
def running_nats_cluster(folder: Path, proxies: Proxies) -> Iterator[NatsCluster]:
    """Have three nodes while inside, with an elected leader of their streams."""
    names = ("n1", "n2", "n3")
    ports = {name: free_port() for name in names}
    route_ports = {name: free_port() for name in names}
    doors = {name: proxies.to(ports[name]) for name in names}
    pairs = {(one, other): proxies.to(route_ports[other]) for one in names for other in names if one != other}
    nodes = {}
    for name in names:
        routes = (f'"nats://{LOOPBACK}:{proxy.port}"' for (one, _), proxy in pairs.items() if one == name)
        more = _CLUSTER.format(
            client=f"{LOOPBACK}:{doors[name].port}",
            listen=f"{LOOPBACK}:{route_ports[name]}",
            nowhere=_NOWHERE,
            routes=", ".join(routes),
        )
        nodes[name] = nats_node(name, folder, ports[name], more=more)
    with running(*nodes.values()):
        cluster = NatsCluster(nodes, doors, pairs)
        asyncio.run(cluster.ask("INFO"))
        yield cluster


async def _ask(bus: NatsBus, question: str) -> dict[str, Any]:
    answer: dict[str, Any] = msgspec.json.decode(await bus.request(f"$JS.API.{question}", b"", timeout_s=ASK_S))
    if "error" in answer:
        raise KeyError(f"{question}: {answer['error']}")
    return answer


def _is_whole(cluster: dict[str, Any]) -> bool:
    replicas = cluster.get("replicas") or []
    return bool(cluster.get("leader")) and all(each.get("current") and not each.get("offline") for each in replicas)
