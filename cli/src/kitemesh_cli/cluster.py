"""What a one-machine cluster consists of: two servers and a process for each service and pool, and how each is started.

Composition only: `children` keeps them running, `dev` decides when.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

import aiohttp

from kitemesh_cli import servers
from kitemesh_cli.access import Access
from kitemesh_cli.children import ChildSpec
from kitemesh_cli.data_folder import DataFolder
from kitemesh_cli.processes import spawn
from kitemesh_cli.servers import LOOPBACK
from kitemesh_cli.settings import DevSettings
from kitemesh_contracts.permissions import SERVICES, ServiceName
from kitemesh_contracts.topology import Pool
from kitemesh_runtime.catalog import Catalog

NATS: Final = "nats-server"
MONGOD: Final = "mongod"
GATEWAY: Final = "gateway"
PEPPER: Final = "KITEMESH_KEY_PEPPER"

MONGOD_FLAGS: Final = ("--auth", "--setParameter", "scramSHA256IterationCount=5000")
"""Passwords of 256 random bits need no work against guessing, and each new connection pays for it."""

_PROBE_TIMEOUT_S: Final = 1.0


class Service(NamedTuple):
    """A service process.

    Attributes:
        name: Its own; a second pool's worker is `model-runner-<pool>`.
        variables: What it is told beside what all are told.

    """

    name: str
    module: str
    health_port: int
    variables: Mapping[str, str]

    @property
    def user(self) -> ServiceName | None:
        """As whom it signs in; `None` for a stand-in."""
        return next((each for each in SERVICES if self.module == f"kitemesh_{each.replace('-', '_')}"), None)


def nats_spec(folder: DataFolder, port: int, access: Access) -> ChildSpec:
    """Describe the embedded nats-server, which serves nobody but its users."""
    log, users = folder.log(NATS), access.nats_users()
    return ChildSpec(NATS, lambda: servers.start_nats(folder.nats, port, log, more=users), lambda: _listens(port), log)


def mongod_spec(folder: DataFolder, port: int) -> ChildSpec:
    """Describe the embedded mongod, which serves nobody but its users."""
    log = folder.log(MONGOD)
    start = partial(servers.start_mongod, folder.mongo, port, log, *MONGOD_FLAGS)
    return ChildSpec(MONGOD, start, lambda: _listens(port), log)


def list_services(settings: DevSettings, catalog: Catalog, port: int) -> list[Service]:
    """List the processes that serve the catalog: one worker for each pool."""
    gateway = {
        "KITEMESH_HOST": settings.host,
        "KITEMESH_PORT": str(port),
        "KITEMESH_ANONYMOUS_TENANT": anonymous_tenant(settings),
        "KITEMESH_ANONYMOUS_AGENT": anonymous_agent(settings, catalog),
        "KITEMESH_ANONYMOUS_SCOPES": settings.anonymous_scopes,
    }
    return [
        Service(GATEWAY, "kitemesh_gateway", servers.free_port(), gateway),
        Service("orchestrator", "kitemesh_orchestrator", servers.free_port(), {}),
        *_workers("model-runner", "kitemesh_model_runner", catalog.model_pools()),
        *_workers("tool-executor", "kitemesh_tool_executor", catalog.tool_pools()),
    ]


def anonymous_tenant(settings: DevSettings) -> str:
    """Say whose requests without a credential are: nobody's where others reach the port, unless the person said so."""
    if "anonymous_tenant" in settings.model_fields_set or settings.host in {LOOPBACK, "localhost", "::1"}:
        return settings.anonymous_tenant
    return ""


def anonymous_agent(settings: DevSettings, catalog: Catalog) -> str:
    """Say which agent answers where a request names none; empty when there is none to choose."""
    return settings.anonymous_agent or ("assistant" if "assistant" in catalog.agents else "")


def shared_environment(environ: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """Return what every service is told: all that the person has set, except what would make them collide."""
    own = {name: value for name, value in environ.items() if name not in {"KITEMESH_REPLICA", "KITEMESH_POOL"}}
    return {**own, "KITEMESH_LOG_FORMAT": "json", "KITEMESH_HEALTH_HOST": LOOPBACK, **variables}


def less_secrets(variables: Mapping[str, str], user: ServiceName | None) -> dict[str, str]:
    """Return variables without the secrets that a service has no use for."""
    return {name: value for name, value in variables.items() if user in (GATEWAY, None) or name != PEPPER}


def service_spec(
    service: Service, folder: DataFolder, shared: Mapping[str, str], session: aiohttp.ClientSession
) -> ChildSpec:
    """Describe a service's process."""
    log = folder.log(service.name)
    told = {**shared, **service.variables, "KITEMESH_HEALTH_PORT": str(service.health_port)}
    environ = less_secrets(told, service.user)
    command = [sys.executable, "-m", service.module]
    return ChildSpec(
        service.name,
        lambda: spawn(command, log, environ),
        _answers(session, f"http://{LOOPBACK}:{service.health_port}/readyz"),
        log,
    )


def _workers(name: str, module: str, pools: tuple[Pool, ...]) -> list[Service]:
    return [
        Service(
            name if pool.name == "default" else f"{name}-{pool.name}",
            module,
            servers.free_port(),
            {"KITEMESH_POOL": pool.name},
        )
        for pool in pools
    ]


def _answers(session: aiohttp.ClientSession, url: str) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        try:
            async with session.get(url, timeout=aiohttp.ClientTimeout(total=_PROBE_TIMEOUT_S)) as answer:
                return answer.status == 200  # noqa: PLR2004  HTTP's own number
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    return ask


async def _listens(port: int) -> bool:
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(LOOPBACK, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
