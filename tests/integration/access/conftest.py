"""A nats-server and a mongod that know the services' users, and nobody else."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.access.guarded import DATABASE, Guarded
from kitemesh_cli.access import Access, ensure_access
from kitemesh_cli.cluster import MONGOD_FLAGS
from kitemesh_contracts.permissions import OPERATOR, SERVICES
from kitemesh_contracts.topology import topology
from kitemesh_runtime.access_mongo import ensure_access as ensure_store_access
from kitemesh_runtime.access_mongo import make_first_user
from kitemesh_runtime.bus_nats import open_bus
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.driver_mongo import open_database
from kitemesh_runtime.topology_nats import apply
from real_servers import running_mongod, running_nats


@pytest.fixture(scope="session")
def access(tmp_path_factory: pytest.TempPathFactory) -> Access:
    return ensure_access(tmp_path_factory.mktemp("access") / "passwords.json")


@pytest.fixture(scope="session")
def guarded_nats(access: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A nats-server with the streams of a cluster."""

    async def prepare(url: str) -> None:
        async with open_bus(url, name="operator") as bus:
            await apply(bus, topology(), replicas=1)

    with running_nats(tmp_path_factory.mktemp("guarded-nats"), more=access.nats_users()) as url:
        guarded = Guarded(url, access)
        asyncio.run(prepare(guarded.bus(OPERATOR)))
        yield guarded


@pytest.fixture(scope="session")
def guarded_mongo(access: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A mongod with the roles and users of a cluster."""

    async def prepare(guarded: Guarded) -> None:
        async with open_database(guarded.url, name="admin", driver="pymongo") as admin:
            await make_first_user(admin, OPERATOR, access.mongo[OPERATOR])
        async with open_database(guarded.store(OPERATOR), name=DATABASE, driver="pymongo") as database:
            await ensure_store_access(database, {each: access.mongo[each] for each in SERVICES})

    folder: Path = tmp_path_factory.mktemp("guarded-mongo")
    with running_mongod(folder, *MONGOD_FLAGS) as url:
        guarded = Guarded(url, access)
        asyncio.run(prepare(guarded))
        yield guarded


@pytest.fixture
def dependency() -> Dependency:
    """A store that was up."""
    store = Dependency("mongodb", clock=SystemClock())
    store.mark_up()
    return store
