"""What every service stands on, opened in the order it is needed: catalog, bus, store, health port, signs of life.

It names the adapters that all services share; each service's `app.py` adds its own.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Final, NamedTuple, cast

import structlog

from kitemesh_contracts.permissions import inbox_prefix
from kitemesh_runtime.ambiguity import doubt_of, doubtful_bus, doubtful_stores
from kitemesh_runtime.beats import Signs, beat
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.clock import Clock, SystemClock
from kitemesh_runtime.dependency import Dependency, probe, watch
from kitemesh_runtime.directory import Directory
from kitemesh_runtime.driver_mongo import open_database, ping
from kitemesh_runtime.health import serve_health
from kitemesh_runtime.lifecycle import Life
from kitemesh_runtime.metrics import BUILD_INFO, BUS_ERRORS, BUS_RECONNECTS
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.pool_queues_nats import find_missing
from kitemesh_runtime.settings import Settings
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_mongo import open_stores
from kitemesh_runtime.tenants_mongo import MongoTenants

log: Final = structlog.get_logger()

_BUS_PROBE_S: Final = 1.2
_BUS_ERRORS: Final = {
    kind: BUS_ERRORS.labels(kind).inc
    for kind in ("connect", "connection", "permission", "slow_consumer", "server", "receiver")
}


class Foundation(NamedTuple):
    """Everything that is open.

    Attributes:
        bus_state: Whether NATS answers.
        store_state: Whether MongoDB answers.
        directory: What is said of tenants.

    """

    bus: NatsBus
    stores: Stores
    parcels: Parcels
    catalog: CatalogHandle
    clock: Clock
    bus_state: Dependency
    store_state: Dependency
    directory: Directory


@asynccontextmanager
async def open_foundation(
    service: str, settings: Settings, life: Life, *, signs: Callable[[], Signs]
) -> AsyncIterator[Foundation]:
    """Open everything, and close it in reverse.

    Args:
        service: Its name, in the bus's monitoring and in its signs of life.
        settings: Its settings.
        life: Its life.
        signs: What it says of itself with each sign of life.

    """
    BUILD_INFO.labels(version("kitemesh-runtime")).set(1)
    clock = SystemClock()
    bus_state, store_state = Dependency("nats", clock=clock), Dependency("mongodb", clock=clock)
    async with AsyncExitStack() as stack:
        catalog = CatalogHandle(settings.catalog)
        bus = await stack.enter_async_context(
            open_bus(
                settings.nats_url.get_secret_value(),
                name=f"{service}/{life.replica}",
                inbox_prefix=inbox_prefix(service),
                on_error=lambda kind: _BUS_ERRORS[kind](),
            ),
        )
        bus.on_reconnect(BUS_RECONNECTS.inc)
        catalog.object_by(partial(find_missing, bus))
        database = await stack.enter_async_context(
            open_database(
                settings.mongo_url.get_secret_value(),
                name=settings.mongo_database,
                driver=settings.mongo_driver,
                dependency=store_state,
            ),
        )
        directory = Directory(MongoTenants(database), clock)
        stores = await stack.enter_async_context(open_stores(database, clock, directory.days))
        doubt = doubt_of(f"{service}/{life.replica}")
        if doubt is not None:
            bus, stores = cast("NatsBus", doubtful_bus(bus, doubt)), doubtful_stores(stores, doubt)
        port = await stack.enter_async_context(
            serve_health(
                settings.health_host,
                settings.health_port,
                is_ready=lambda: life.is_ready,
                dependencies=(bus_state, store_state),
            ),
        )
        log.info("health.served", port=port)
        reach_bus, reach_store = partial(bus.barrier, timeout_s=_BUS_PROBE_S), partial(ping, database)
        await probe(bus_state, reach_bus, timeout_s=_BUS_PROBE_S)
        await probe(store_state, reach_store, timeout_s=_BUS_PROBE_S)
        await directory.begin()
        await stack.enter_async_context(
            life.background(
                directory=directory.run(),
                watch_bus=watch(bus_state, reach_bus),
                watch_store=watch(store_state, reach_store),
                watch_catalog=catalog.watch(),
                beat=beat(bus, service, life.replica, signs, clock),
            ),
        )
        yield Foundation(bus, stores, Parcels(stores.blobs), catalog, clock, bus_state, store_state, directory)
