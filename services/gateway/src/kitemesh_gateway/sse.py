"""Server-sent events, written straight from the read loop to the client's transport, each frame in one piece.

aiohttp sends the headers and the end; between them the chunks are framed here, so that a delta costs neither a task
nor a wake-up. One timer serves all streams.
"""

import asyncio
from typing import Final

from aiohttp import HttpVersion11, web

from kitemesh_contracts.deltas import Delta, TurnEnded
from kitemesh_contracts.errors import ErrorInfo
from kitemesh_gateway import positions
from kitemesh_gateway.dialects.base import Encoder, Place, Rest
from kitemesh_gateway.following import ALL, Pieces
from kitemesh_gateway.outflow import TICK_S, Outflow, Stragglers
from kitemesh_gateway.positions import Position
from kitemesh_gateway.watches import TurnFailed
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.metrics import STREAMS_OPEN

PING: Final = b": ping\n\n"
_EVENT_END: Final = b"\n\n"
_ID: Final = b"id: "
ROOM_AGAIN_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25)
"""Before looking again whether a client has taken what it was sent; the last one over and over."""


class Stream:
    """One client's stream. What comes before the status line is kept until `attach`.

    Args:
        encoder: Of its answer.
        request_id: Told with an error.
        max_unsent_bytes: Unsent bytes after which it gets no more events.
        opens_by_s: See below.
        starts_at_once: What opens it follows the status line, so that its client can always say where it was.

    Attributes:
        opens_by_s: When the status line is sent even if there is nothing to say yet.
        failed: The stream ended with an error.

    """

    __slots__ = (
        "_chunked",
        "_done",
        "_encoder",
        "_failure",
        "_first",
        "_from",
        "_has_acted",
        "_joined",
        "_kept",
        "_max_unsent",
        "_outflow",
        "_quiet_since_s",
        "_request_id",
        "_started",
        "_starts_at_once",
        "_wrote",
        "failed",
        "opens_by_s",
    )

    def __init__(
        self,
        encoder: Encoder,
        request_id: str,
        *,
        max_unsent_bytes: int,
        opens_by_s: float,
        starts_at_once: bool = False,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.opens_by_s: Final = opens_by_s
        self.failed = False
        self._encoder: Final = encoder
        self._request_id: Final = request_id
        self._max_unsent: Final = max_unsent_bytes
        self._starts_at_once: Final = starts_at_once
        self._first: asyncio.Future[None] = loop.create_future()
        self._done: asyncio.Future[None] = loop.create_future()
        self._joined: asyncio.Future[None] = loop.create_future()
        self._kept = b""
        self._failure: tuple[Place, ErrorInfo] | None = None
        self._has_acted = False
        self._from: Position | None = None
        self._outflow: Outflow | None = None
        self._chunked = True
        self._started = False
        self._wrote = False
        self._quiet_since_s = 0.0

    # The relay's side

    def go_on(self, position: Position | None = None) -> None:
        """Take it that the client has the events that open a stream, and what is behind them up to a position."""
        self._started = True
        self._from = position
        self._encoder.start()

    def show(self, place: Place, items: tuple[Delta, ...], seen: int = 0) -> None:
        """Send the events of one frame, but for the first ones, which the client has."""
        data = self._events(place, items, seen)
        if data:
            self._tell(data)

    def show_all(self, pieces: Pieces) -> None:
        """Send the events of many frames in one piece."""
        data = b"".join([self._events(*piece) for piece in pieces])
        if data:
            self._tell(data)

    async def room(self) -> None:
        """Return when no more waits than half of what may, or nothing ever will again."""
        most = self._max_unsent // 2
        if self._outflow is None and len(self._kept) > most:
            await self._joined
        # What was written in this turn of the loop may leave at its end.
        await asyncio.sleep(0)
        outflow, looks = self._outflow, 0
        while outflow is not None and not outflow.has_room(most):
            await asyncio.sleep(ROOM_AGAIN_S[min(looks, len(ROOM_AGAIN_S) - 1)])
            looks += 1

    def end(self, ended: TurnEnded, rest: tuple[Rest, ...], seen: int = 0) -> None:
        """Send what is missing and the end, but for the first events, which the client has."""
        self._leave_off(0)
        data = self._encoder.end(ended, rest)
        if seen:
            data = _behind(data, seen)
        self._tell(data)
        self._finish()

    def send_away(self, place: Place, error: ErrorInfo, *, retry_ms: int) -> None:
        """Have the client ask again: the answer goes on, and its last event's id says where."""
        if self._done.done():
            return
        self.failed = True
        self._send(b"retry: %d\n" % retry_ms + self._encoder.error(place, error, self._request_id))
        self._finish()

    def fail(self, place: Place, error: ErrorInfo, *, has_acted: bool) -> None:
        """Send the error, or keep it for a status line that was not sent yet."""
        if self._done.done():
            return
        self.failed = True
        self._has_acted = has_acted
        if self._outflow is None and not self._kept:
            self._failure = (place, error)
        else:
            self._leave_off(0)
            self._send(self._encoder.error(place, error, self._request_id))
        self._finish()

    def _events(self, place: Place, items: tuple[Delta, ...], seen: int) -> bytes:
        position = self._from
        if position is not None:
            self._leave_off(seen)
        data = self._encoder.delta(place, items)
        if position is not None and 0 < seen < ALL:
            return _behind_event(data, position)
        return _behind(data, seen) if seen else data

    def _leave_off(self, seen: int) -> None:
        """Note that what follows is new; without events that the client has `seen`, only its texts say where it is."""
        if self._from is not None and seen < ALL:
            position, self._from = self._from, None
            if not seen:
                self._encoder.resume(position)

    # The request's side

    async def first(self) -> None:
        """Return when the status line may be sent.

        Raises:
            TurnFailed: The turn failed before there was anything to send.

        """
        await self._first
        if self._failure is not None:
            raise TurnFailed(self._failure[1], has_acted=self._has_acted)

    def attach(self, transport: asyncio.Transport, *, chunked: bool, now_s: float) -> None:
        """Take over the connection after the status line, and send what was kept."""
        self._outflow = Outflow(transport)
        self._chunked = chunked
        self._quiet_since_s = now_s
        kept, self._kept = self._kept, b""
        if self._starts_at_once and not self._started:
            self._started = True
            kept = self._encoder.start() + kept
        if not self._joined.done():
            self._joined.set_result(None)
        if self._failure is not None:
            # It arrived between the decision to send the status line and now.
            self._leave_off(0)
            kept += self._encoder.error(*self._failure, self._request_id)
        if kept:
            self._send(kept)

    async def done(self) -> Outflow | None:
        """Return when the last event was handed to the transport, with what may still wait there."""
        await self._done
        return self._outflow

    # The timer's side

    def tick(self, now_s: float, *, ping_s: float, patience_s: float) -> None:
        """Open what has waited long enough, break a silence, cut who does not read."""
        outflow = self._outflow
        if outflow is None:
            if now_s >= self.opens_by_s:
                self._open()
        elif outflow.transport.is_closing():
            return
        elif outflow.is_overdue(now_s, patience_s):
            outflow.cut("slow_client")
        elif self._wrote:
            self._wrote = False
            self._quiet_since_s = now_s
        elif now_s - self._quiet_since_s >= ping_s - 2 * TICK_S:
            # Early by what the timer may be late, on either end.
            self._quiet_since_s = now_s
            self._write(outflow, PING)

    def _open(self) -> None:
        if not self._first.done():
            self._first.set_result(None)

    def _finish(self) -> None:
        self._open()
        if not self._done.done():
            self._done.set_result(None)

    def _tell(self, data: bytes) -> None:
        """Send events, if nothing has ended the stream, behind those that open it."""
        if self._done.done():
            return
        if not self._started:
            self._started = True
            data = self._encoder.start() + data
        if data:
            self._send(data)

    def _send(self, data: bytes) -> None:
        outflow = self._outflow
        if outflow is None:
            self._kept += data
            self._open()
        else:
            self._wrote = True
            self._write(outflow, data)

    def _write(self, outflow: Outflow, data: bytes) -> None:
        transport = outflow.transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size() > self._max_unsent:
            outflow.cut("slow_client")
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        outflow.written += len(data)
        transport.write(data)


def _behind(data: bytes, seen: int) -> bytes:
    """Return the events behind the first `seen` ones."""
    if seen >= ALL:
        return b""
    begin = 0
    for _ in range(seen):
        begin = data.find(_EVENT_END, begin) + len(_EVENT_END)
        if begin < len(_EVENT_END):
            return b""
    return data[begin:]


def _behind_event(data: bytes, position: Position) -> bytes:
    """Return the events of a frame behind the one that the client has.

    What was told before the frame may have been put in another order than now, which moves the first events of it. So
    that event is the one that shows what the position says, the nearest of those if there are several.
    """
    *events, _ = data.split(_EVENT_END)
    shown = [positions.parse(event.partition(b"\n")[0].removeprefix(_ID).decode())[1][4:] for event in events]
    same = [k for k, each in enumerate(shown) if each == position[4:]]
    k = min(same, key=lambda each: abs(each - position.k), default=position.k)
    return b"".join(event + _EVENT_END for event in events[k + 1 :])


class Streams:
    """All open streams, and the timer that serves them.

    Args:
        clock: Time.
        ping_s: Longest silence.
        patience_s: Longest time that a byte may wait for its client.
        max_unsent_bytes: Unsent bytes after which a stream gets no more events.
        first_event_s: How long a status line waits for the first event.

    """

    def __init__(
        self, clock: Clock, *, ping_s: float, patience_s: float, max_unsent_bytes: int, first_event_s: float
    ) -> None:
        self.stragglers: Final = Stragglers(patience_s)
        self._clock: Final = clock
        self._ping_s: Final = ping_s
        self._patience_s: Final = patience_s
        self._max_unsent_bytes: Final = max_unsent_bytes
        self._first_event_s: Final = first_event_s
        self._streams: set[Stream] = set()

    def open(self, encoder: Encoder, request_id: str, *, starts_at_once: bool = False) -> Stream:
        """Begin a stream that has no connection yet."""
        stream = Stream(
            encoder,
            request_id,
            max_unsent_bytes=self._max_unsent_bytes,
            opens_by_s=self._clock.monotonic() + self._first_event_s,
            starts_at_once=starts_at_once,
        )
        self._streams.add(stream)
        STREAMS_OPEN.inc()
        return stream

    def close(self, stream: Stream) -> None:
        """Forget a stream."""
        self._streams.discard(stream)
        STREAMS_OPEN.dec()

    async def serve(self, stream: Stream, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Send the status line and everything that follows; returns after the last event.

        Raises:
            ConnectionResetError: The client is gone.

        """
        if request.version >= HttpVersion11:
            response.enable_chunked_encoding()
        else:
            # Without chunks only the connection's end tells where the stream ends.
            response.force_close()
        await response.prepare(request)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        stream.attach(transport, chunked=response.chunked, now_s=self._clock.monotonic())
        outflow = await stream.done()
        if stream.failed:
            response.force_close()
        if outflow is not None and not outflow.is_empty():
            self.stragglers.add(outflow)

    async def run(self) -> None:
        """Serve the timer, for ever."""
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()

    def tick(self) -> None:
        """Do what is due now."""
        now_s = self._clock.monotonic()
        for stream in list(self._streams):
            stream.tick(now_s, ping_s=self._ping_s, patience_s=self._patience_s)
        self.stragglers.tick(now_s)
