"""The start of a one-machine cluster, step by step: servers and catalog, streams and indexes, key, services."""

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple

import aiohttp
from pydantic import SecretStr

from kitemesh_cli import cluster, dev_catalog, dev_key
from kitemesh_cli.access import ensure_access
from kitemesh_cli.banner import GROUP, Ready
from kitemesh_cli.bootstrap import bootstrap
from kitemesh_cli.children import Children
from kitemesh_cli.connections import masked, open_cli_stores
from kitemesh_cli.console import step
from kitemesh_cli.data_folder import DataFolder, write_environment
from kitemesh_cli.dev_catalog import DevCatalog
from kitemesh_cli.dev_key import DevKey
from kitemesh_cli.dev_servers import Servers, find_mongo, find_nats
from kitemesh_cli.settings import DEV_TENANT, DevSettings
from kitemesh_contracts.errors import Unavailable
from kitemesh_contracts.permissions import SERVICES, ServiceName
from kitemesh_runtime.catalog import Catalog

SERVICE_START_S: Final = 30.0
BOOTSTRAP_S: Final = 15.0

_TRY_AGAIN_S: Final = 0.2


class Plan(NamedTuple):
    """What is to be started.

    Attributes:
        port: The gateway's; `url` says where clients reach it.
        environ: What the person has set; services inherit it.

    """

    settings: DevSettings
    folder: DataFolder
    port: int
    url: str
    environ: Mapping[str, str]


async def start_up(plan: Plan, children: Children, session: aiohttp.ClientSession) -> Ready:
    """Start everything and return what there is to say about it.

    Raises:
        Failed: Something did not start.

    """
    started = time.monotonic()
    given = plan.settings
    folder = plan.folder
    access = ensure_access(folder.access)
    bus, store, catalog = await _together(
        find_nats(given, folder, children, access),
        find_mongo(given, folder, children, access),
        _prepare_catalog(plan),
    )
    servers = Servers(bus, store, access)
    nats, mongo = servers.operator_urls()
    pepper = given.key_pepper.get_secret_value() or dev_key.ensure_pepper(folder.pepper)
    tenant = given.anonymous_tenant or DEV_TENANT
    settings = given.model_copy(update={"nats_url": SecretStr(nats), "mongo_url": SecretStr(mongo)})
    shared = {
        "KITEMESH_NATS_URL": nats,
        "KITEMESH_MONGO_URL": mongo,
        "KITEMESH_MONGO_DATABASE": settings.mongo_database,
        "KITEMESH_KEY_PEPPER": pepper,
        "KITEMESH_CATALOG": str(catalog.path),
        "KITEMESH_DRAIN_S": str(settings.drain_s),
    }
    operators = {**shared, "KITEMESH_ANONYMOUS_TENANT": tenant}
    write_environment(folder.environment, operators)
    own = {user: servers.variables(user, settings.mongo_database) for user in SERVICES}
    for user, variables in own.items():
        write_environment(folder.environment_of(user), cluster.less_secrets({**operators, **variables}, user))
    async with step("bootstrap") as current:
        changes = await _bootstrap(settings, catalog.catalog, servers.store_passwords())
        current.detail = _sum_up(changes)
    agent = cluster.anonymous_agent(given, catalog.catalog) or None
    key = await _find_key(settings, folder, pepper, tenant=tenant, agent=agent)
    services = cluster.list_services(settings, catalog.catalog, plan.port)
    environ = cluster.shared_environment(plan.environ, shared)
    async with step("services") as current:
        specs = [
            cluster.service_spec(service, folder, {**environ, **(own[service.user] if service.user else {})}, session)
            for service in services
        ]
        await _together(*(children.start(spec, timeout_s=SERVICE_START_S) for spec in specs))
        current.detail = ", ".join(service.name for service in services)
    return Ready(
        url=plan.url,
        key=key.text,
        key_note=key.note,
        data=folder.root,
        access=describe_access(given),
        catalog=catalog.path,
        model=catalog.real_model or example_model(catalog.catalog),
        models=sorted(catalog.catalog.models, key=lambda each: each != catalog.real_model),
        nats=masked(nats),
        mongo=masked(mongo),
        health_ports=[(service.name, service.health_port) for service in services],
        started_in_s=time.monotonic() - started,
    )


def describe_access(settings: DevSettings) -> str:
    """Say from where the gateway is reached, and what becomes of requests without a key."""
    where = "every address of this machine" if settings.host in {"", "0.0.0.0", "::"} else settings.host
    anonymous = cluster.anonymous_tenant(settings)
    keyless = f"are served as tenant {anonymous}" if anonymous else "are refused"
    return f"{where}; requests without a key {keyless}"


def _sum_up(changes: Sequence[str]) -> str:
    if not changes:
        return "nothing to change"
    if len(changes) == 1:
        return f"1 change: {changes[0]}"
    return f"{len(changes)} changes to streams, consumers and indexes"


def example_model(catalog: Catalog) -> str:
    """Choose what the printed examples ask for."""
    group = GROUP.removeprefix("group:")
    return GROUP if group in catalog.groups else catalog.default_model or next(iter(catalog.models), "")


async def _prepare_catalog(plan: Plan) -> DevCatalog:
    # Services run where this process runs, but their logs and errors read better with a whole path.
    own = plan.settings.catalog.absolute() if "catalog" in plan.settings.model_fields_set else None
    async with step("catalog") as current:
        catalog = await dev_catalog.prepare(own, plan.folder.catalog, plan.environ)
        current.detail = catalog.note
        return catalog


async def _bootstrap(settings: DevSettings, catalog: Catalog, passwords: Mapping[ServiceName, str] | None) -> list[str]:
    """Bootstrap servers that may listen a moment before they serve."""
    end = time.monotonic() + BOOTSTRAP_S
    while True:
        try:
            return await bootstrap(settings, catalog, passwords)
        except Unavailable:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(_TRY_AGAIN_S)


async def _find_key(
    settings: DevSettings, folder: DataFolder, pepper: str, *, tenant: str, agent: str | None
) -> DevKey:
    async with open_cli_stores(settings) as stores:
        return await dev_key.ensure_key(stores.keys, folder.key, pepper.encode(), tenant=tenant, agent=agent)


async def _together(*work: Coroutine[Any, Any, Any]) -> list[Any]:
    """Await all at once; the first failure ends the others and is raised alone."""
    try:
        async with asyncio.TaskGroup() as tasks:
            made = [tasks.create_task(each) for each in work]
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return [task.result() for task in made]
