"""nats-py's client as a connection that survives: whatever ends it, it comes back, until it is closed.

The library still parses options, authenticates, does TLS and keeps the pool of servers. Reading, losing, regaining and
closing are done here, because there its errors end the client or hang it. Nothing is buffered while disconnected.
Written against nats-py 2.16.0; a regression test stands for each trap. What to say and hear is in `client_nats`.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog
from nats import errors
from nats.aio.client import Client

from kitemesh_runtime.denials import Denials
from kitemesh_runtime.wire_nats import Receiver, WireError, WireParser

UNSENT_MAX_BYTES: Final = 8 * 1024 * 1024
CANCEL_AGAIN_S: Final = 0.1
CLOSE_S: Final = 1.0
_READ_BYTES: Final = 64 * 1024

log = structlog.get_logger()


def _discard(data: bytes) -> None:
    """Stand in for the parser of a connection that was given up."""


class GuardedConnection(Client):  # type: ignore[misc]  # nats-py carries no types
    """Keeps the connection, its table of receivers and the commands that renew them."""

    _status: int
    _pending: list[bytes]
    _pending_data_size: int
    _pongs: list[asyncio.Future[bool] | None]

    def __init__(self, *, on_error: Callable[[str], None] | None = None) -> None:
        """Count errors with `on_error`, which is given a word of a closed set.

        Args:
            on_error: `connect`, `connection`, `permission`, `slow_consumer`, `server` or `receiver`.

        """
        super().__init__()
        self._receivers: dict[bytes, Receiver] = {}
        self._interests: dict[bytes, bytes] = {}
        self._on_error = on_error
        self._on_lost: list[Callable[[], None]] = []
        self._on_regained: list[Callable[[], None]] = []
        self._denials = Denials()
        self._library_tasks: set[asyncio.Task[None]] = set()
        self._reader: Any = None
        self._room = 0
        self._connect_error = ""

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call back, in the order of registration, when the connection is lost."""
        self._on_lost.append(callback)

    def on_regained(self, callback: Callable[[], None]) -> None:
        """Call back, in the order of registration, once connected again and subscribed again."""
        self._on_regained.append(callback)

    def off_regained(self, callback: Callable[[], None]) -> None:
        """Call back no more."""
        self._on_regained.remove(callback)

    def on_denied(self, callback: Callable[[bytes], None]) -> None:
        """Call back with the subject of a publication that the server's permissions do not allow."""
        self._denials.listen(callback)

    # Writing

    def _queue(self, command: bytes) -> None:
        """Queue what the connection itself needs, whatever else is unsent; dropped while disconnected."""
        if self._status != Client.CONNECTED:
            return
        if not self._pending:
            self._kick()
        self._pending.append(command)
        self._pending_data_size += len(command)

    def _kick(self) -> None:
        """Have what is queued in this turn of the loop written at its end, and measure how much it may be."""
        self._room = UNSENT_MAX_BYTES - self._socket().get_write_buffer_size()
        asyncio.get_running_loop().call_soon(self._write_pending)

    def _write_pending(self) -> None:
        pending, self._pending, self._pending_data_size = self._pending, [], 0
        if not pending or self._status != Client.CONNECTED:
            return
        try:
            self._socket().write(b"".join(pending))
        except (OSError, RuntimeError) as exc:
            # uvloop raises RuntimeError when the handle is closed already
            self._lose(exc)

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:  # noqa: ARG002  the library's signature
        self._queue(cmd)

    async def _flush_pending(self, force_flush: bool = False) -> asyncio.Future[None]:  # noqa: ARG002  as above
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        # Behind what is queued, so that a flush says something about it; the library writes it ahead.
        self._pongs.append(future)
        self._queue(b"PING\r\n")

    def _socket(self) -> Any:
        return self._transport._io_writer.transport  # noqa: SLF001  the library keeps its streams private

    # Reading

    async def _read_loop(self) -> None:
        reader = self._transport._io_reader  # noqa: SLF001  the library keeps its streams private
        parser = WireParser(
            self._receivers,
            on_control=self._control,
            on_stray=self._stray,
            on_failure=self._receiver_failed,
        )

        def receive(data: bytes) -> None:
            try:
                parser.feed(data)
            except (WireError, ValueError) as exc:
                self._lose(exc)

        # From here on bytes go from the socket's callback straight to the parser: no task is woken for them.
        self._ps, self._reader, reader.feed_data = parser, reader, receive
        reason: Exception
        try:
            while data := await reader.read(_READ_BYTES):
                receive(data)  # what came together with the handshake
            reason = errors.UnexpectedEOF()
        except Exception as exc:  # noqa: BLE001  whatever ends the reading, the answer is a new connection
            reason = exc
        if self._reader is reader:
            self._lose(reason)

    def _control(self, line: bytes) -> None:
        if line.startswith(b"PING"):
            self._queue(b"PONG\r\n")
        elif line.startswith(b"PONG"):
            self._pong()
        elif line.startswith(b"INFO "):
            self._spawn(self._process_info(json.loads(line[5:])))
        elif line.startswith(b"-ERR"):
            self._refused(line[4:].strip(b" '").decode("utf-8", "replace"))
        elif not line.startswith(b"+OK"):
            raise WireError("an unknown control line")

    def _pong(self) -> None:
        self._pings_outstanding = 0
        self._pongs_received += 1
        waiter = self._pongs.pop(0) if self._pongs else None
        # A flush that was cancelled or timed out leaves a done future behind.
        if waiter is not None and not waiter.done():
            waiter.set_result(True)

    async def _process_pong(self) -> None:
        self._pong()

    def _stray(self, sid: bytes, subject: bytes, reply: bytes, headers: bytes | None, payload: bytes) -> None:
        """Leave to the library what it subscribed itself; drop what a forgotten subscription still gets."""
        if int(sid) in self._subs:
            self._spawn(self._process_msg(int(sid), subject, reply, payload, headers))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="nats-library")
        self._library_tasks.add(task)
        task.add_done_callback(self._library_done)

    def _library_done(self, task: asyncio.Task[None]) -> None:
        self._library_tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._report("server", repr(exc))

    # Errors

    def _report(self, kind: str, error: str) -> None:
        log.warning("bus.error_reported", kind=kind, error=error)
        if self._on_error is not None:
            self._on_error(kind)

    async def _report_connecting(self, exc: Exception) -> None:
        """Count a failed attempt; log it once for each new reason, for there are several a second."""
        error = str(exc) or type(exc).__name__
        if error != self._connect_error:
            self._connect_error = error
            self._report("connect", error)
        elif self._on_error is not None:
            self._on_error("connect")

    def _receiver_failed(self, subject: bytes, exc: Exception) -> None:
        log.error("bus.receiver_failed", subject=subject.decode("ascii", "replace"), exc_info=exc)
        if self._on_error is not None:
            self._on_error("receiver")

    def _refused(self, error: str) -> None:
        """Report an error from the server. Those that cost the connection are followed by its end."""
        lowered = error.lower()
        if "permissions violation" in lowered:
            if self._on_error is not None:
                self._on_error("permission")
            self._denials.take(error)
        elif "slow consumer" in lowered:
            self._report("slow_consumer", error)
        else:
            self._report("server", error)

    async def _process_err(self, err_msg: str) -> None:
        self._refused(err_msg)

    # Losing and regaining

    async def _process_op_err(self, e: Exception) -> None:
        self._lose(e)

    async def force_reconnect(self) -> None:
        """Give the connection up and make a new one."""
        self._lose(errors.Error("asked to reconnect"))

    def _lose(self, reason: Exception) -> None:
        if self._status != Client.CONNECTED:
            return
        self._status = Client.RECONNECTING
        self._report("connection", str(reason) or type(reason).__name__)
        self._abandon()
        returning = self._attempt_reconnect()
        self._reconnection_task = asyncio.get_running_loop().create_task(returning, name="nats-reconnect")
        self._call_back(self._on_lost)

    def _abandon(self) -> None:
        """Drop the connection at once; closing it politely waits for a peer that may be frozen."""
        if self._reader is not None:
            self._reader.feed_data = _discard
            self._reader = None
        for waiter in self._pongs:
            if waiter is not None and not waiter.done():
                waiter.set_exception(errors.ConnectionReconnectingError())
        self._pongs = []
        for task in self._connection_tasks():
            task.cancel()
        if self._transport:
            self._socket().abort()

    async def _attempt_reconnect(self) -> None:
        while True:
            try:
                await self._select_next_server()
                await self._process_connect_init()
            except Exception as exc:  # noqa: BLE001  no error on the way back may be the last one
                self._status = Client.RECONNECTING
                self._abandon()
                await self._report_connecting(exc)
                await asyncio.sleep(self.options["reconnect_time_wait"])
            else:
                break
        for command in self._interests.values():
            self._queue(command)
        for sid, sub in self._subs.items():
            self._queue(f"SUB {sub.subject} {sub.queue} {sid}\r\n".encode())
        self.stats["reconnects"] += 1
        self._connect_error = ""
        log.info("bus.reconnected")
        self._call_back(self._on_regained)

    def _call_back(self, callbacks: list[Callable[[], None]]) -> None:
        for callback in tuple(callbacks):
            try:
                callback()
            except Exception as exc:  # noqa: BLE001  one caller's mistake must not end the connection
                self._receiver_failed(b"(connection)", exc)

    # Closing

    async def _close(self, status: int, do_cbs: bool = True) -> None:  # noqa: ARG002  the library's signature
        if self._status == Client.CLOSED:
            return
        self._write_pending()
        self._status = status
        self._reader = None
        ending = [*self._connection_tasks(), *self._library_tasks]
        if self._reconnection_task is not None and self._reconnection_task is not asyncio.current_task():
            ending.append(self._reconnection_task)
        await end(ending)
        if not self._transport:
            return
        self._transport.close()
        # A task of its own: what the library awaits there may have been cancelled by whoever awaited it before.
        closing = asyncio.create_task(self._transport.wait_closed(), name="nats-close")
        await asyncio.wait((closing,), timeout=CLOSE_S)
        if not closing.done() or closing.cancelled() or closing.exception() is not None:
            closing.cancel()
            self._socket().abort()

    def _connection_tasks(self) -> list[asyncio.Task[None]]:
        """List the tasks that live as long as a connection, but for the one that asks."""
        current = asyncio.current_task()
        tasks = (self._reading_task, self._ping_interval_task, self._flusher_task)
        return [task for task in tasks if task is not None and task is not current]


async def end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended: the library awaits in ways that may lose a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            # Read, or the loop would complain; a lost connection has failed tasks.
            task.exception()
