"""How the verbs reach NATS and MongoDB: briefly, and with an error that says where and what to do."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from kitemesh_cli.failures import Failed
from kitemesh_contracts.errors import Unavailable
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.directory import Directory
from kitemesh_runtime.driver_mongo import Database, open_database, ping
from kitemesh_runtime.masking import mask_url
from kitemesh_runtime.settings import Settings
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_mongo import open_stores
from kitemesh_runtime.tenants_mongo import MongoTenants

CONNECT_S: Final = 3.0
_CREDENTIALS: Final = re.compile(r"//[^/]*@")


@asynccontextmanager
async def open_cli_bus(settings: Settings) -> AsyncIterator[NatsBus]:
    """Connect to NATS.

    Raises:
        Failed: It does not answer.

    """
    url = settings.nats_url.get_secret_value()
    async with AsyncExitStack() as stack:
        try:
            bus = await stack.enter_async_context(open_bus(url, name="kitemesh-cli", connect_timeout_s=CONNECT_S))
        except Unavailable as exc:
            raise _unreachable("NATS", url, "KITEMESH_NATS_URL") from exc
        yield bus


@asynccontextmanager
async def open_cli_database(settings: Settings) -> AsyncIterator[Database]:
    """Connect to MongoDB.

    Raises:
        Failed: It does not answer.

    """
    url = settings.mongo_url.get_secret_value()
    # Building an index on a large collection takes its time; nobody else waits for it.
    async with open_database(
        url, name=settings.mongo_database, driver=settings.mongo_driver, timeout_s=600.0, select_timeout_s=CONNECT_S
    ) as database:
        try:
            async with asyncio.timeout(2 * CONNECT_S):
                await ping(database)
        except (Unavailable, TimeoutError) as exc:
            raise _unreachable("MongoDB", url, "KITEMESH_MONGO_URL") from exc
        yield database


@asynccontextmanager
async def open_cli_stores(settings: Settings) -> AsyncIterator[Stores]:
    """Connect to MongoDB and open the stores, which keep what is written as long as its tenant wants it.

    Raises:
        Failed: It does not answer.

    """
    async with open_cli_database(settings) as database:
        directory = Directory(MongoTenants(database), SystemClock())
        await directory.begin()
        async with open_stores(database, days=directory.days) as stores:
            yield stores


def masked(url: str) -> str:
    """Return a URL, or several separated by commas, without credentials and options."""
    # A password that was not escaped may hold what ends a host's name or begins the options.
    return _CREDENTIALS.sub("//***@", mask_url(url).partition("?")[0])


def _unreachable(server: str, url: str, variable: str) -> Failed:
    where = f"{server} does not answer at {masked(url)}"
    if os.environ.get(variable):
        return Failed(
            f"{where}, which {variable} names; start it, or unset the variable and `make up` brings its own",
        )
    return Failed(f"{where}; start a cluster here with `make up`, or name a server in {variable}")
