"""The demo's cluster: servers and data of its own, two gateways and two model-runners, and the means to kill them.

Nothing is started again, so that what goes on goes on without what was killed.
"""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple, Self

import aiohttp
import msgspec

from kitemesh_cli import cluster
from kitemesh_cli.children import Children
from kitemesh_cli.data_folder import DataFolder, read_environment
from kitemesh_cli.failures import Failed
from kitemesh_cli.servers import LOOPBACK, free_port
from kitemesh_cli.settings import DevSettings
from kitemesh_cli.start_up import SERVICE_START_S, Plan, start_up
from kitemesh_runtime import catalog_file
from kitemesh_runtime.settings import PREFIX, load

TWINS: Final = (cluster.GATEWAY, "model-runner")

_USED: Final = re.compile(r"^kitemesh_slots_used (\S+)$", re.MULTILINE)


class Killed(NamedTuple):
    """A process that was killed."""

    name: str
    pid: int


class _Execution(msgspec.Struct):
    status: str = "unknown"


def own_of(folder: DataFolder, service: cluster.Service) -> dict[str, str]:
    """Return what a service is told of the servers."""
    return read_environment(folder.environment_of(service.user) if service.user else folder.environment)


class DemoCluster:
    """The cluster while it runs.

    Args:
        health: Where each service answers about itself.

    Attributes:
        gateways: Each one's URL, by name.
        key: For all of them.

    """

    def __init__(
        self,
        children: Children,
        session: aiohttp.ClientSession,
        gateways: Mapping[str, str],
        health: Mapping[str, int],
        key: str,
    ) -> None:
        self.gateways: Final = gateways
        self.key: Final = key
        self._children: Final = children
        self._session: Final = session
        self._health: Final = health

    @classmethod
    @asynccontextmanager
    async def running(
        cls, root: Path, session: aiohttp.ClientSession, say: Callable[[str], None]
    ) -> AsyncIterator[Self]:
        """Run one while inside, its data in the folder.

        Raises:
            Failed: It did not start.

        """
        # What the person has set is meant for another cluster.
        environ = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "OPENAI_"))}
        port, folder = free_port(), DataFolder(root)
        folder.create()
        plan = Plan(load(DevSettings, environ), folder, port, f"http://{LOOPBACK}:{port}", environ)
        async with Children(say) as children:
            ready = await start_up(plan, children, session)
            twins_port = free_port()
            catalog = catalog_file.read(ready.catalog)
            twins = [
                service._replace(name=f"{service.name}-2")
                for service in cluster.list_services(plan.settings, catalog, twins_port)
                if service.name in TWINS
            ]
            specs = [
                cluster.service_spec(twin, folder, cluster.shared_environment(environ, own_of(folder, twin)), session)
                for twin in twins
            ]
            await asyncio.gather(*(children.start(spec, timeout_s=SERVICE_START_S) for spec in specs))
            children.settle()
            gateways = {cluster.GATEWAY: plan.url, f"{cluster.GATEWAY}-2": f"http://{LOOPBACK}:{twins_port}"}
            health = {**dict(ready.health_ports), **{twin.name: twin.health_port for twin in twins}}
            yield cls(children, session, gateways, health, ready.key)

    async def kill_busy_runner(self) -> Killed:
        """Kill -9 the model-runner that works.

        Raises:
            Failed: None does.

        """
        for name in self._health:
            if name.startswith("model-runner") and await self._is_busy(name):
                return self._kill(name)
        raise Failed("no model-runner works on the turn")

    async def kill_gateway(self, url: str) -> Killed:
        """Kill -9 the gateway with that address."""
        return self._kill(next(name for name, each in self.gateways.items() if each == url))

    async def status_of(self, execution: str, gateway: str) -> str:
        """Ask a gateway how a turn is stored."""
        url, headers = f"{gateway}/v1/executions/{execution}", {"Authorization": f"Bearer {self.key}"}
        async with self._session.get(url, headers=headers) as answer:
            return msgspec.json.decode(await answer.read(), type=_Execution).status

    async def _is_busy(self, name: str) -> bool:
        async with self._session.get(f"http://{LOOPBACK}:{self._health[name]}/metrics") as answer:
            found = _USED.search(await answer.text())
        return found is not None and float(found.group(1)) > 0

    def _kill(self, name: str) -> Killed:
        pid = self._children.pid(name)
        if pid is None:
            raise Failed(f"{name} does not run")
        os.kill(pid, signal.SIGKILL)
        return Killed(name, pid)
