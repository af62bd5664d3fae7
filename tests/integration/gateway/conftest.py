"""A nats-server of these tests' own: the real streams belong to one cluster only."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from integration.bus.rig import OwnServer
from integration.gateway.rig import Rig, open_rig
from kitemesh_contracts.topology import topology
from kitemesh_runtime.bus_nats import open_bus
from kitemesh_runtime.topology_nats import apply

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def gateway_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    server = OwnServer(tmp_path_factory.mktemp("gateway-nats"))

    async def bootstrap() -> None:
        async with open_bus(server.url, name="bootstrap") as bus:
            await apply(bus, topology(turn_queue_max=50), replicas=1)

    try:
        asyncio.run(bootstrap())
        yield server
    finally:
        server.kill()


@pytest.fixture
async def rig(gateway_server: OwnServer, tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(gateway_server.url, tmp_path, replica=f"gw-{next(_numbers)}") as opened:
        yield opened


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run on the loop of the real process: cuts and closes differ between loops."""
    return {"uvloop": uvloop.new_event_loop}
