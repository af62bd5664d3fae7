"""A connection to the shared server, and a server of one's own with a connection to it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from integration.bus.rig import OwnServer
from kitemesh_runtime.bus_nats import NatsBus, open_bus


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[NatsBus]:
    async with open_bus(nats_url, name="test") as opened:
        yield opened


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnServer]:
    own = OwnServer(tmp_path)
    try:
        yield own
    finally:
        own.kill()


@pytest.fixture
async def own_bus(server: OwnServer) -> AsyncIterator[NatsBus]:
    async with open_bus(server.url, name="test", reconnect_wait_s=0.02, pull_heartbeat_s=0.3) as opened:
        yield opened
