"""Servers that may be killed, frozen or made to misbehave, and streams made by one line."""

import asyncio
import itertools
import json
import os
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from kitemesh_cli import servers
from kitemesh_runtime.bus_nats import NatsBus

_numbers = itertools.count(1)


class OwnServer:
    """A nats-server that keeps its port and its store while it is killed, frozen and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = servers.free_port()
        self.url = f"nats://{servers.LOOPBACK}:{self._port}"
        self.start()

    def start(self) -> None:
        log = self._folder / "log"
        self._process = servers.start_nats(self._folder / "data", self._port, log)
        servers.wait_listening(self._process, self._port, timeout_s=15, log=log)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)
        while psutil.Process(self._process.pid).status() != psutil.STATUS_STOPPED:
            pass

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)


class Stream:
    """A stream of one's own with one consumer."""

    def __init__(self, bus: NatsBus, name: str) -> None:
        self._bus = bus
        self.name = name
        self.consumer = "c"

    def subject(self, last: object = "x") -> str:
        return f"{self.name}.{last}"

    async def put(self, *payloads: bytes) -> None:
        await asyncio.gather(*(self._put(payload) for payload in payloads))

    async def _put(self, payload: bytes) -> None:
        await self._bus.send(
            self.subject(payload.decode()), payload, msg_id=f"{self.name}:{next(_numbers)}", timeout_s=10
        )

    async def state(self) -> dict[str, Any]:
        return (await jetstream(self._bus, f"STREAM.INFO.{self.name}"))["state"]

    async def waiting(self) -> dict[str, Any]:
        return await jetstream(self._bus, f"CONSUMER.INFO.{self.name}.{self.consumer}")

    async def delete_consumer(self) -> None:
        await jetstream(self._bus, f"CONSUMER.DELETE.{self.name}.{self.consumer}")

    async def create_consumer(self, *, ack_wait_s: float = 30, max_deliver: int = -1, max_waiting: int = 512) -> None:
        config = {
            "durable_name": self.consumer,
            "ack_policy": "explicit",
            "ack_wait": int(ack_wait_s * 1e9),
            "max_deliver": max_deliver,
            "max_ack_pending": 10_000,
            "max_waiting": max_waiting,
        }
        await jetstream(
            self._bus,
            f"CONSUMER.CREATE.{self.name}.{self.consumer}",
            {"stream_name": self.name, "config": config},
        )


async def jetstream(bus: NatsBus, question: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        await bus.request(f"$JS.API.{question}", json.dumps(body or {}).encode(), timeout_s=5)
    )
    assert "error" not in answer, answer
    return answer


async def make_stream(bus: NatsBus, **options: Any) -> Stream:
    consumer_options = {key: options.pop(key) for key in ("ack_wait_s", "max_deliver", "max_waiting") if key in options}
    name = "T" + uuid.uuid4().hex[:12]
    config = {"name": name, "subjects": [f"{name}.>"], "retention": "workqueue", "discard": "new", **options}
    await jetstream(bus, f"STREAM.CREATE.{name}", config)
    stream = Stream(bus, name)
    await stream.create_consumer(**consumer_options)
    return stream


async def until(condition: Callable[[], Awaitable[bool]], *, timeout_s: float = 10) -> None:
    """Ask again until the server says so; each question is a round trip."""
    async with asyncio.timeout(timeout_s):
        while not await condition():
            pass


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What a scripted server does with one connection; the connection ends when it returns."""


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, Any]:
    """Do the handshake and return what the client said of itself."""
    writer.write(b'INFO {"server_id":"scripted","version":"2.15.1","headers":true,"max_payload":1048576}\r\n')
    connect = await reader.readuntil(b"\r\n")
    await reader.readuntil(b"PING\r\n")
    writer.write(b"PONG\r\n")
    said: dict[str, Any] = json.loads(connect.removeprefix(b"CONNECT "))
    return said


async def obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Behave well: answer pings, and echo what is published to whoever subscribed first."""
    await greet(reader, writer)
    while line := await reader.readline():
        if line.startswith(b"PING"):
            writer.write(b"PONG\r\n")
        elif line.startswith(b"PUB "):
            fields = line.split()
            writer.write(b"MSG %b 1 %b\r\n" % (fields[1], fields[-1]) + await reader.readexactly(int(fields[-1]) + 2))


@asynccontextmanager
async def scripted(*scripts: Script) -> AsyncIterator[str]:
    """Serve one script for each connection, the last one for all that follow; yields the URL."""
    turns = iter(scripts)
    last = scripts[-1]
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await next(turns, last)(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, servers.LOOPBACK, 0)
    try:
        yield f"nats://user:p%40ss@{servers.LOOPBACK}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.close()
