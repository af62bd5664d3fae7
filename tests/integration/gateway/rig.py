"""A gateway on a real nats-server and the stores' twins; the test plays the orchestrator and the model-runner."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from kitemesh_contracts import codec, subjects, topology
from kitemesh_contracts.commands import ApplyHold, CancelTurn, Mark, StartTurn
from kitemesh_contracts.content import Usage
from kitemesh_contracts.deltas import Frame, TextDelta, TurnEnded
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_gateway.app import Gateway, open_gateway
from kitemesh_gateway.settings import GatewaySettings
from kitemesh_runtime import keyring
from kitemesh_runtime.bus import Delivery
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.directory import Directory
from kitemesh_runtime.foundation import Foundation
from kitemesh_runtime.keys import KeyRecord
from kitemesh_runtime.lifecycle import Life
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_memory import memory_stores

PEPPER = "pepper-for-the-tests"
MAX_FILE_BODY_BYTES = 2 * 1024 * 1024
"""Less than an installation has, so that what is too large is sent fast."""
TENANT = "acme"
KEY = keyring.make(bytes(range(40)))
GROUP = "group:123e4567-e89b-12d3-a456-426614174000"
CATALOG = Catalog.model_validate(
    {
        "providers": {"p": {"kind": "scripted"}},
        "models": {"scripted": {"provider": "p"}, "org/name:tag": {"provider": "p", "owned_by": "org"}},
        "agents": {"helper": {"model": "scripted"}, "lasting": {"model": "scripted", "mode": "durable"}},
        "groups": {GROUP.removeprefix("group:"): {"models": ["scripted"], "agent": "helper"}},
    },
)
ASK: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}


def key_record(key: keyring.NewKey = KEY, **fields: Any) -> KeyRecord:
    values = {"tenant": TENANT, "scopes": ("chat",), "created_at_s": 1.0, **fields}
    return KeyRecord(id=key.id, digest=keyring.digest(key.text, PEPPER.encode()), **values)


class Addressed(Protocol):
    """What says where a turn's client is."""

    @property
    def turn(self) -> str: ...

    @property
    def tenant(self) -> str: ...

    @property
    def gateway(self) -> str: ...


class Cluster:
    """What answers behind the bus: starts arrive in a queue, cancels in another, and the test says what happens."""

    def __init__(self, bus: NatsBus, parcels: Parcels) -> None:
        self.bus = bus
        self._parcels = parcels
        self._unpacking: set[asyncio.Task[None]] = set()
        self.starts: asyncio.Queue[StartTurn] = asyncio.Queue()
        self.cancels: asyncio.Queue[CancelTurn] = asyncio.Queue()
        self.decided: asyncio.Queue[ApplyHold] = asyncio.Queue()
        self._told: dict[tuple[str, int, int], dict[int, str]] = {}

    async def listen(self) -> None:
        pull = await self.bus.pull(topology.TURN, "orchestrator-turn", self._on_start)
        pull.add_credit(10_000)
        await self.bus.subscribe(subjects.CANCEL_ALL, self._on_cancel)
        # It sees what is stored in the stream, without taking it off.
        await self.bus.subscribe(subjects.control_decide("any").replace("any", "*"), self._on_decided)
        await self.bus.barrier()

    async def start(self) -> StartTurn:
        async with asyncio.timeout(5):
            return await self.starts.get()

    async def apply(self) -> ApplyHold:
        async with asyncio.timeout(5):
            return await self.decided.get()

    async def cancel(self) -> CancelTurn:
        async with asyncio.timeout(5):
            return await self.cancels.get()

    def frame(
        self, start: Addressed, n: int, *texts: str, attempt: int = 1, step: int = 1, after: Mark | None = None
    ) -> None:
        told = self._told.setdefault((start.turn, step, attempt), {})
        told[n] = "".join(texts)
        offset = sum(len(text) for number, text in told.items() if number < n)
        frame = Frame(n=n, offset=offset, items=tuple(TextDelta(text=text) for text in texts), after=after)
        self._publish(start, step, attempt, frame)

    def end(
        self, start: Addressed, text: str, *, attempt: int = 1, last: int = 0, step: int = 1, **fields: Any
    ) -> None:
        values: dict[str, Any] = {
            "outcome": "completed",
            "finish": "stop",
            "usage": Usage(input_tokens=3, output_tokens=2),
            **fields,
        }
        ended = TurnEnded(
            turn=start.turn, tenant=start.tenant, step=step, attempt=attempt, last=last, text=text, **values
        )
        self._publish(start, step, attempt, ended)

    async def end_large(self, start: StartTurn, text: str, **fields: Any) -> None:
        ended = TurnEnded(
            turn=start.turn,
            tenant=start.tenant,
            outcome="completed",
            step=1,
            attempt=1,
            text=text,
            finish="stop",
            **fields,
        )
        payload = await self._parcels.pack(start.tenant, ended)
        self.bus.publish(subjects.live(start.gateway, start.turn, 1, 1), payload)

    def fail(self, start: Addressed, code: ErrorCode, message: str = "No luck", **fields: Any) -> None:
        self.end(start, "", outcome="failed", finish=None, error=ErrorInfo(code=code, message=message, **fields))

    def _publish(self, start: Addressed, step: int, attempt: int, message: Frame | TurnEnded) -> None:
        self.bus.publish(subjects.live(start.gateway, start.turn, step, attempt), codec.encode(message))

    def _on_start(self, delivery: Delivery) -> None:
        delivery.ack()
        start = codec.decode(codec.START, delivery.data)
        if isinstance(start, StartTurn):
            self.starts.put_nowait(start)
        else:
            task = asyncio.create_task(self._unpack(delivery.data))
            self._unpacking.add(task)
            task.add_done_callback(self._unpacking.discard)

    async def _unpack(self, data: bytes) -> None:
        start: StartTurn = await self._parcels.unpack(codec.START, data)
        self.starts.put_nowait(start)

    def _on_decided(self, _: str, payload: bytes) -> None:
        order = codec.decode(codec.CONTROL, payload)
        assert isinstance(order, ApplyHold)
        self.decided.put_nowait(order)

    def _on_cancel(self, _: str, payload: bytes) -> None:
        self.cancels.put_nowait(codec.decode(codec.CANCEL, payload))


class Answer(NamedTuple):
    """An HTTP answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self.json()["error"])

    @property
    def events(self) -> list[str]:
        return [
            line.removeprefix("data: ")
            for event in self.body.decode().split("\n\n")
            for line in event.split("\n")
            if line.startswith("data: ")
        ]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [json.loads(event) for event in self.events if event != "[DONE]"]

    @property
    def text(self) -> str:
        return "".join(
            choice["delta"].get("content") or "" for chunk in self.chunks for choice in chunk.get("choices", [])
        )


class Client:
    """One HTTP/1.1 connection that sends exactly what it is told."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, data: bytes) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        self._streams[1].write(data)
        await self._streams[1].drain()

    @property
    def reader(self) -> asyncio.StreamReader:
        assert self._streams is not None
        return self._streams[0]

    @property
    def transport(self) -> asyncio.Transport:
        assert self._streams is not None
        return cast("asyncio.Transport", self._streams[1].transport)

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(10):
            block = await self.reader.readuntil(b"\r\n\r\n")
        status, *lines = block.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(status.split(" ")[1]), headers

    async def piece(self) -> bytes:
        """Read one chunk of a chunked body."""
        async with asyncio.timeout(10):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def answer(self) -> Answer:
        status, headers = await self.head()
        body = b""
        async with asyncio.timeout(20):
            if headers.get("transfer-encoding") == "chunked":
                while piece := await self.piece():
                    body += piece
            elif "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            else:
                body = await self.reader.read()
        return Answer(status, headers, body)

    async def ended(self) -> bool:
        """Tell whether the server closed the connection, waiting for it."""
        async with asyncio.timeout(20):
            try:
                return await self.reader.read(1) == b""
            except ConnectionResetError:
                return True

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()


def post(body: object, *, path: str = "/v1/chat/completions", key: str | None = KEY.text, **headers: str) -> bytes:
    """Build a request; a header named in the arguments replaces the usual one, an underscore stands for a dash."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Host": "test", "Content-Type": "application/json", "Content-Length": str(len(data))}
    if key is not None:
        given["Authorization"] = f"Bearer {key}"
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + data


def get(path: str, *, key: str | None = KEY.text) -> bytes:
    credential = f"Authorization: Bearer {key}\r\n" if key else ""
    return f"GET {path} HTTP/1.1\r\nHost: test\r\n{credential}\r\n".encode()


class Rig(NamedTuple):
    """A gateway, what is behind it, and a way to connect to it."""

    gateway: Gateway
    life: Life
    settings: GatewaySettings
    cluster: Cluster
    stores: Stores
    store_state: Dependency
    client: Callable[[], Client]
    bus: NatsBus

    async def ask(self, request: bytes) -> Answer:
        """Send a request on a connection of its own and read the whole answer."""
        client = self.client()
        await client.send(request)
        return await client.answer()


@asynccontextmanager
async def open_rig(
    nats_url: str,
    folder: Path,
    *,
    replica: str,
    is_worked: bool = True,
    catalog: Catalog = CATALOG,
    shared: Stores | None = None,
    **changes: Any,
) -> AsyncIterator[Rig]:
    """Open a gateway with its own stores, or with those that it has in common with another one.

    `changes` are settings; `is_worked`: somebody takes starts off the queue.
    """
    settings = GatewaySettings.model_validate(
        {"port": 0, "key_pepper": PEPPER, "max_file_body_bytes": MAX_FILE_BODY_BYTES, **changes}
    )
    clock = SystemClock()
    stores = memory_stores(clock) if shared is None else shared
    if shared is None:
        await stores.keys.put(TENANT, key_record())
    store_state, bus_state = Dependency("mongodb"), Dependency("nats")
    store_state.mark_up()
    clients: list[Client] = []
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        life = Life(replica, tasks)
        bus = await stack.enter_async_context(open_bus(nats_url, name=replica, reconnect_wait_s=0.05))
        parcels = Parcels(stores.blobs)
        cluster = Cluster(
            await stack.enter_async_context(open_bus(nats_url, name="cluster", reconnect_wait_s=0.05)), parcels
        )
        (folder / "catalog.yaml").write_text(catalog.model_dump_json(exclude_none=True))
        base = Foundation(
            bus=bus,
            stores=stores,
            parcels=parcels,
            catalog=CatalogHandle(folder / "catalog.yaml"),
            clock=clock,
            bus_state=bus_state,
            store_state=store_state,
            directory=Directory(stores.tenants, clock),
        )
        await base.directory.begin()
        await stack.enter_async_context(life.background(directory=base.directory.run()))
        if is_worked:
            await cluster.listen()
        gateway = await stack.enter_async_context(open_gateway(settings, life, base))
        life.ready()

        def client() -> Client:
            clients.append(Client(gateway.port))
            return clients[-1]

        try:
            yield Rig(gateway, life, settings, cluster, stores, store_state, client, bus)
        finally:
            for each in clients:
                each.close()
