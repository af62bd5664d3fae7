"""Connections that a real server cuts because they do not read, and that only the server knows of."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kitemesh_cli import servers
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.metrics import SLOW_CONSUMERS
from kitemesh_runtime.slow_consumers import SlowConsumers

LIMIT_MB = 1
PAYLOAD = b"x" * 500_000


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[NatsBus]:
    """A connection to a server that keeps little for those who do not read."""
    port, log = servers.free_port(), tmp_path / "log"
    process = servers.start_nats(tmp_path / "data", port, log, more=f"max_pending: {LIMIT_MB}MB\n")
    servers.wait_listening(process, port, timeout_s=15, log=log)
    async with open_bus(f"nats://{servers.LOOPBACK}:{port}", name="test") as opened:
        yield opened
    process.kill()
    process.wait()


def counted() -> float:
    return SLOW_CONSUMERS._value.get()


async def cut_one_off(bus: NatsBus) -> None:
    """Have the server cut a connection that listens and never reads."""
    address = (servers.LOOPBACK, int(bus._client.connected_url.port))
    with socket.create_connection(address) as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.sendall(b'CONNECT {"verbose": false}\r\nSUB flood 1\r\nPING\r\n')
        await asyncio.to_thread(lazy.recv, 4096)
        for _ in range(30):
            bus.publish("flood", PAYLOAD)
            await bus.barrier()


async def test_whoever_does_not_read_is_counted_once_and_only_what_came_since_the_first_look(bus: NatsBus) -> None:
    await cut_one_off(bus)
    seen, before = SlowConsumers(bus), counted()
    await seen.look()
    assert counted() == before
    await cut_one_off(bus)
    await seen.look()
    await seen.look()
    assert counted() == before + 1
