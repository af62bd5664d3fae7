"""What a server kept in memory is made again after its restart, as the installation was bootstrapped."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from integration.bus.rig import OwnServer
from kitemesh_contracts.errors import KitemeshError
from kitemesh_contracts.topology import FEED, OUT, OUT_MAX_BYTES, topology
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.memory_streams import restore, restore_forever
from kitemesh_runtime.topology_nats import apply, check, replicas_of


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnServer]:
    own = OwnServer(tmp_path)
    yield own
    own.kill()


async def there(bus: NatsBus) -> None:
    """Return once every stream is there."""
    async with asyncio.timeout(15):
        while True:
            with suppress(KitemeshError):
                await check(bus, topology())
                return
            await bus.barrier()


async def test_streams_in_memory_are_back_after_the_server_was_killed_and_started(server: OwnServer) -> None:
    async with open_bus(server.url, name="test") as bus:
        await apply(bus, topology(), replicas=1)
        restoring = asyncio.create_task(restore_forever(bus, OUT_MAX_BYTES))
        server.kill()
        server.start()
        await there(bus)
        bus.post("km.v1.out.g.t.1.1.0.1", b"again")
        assert await bus.posted(timeout_s=10)
        assert [each.payload for each in await bus.last_of(OUT, "km.v1.out.*.t.1.1.0.*")] == [b"again"]
        restoring.cancel()


async def test_where_nothing_was_bootstrapped_nothing_is_made(server: OwnServer) -> None:
    async with open_bus(server.url, name="test") as bus:
        assert not await restore(bus)
        assert [await replicas_of(bus, name) for name in (OUT, FEED)] == [None, None]


async def test_what_is_there_is_left_as_it_is(server: OwnServer) -> None:
    async with open_bus(server.url, name="test") as bus:
        await apply(bus, topology(out_max_bytes=1024 * 1024), replicas=1)
        assert await restore(bus)
        assert await apply(bus, topology(out_max_bytes=1024 * 1024), replicas=1) == []
