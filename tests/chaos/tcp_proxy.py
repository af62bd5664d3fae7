"""A TCP proxy that misbehaves on demand: it delays, holds, resets, or swallows one direction.

It carries bytes and knows no protocol. All proxies live on one event loop in a thread of its own, so that they carry
on while the test's own code blocks; every method may be called from any thread and has taken effect when it returns.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, Final, Literal, NamedTuple, TypeVar

from kitemesh_cli.servers import LOOPBACK

T = TypeVar("T")

Direction = Literal["up", "down"]
"""From the client to the server, or back."""

CHUNK_BYTES: Final = 64 * 1024
QUEUED_CHUNKS_MAX: Final = 64
CALL_S: Final = 5.0
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Behaviour(NamedTuple):
    """What becomes of bytes.

    Attributes:
        delay_ms: Each byte arrives so much later, and `jitter_ms` at the most besides; the order stays.
        held: Nothing is carried either way; the sockets stay open, and what waits arrives after the end of it.
        swallowed: Bytes of this direction vanish. They never arrive, so a connection that lost some is reset when it
            heals: nothing else would ever end the two sides' misunderstanding.

    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    held: bool = False
    swallowed: Direction | None = None


HEALTHY: Final = Behaviour()


class Link:
    """One connection through a proxy. Made and used on the proxies' loop only."""

    def __init__(self, behaviour: Behaviour, rng: random.Random) -> None:
        self._behaviour = behaviour
        self._rng = rng
        self._open = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []
        self._has_lost = False
        self.behave(behaviour)

    def behave(self, behaviour: Behaviour) -> None:
        """Do so from now on."""
        self._behaviour = behaviour
        (self._open.clear if behaviour.held else self._open.set)()
        if self._has_lost and behaviour.swallowed is None:
            self.reset()

    def reset(self) -> None:
        """End both sides by RST."""
        for writer in self._writers:
            raw = writer.get_extra_info("socket")
            if raw is not None and raw.fileno() >= 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        """Connect to the server and carry bytes until both sides have ended."""
        self._writers.append(writer)
        await self._open.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            self.reset()
            return
        self._writers.append(far_writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer, "up"))
                group.create_task(self._pump(far_reader, writer, "down"))
        except* OSError:
            self.reset()
        finally:
            for each in self._writers:
                each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED_CHUNKS_MAX)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(reader, queue, direction))
            group.create_task(self._write(queue, writer))

    async def _read(
        self, reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]], direction: Direction
    ) -> None:
        loop = asyncio.get_running_loop()
        due_s = 0.0
        while True:
            data = await reader.read(CHUNK_BYTES)
            behaviour = self._behaviour
            if data and behaviour.swallowed == direction:
                self._has_lost = True
                continue
            later_ms = behaviour.delay_ms + self._rng.uniform(0, behaviour.jitter_ms)
            due_s = max(due_s, loop.time() + later_ms / 1000)
            await queue.put((due_s, data))
            if not data:
                return

    async def _write(self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, data = await queue.get()
            if (wait_s := due_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            await self._open.wait()
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()


class TcpProxy:
    """A listening port whose connections are carried to another; made by `Proxies.to`.

    Attributes:
        port: Where it listens.

    """

    def __init__(self, proxies: "Proxies", port: int, target: int, rng: random.Random) -> None:
        self.port: Final = port
        self._proxies = proxies
        self._target = target
        self._rng = rng
        self._behaviour = HEALTHY
        self._links: set[Link] = set()
        self._server: asyncio.Server | None = None
        self._carrying: set[asyncio.Task[None]] = set()

    def links(self) -> list[Link]:
        """Return the connections that stand now, to be given to `behave` or `reset` one by one."""
        return self._proxies.call(lambda: list(self._links))

    def behave(self, behaviour: Behaviour, only: Link | None = None) -> None:
        """Treat all connections so, and those that are to come, or `only` one of them."""

        def change() -> None:
            if only is None:
                self._behaviour = behaviour
            for link in self._chosen(only):
                link.behave(behaviour)

        self._proxies.call(change)

    def delay(self, ms: float, jitter_ms: float = 0.0) -> None:
        """Have everything arrive later."""
        self.behave(Behaviour(delay_ms=ms, jitter_ms=jitter_ms))

    def hold(self) -> None:
        """Carry nothing, and end nothing."""
        self.behave(Behaviour(held=True))

    def half_open(self, swallowed: Direction) -> None:
        """Let one direction's bytes vanish."""
        self.behave(Behaviour(swallowed=swallowed))

    def reset(self, only: Link | None = None) -> None:
        """End the connections that stand now, or `only` one of them, by RST; new ones are welcome."""

        def end() -> None:
            for link in self._chosen(only):
                link.reset()

        self._proxies.call(end)

    def heal(self) -> None:
        """Carry everything again; what was held arrives."""
        self.behave(HEALTHY)

    async def listen(self, raw: socket.socket) -> None:
        """Begin; on the proxies' loop."""
        self._server = await asyncio.start_server(self._take, sock=raw)

    def close(self) -> None:
        """Take no more connections; on the proxies' loop."""
        if self._server is not None:
            self._server.close()

    def _chosen(self, only: Link | None) -> list[Link]:
        return list(self._links) if only is None else [only]

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of its own: the library logs the cancellation of one that it started itself as a failure.
        task = asyncio.get_running_loop().create_task(self._carry(reader, writer), name=f"proxy-{self.port}")
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(self._behaviour, self._rng)
        self._links.add(link)
        try:
            await link.carry(reader, writer, self._target)
        finally:
            self._links.discard(link)
            writer.close()


class Proxies:
    """The thread with the loop of all proxies; made by `running_proxies`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seed: int) -> None:
        self._loop = loop
        self._rng = random.Random(seed)
        self._made: list[TcpProxy] = []

    def to(self, target: int) -> TcpProxy:
        """Listen on a free port for a target port of this machine."""
        raw = socket.create_server((LOOPBACK, 0))
        proxy = TcpProxy(self, raw.getsockname()[1], target, self._rng)
        self._made.append(proxy)
        self._wait(proxy.listen(raw))
        return proxy

    async def end(self) -> None:
        """Close everything; on the loop."""
        for proxy in self._made:
            proxy.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def call(self, function: Callable[[], T]) -> T:
        """Call something on the loop and return what it returns."""

        async def run() -> T:
            return function()

        return self._wait(run())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(CALL_S)


@contextlib.contextmanager
def running_proxies(seed: int = 0) -> Iterator[Proxies]:
    """Have proxies while inside; leaving cuts every connection. `seed` decides the jitter."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="proxies", daemon=True)
    thread.start()
    proxies = Proxies(loop, seed)
    try:
        yield proxies
    finally:
        asyncio.run_coroutine_threadsafe(proxies.end(), loop).result(CALL_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CALL_S)
        loop.close()
