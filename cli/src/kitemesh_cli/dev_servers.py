"""The servers of a one-machine cluster: the person's own, used as they are, or ones started here for their users only.

A server that is started here knows a user for each service, and the operator, who owns the data folder.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from kitemesh_cli import cluster
from kitemesh_cli.access import Access
from kitemesh_cli.children import Children, ChildSpec
from kitemesh_cli.console import step
from kitemesh_cli.data_folder import DataFolder, shown
from kitemesh_cli.failures import Failed
from kitemesh_cli.servers import LOOPBACK, free_port
from kitemesh_cli.settings import DevSettings
from kitemesh_contracts.errors import Bug, Unavailable
from kitemesh_contracts.permissions import OPERATOR, SERVICES, ServiceName
from kitemesh_runtime.access_mongo import is_signed_in, make_first_user
from kitemesh_runtime.driver_mongo import open_database

ADMIN: Final = "admin"
SERVER_START_S: Final = 60.0
FIRST_USER_S: Final = 15.0
_TRY_AGAIN_S: Final = 0.05


class Server(NamedTuple):
    """A server.

    Attributes:
        url: Without a user if it was started here.

    """

    url: str
    is_ours: bool


class Servers(NamedTuple):
    """Both servers, and the passwords for what was started here."""

    bus: Server
    store: Server
    access: Access

    def operator_urls(self) -> tuple[str, str]:
        """Return how the verbs reach NATS and MongoDB."""
        bus, store, access = self
        return (
            access.bus_url(bus.url, OPERATOR) if bus.is_ours else bus.url,
            access.store_url(store.url, OPERATOR, source=ADMIN) if store.is_ours else store.url,
        )

    def variables(self, service: ServiceName, database: str) -> dict[str, str]:
        """Return what a service is told of the servers that were started here."""
        own = self.access.variables(service, nats=self.bus.url, mongo=self.store.url, database=database)
        ours = {"KITEMESH_NATS_URL": self.bus.is_ours, "KITEMESH_MONGO_URL": self.store.is_ours}
        return {name: value for name, value in own.items() if ours[name]}

    def store_passwords(self) -> Mapping[ServiceName, str] | None:
        """Return the services' passwords for a MongoDB that was started here."""
        return {service: self.access.mongo[service] for service in SERVICES} if self.store.is_ours else None


async def find_nats(settings: DevSettings, folder: DataFolder, children: Children, access: Access) -> Server:
    """Return the person's own NATS, or one started here."""
    if "nats_url" in settings.model_fields_set:
        return Server(settings.nats_url.get_secret_value(), is_ours=False)
    port = free_port()
    await _start(children, cluster.nats_spec(folder, port, access), port)
    return Server(f"nats://{LOOPBACK}:{port}", is_ours=True)


async def find_mongo(settings: DevSettings, folder: DataFolder, children: Children, access: Access) -> Server:
    """Return the person's own MongoDB, or one started here.

    Raises:
        Failed: Its data has users, and the operator's password is not the one that is kept.

    """
    if "mongo_url" in settings.model_fields_set:
        return Server(settings.mongo_url.get_secret_value(), is_ours=False)
    port = free_port()
    url = f"mongodb://{LOOPBACK}:{port}/?directConnection=true"
    await _start(children, cluster.mongod_spec(folder, port), port)
    await _ensure_operator(url, settings, access, folder.access)
    return Server(url, is_ours=True)


async def _start(children: Children, spec: ChildSpec, port: int) -> None:
    async with step(spec.name) as current:
        await children.start(spec, timeout_s=SERVER_START_S)
        current.detail = f"{LOOPBACK}:{port}"


async def _ensure_operator(url: str, settings: DevSettings, access: Access, kept_in: Path) -> None:
    """See to it that the operator can sign in; data that knows no user yet gets this one."""
    own = access.store_url(url, OPERATOR, source=ADMIN)
    end = time.monotonic() + FIRST_USER_S
    async with open_database(own, name=ADMIN, driver=settings.mongo_driver) as database:
        while True:
            try:
                if await is_signed_in(database):
                    return
                break
            except Unavailable:
                # It may listen a moment before it serves.
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(_TRY_AGAIN_S)
    async with open_database(url, name=ADMIN, driver=settings.mongo_driver) as database:
        try:
            await make_first_user(database, OPERATOR, access.mongo[OPERATOR])
        except Bug as exc:
            raise Failed(
                f"MongoDB's data has users, and {shown(kept_in)} does not hold their passwords; put the file back that"
                " was kept with the data, or move the data away"
            ) from exc
