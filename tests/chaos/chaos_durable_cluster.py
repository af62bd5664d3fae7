"""A cluster of two processes of every service, each of which any fault may end, on servers that stay.

No supervisor stands between: a process that dies is started again at once, however often it did.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp

from chaos.effect_catalog import write_catalog
from chaos.faulty_cluster import DELAY_MS, ORCHESTRATOR, RUNNER, TOOL, Faulty
from chaos.replicas import Replicas
from cluster import Cluster, clean_environment
from kitemesh_cli.servers import LOOPBACK, free_port
from kitemesh_contracts.scopes import Scope
from kitemesh_runtime.ambiguity import DOUBTED
from real_servers import running_mongod, running_nats
from tool_cluster import DATABASE, make_keys
from tool_stub import start_tool_stub

GATEWAY: Final = ("gw.after_claim", "gw.after_insert", "gw.after_publish", "gw.before_first_byte")
POINTS: Final[Mapping[str, tuple[str, ...]]] = {
    "gateway": GATEWAY,
    "orchestrator": ORCHESTRATOR,
    "model-runner": RUNNER,
    "tool-executor": TOOL,
}
"""Of each service, the failpoints that a durable turn passes."""
SERVICES: Final = tuple(POINTS)
TENANT: Final = "default"
BACK_S: Final = 60.0
LOOK_S: Final = 0.05


class Bare(Cluster):
    """A cluster without a supervisor: its processes are all replicas."""

    def __init__(self, data: Path, environ: Mapping[str, str]) -> None:
        self.data = data
        self._environ = dict(environ)
        self.key = ""

    def environment(self, service: str = "") -> dict[str, str]:
        """Return what the services are told of the servers."""
        return {**clean_environment(), **self._environ}


class Fleet(Replicas):
    """The processes, two of each service."""

    def of(self, service: str) -> tuple[str, ...]:
        """Name the processes of a service."""
        return (f"{service}-a", f"{service}-b")

    def pids(self, service: str) -> dict[str, int]:
        """Return their ids."""
        return {name: self.pid(name) for name in self.of(service)}

    async def back(self, service: str, session: aiohttp.ClientSession) -> bool:
        """Wait until both are ready; `False` when one is not in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BACK_S):
                for name in self.of(service):
                    while not await _is_ready(session, self._specs[name].health_port):  # noqa: ASYNC110  it sets no event here
                        await asyncio.sleep(LOOK_S)
                return True
        return False


class Durable(NamedTuple):
    """The cluster.

    Attributes:
        origins: Its gateways.

    """

    faulty: Faulty
    fleet: Fleet
    origins: tuple[str, ...]

    def doubted(self) -> Counter[str]:
        """Count the calls that ran and were told as timed out, by name."""
        logs = (self.faulty.cluster.data / "logs").glob("*.log")
        lines = (line for log in logs for line in log.read_text(errors="replace").splitlines() if DOUBTED in line)
        return Counter(json.loads(line)["call"] for line in lines)


@contextlib.contextmanager
def durable_cluster(folder: Path, **more: str) -> Iterator[Durable]:
    """Run one; every failpoint looks into its file, and `more` is what all processes are told."""
    folder.mkdir(parents=True, exist_ok=True)
    armed = ",".join(f"{point}:kill@{folder / point}" for points in POINTS.values() for point in points)
    with (
        start_tool_stub(folder) as stub,
        running_nats(folder / "nats") as nats,
        running_mongod(folder / "mongo") as mongo,
    ):
        catalog = write_catalog(folder / "catalog.yaml", stub.url, delay_ms=DELAY_MS)
        servers = {
            "KITEMESH_NATS_URL": nats,
            "KITEMESH_MONGO_URL": mongo,
            "KITEMESH_MONGO_DATABASE": DATABASE,
            "KITEMESH_CATALOG": str(catalog),
            "KITEMESH_KEY_PEPPER": "no secret, only for a test",
        }
        cluster = Bare(folder, servers)
        subprocess.run(
            [sys.executable, "-m", "kitemesh_cli", "bootstrap"],
            check=True,
            capture_output=True,
            env=cluster.environment(),
        )
        (cluster.key,) = make_keys(cluster, (TENANT, tuple(Scope)))
        fleet = Fleet(cluster, {"KITEMESH_FAILPOINT": armed, **more})
        try:
            origins = _start(fleet)
            yield Durable(Faulty(cluster, stub, fleet, folder), fleet, origins)
        finally:
            fleet.stop()


def _start(fleet: Fleet) -> tuple[str, ...]:
    ports = [str(free_port()) for _ in fleet.of("gateway")]
    for service in SERVICES:
        for name, port in zip(fleet.of(service), ports, strict=True):
            mine = {"KITEMESH_HOST": LOOPBACK, "KITEMESH_PORT": port} if service == "gateway" else {}
            fleet.start(name, service, **mine)
    fleet.ready()
    return tuple(f"http://{LOOPBACK}:{port}" for port in ports)


async def _is_ready(session: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with session.get(f"http://{LOOPBACK}:{port}/readyz", timeout=aiohttp.ClientTimeout(total=1)) as reply:
            return reply.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
