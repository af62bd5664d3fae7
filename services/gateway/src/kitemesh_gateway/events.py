"""`GET /v1/events`: a tenant's news as server-sent events, as far as the key may know of them.

A reader that comes back with `Last-Event-ID` goes on where it was. One that does not read loses its connection; one
that is slow reads older news from the stream, so that nothing is kept for it here.
"""

import asyncio
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog
from aiohttp import HttpVersion11, web

from kitemesh_contracts.errors import Busy, ErrorCode, KitemeshError, Unavailable
from kitemesh_contracts.headers import LAST_EVENT_ID
from kitemesh_gateway.auth import Authenticator, Principal
from kitemesh_gateway.dialects.base import SSE_HEADERS
from kitemesh_gateway.event_requests import Wanted, id_of, wanted
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.feeds import Cursor, Feed, Place, Told
from kitemesh_gateway.outflow import TICK_S, Outflow
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.metrics import FEED_READERS

READERS_MAX: Final = 256
"""Of one tenant, at one gateway."""
CHECK_S: Final = 3.0
"""How often a reader's key is looked at again: a stream without an end must not outlive it."""
RETRY_MS: Final = 500
RETRY_SPREAD_MS: Final = 3_000
GAP: Final = b'data: {"type":"events.gap"}\n\n'

log: Final = structlog.get_logger()


class _Reader:
    """A connected reader.

    Attributes:
        principal: Whose news it is told.
        wanted: Which of them.
        quiet_s: Since when nothing was said.

    """

    __slots__ = ("outflow", "principal", "quiet_s", "response", "wanted", "writer")

    def __init__(
        self, request: web.BaseRequest, response: web.StreamResponse, principal: Principal, wanted: Wanted
    ) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        self.response: Final = response
        self.writer: Final = request.writer
        self.outflow: Final = Outflow(transport)
        self.principal = principal
        self.wanted: Final = wanted
        self.quiet_s = 0.0

    def rendered(self, found: Sequence[Told]) -> bytes:
        """Return the events of what it may and wants to know."""
        return b"".join(
            b"id: %b\ndata: %b\n\n" % (id_of(told.place), told.data)
            for told in found
            if told.item is not None and self.wanted.includes(told.item, self.principal)
        )

    def tick(self, now_s: float, patience_s: float) -> None:
        """Cut it if it does not read."""
        outflow = self.outflow
        if not outflow.transport.is_closing():
            outflow.written = self.writer.output_size
            if outflow.is_overdue(now_s, patience_s):
                outflow.cut("slow_client")


class Events:
    """Answers readers of feeds.

    Args:
        authenticator: Says who asks, once more as long as the stream is open.
        bus: Has the feeds.
        clock: Time.
        ping_s: Longest silence.
        patience_s: Longest time that a byte may wait for its reader.

    """

    def __init__(
        self, authenticator: Authenticator, bus: Bus, clock: Clock, *, ping_s: float, patience_s: float
    ) -> None:
        self._authenticator: Final = authenticator
        self._bus: Final = bus
        self._clock: Final = clock
        self._ping_s: Final = ping_s
        self._patience_s: Final = patience_s
        self._feeds: dict[str, tuple[Feed, int]] = {}
        self._readers: set[_Reader] = set()
        self._following: dict[Feed, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._is_stopping = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Follow the feeds that are read and cut readers who are not there, for ever; end all when told to stop."""
        self._bus.on_reconnect(self._on_reconnect)
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self._stop(stopping), name="feed-drain")
            while True:
                await asyncio.sleep(TICK_S)
                now_s = self._clock.monotonic()
                for reader in tuple(self._readers):
                    reader.tick(now_s, self._patience_s)

    async def handle(self, exchange: Exchange) -> web.StreamResponse:
        """Tell news until the reader leaves, or loses its key.

        Raises:
            Mistakes: The query or `Last-Event-ID` is not one.
            KitemeshError: The key lacks the scope of a type that was asked for (`permission.denied`).
            Busy: The tenant has too many readers here.
            Unavailable: The bus does not answer.

        """
        principal = await self._identify(exchange)
        request = exchange.request
        asked = wanted(request.query.getall("types", []), request.headers.get(LAST_EVENT_ID), principal)
        feed = await self._join(principal.tenant)
        try:
            return await self._serve(exchange, feed, principal, asked)
        finally:
            await self._leave(feed)

    async def _serve(self, exchange: Exchange, feed: Feed, principal: Principal, asked: Wanted) -> web.StreamResponse:
        request = exchange.request
        cursor = feed.cursor(asked.after)
        feed.cursors.add(cursor)
        response = web.StreamResponse(headers=exchange.headers(SSE_HEADERS))
        if request.version >= HttpVersion11:
            response.enable_chunked_encoding()
        else:
            response.force_close()
        await response.prepare(request)
        reader = _Reader(request, response, principal, asked)
        self._readers.add(reader)
        FEED_READERS.inc()
        try:
            await self._tell(exchange, feed, cursor, reader)
        finally:
            FEED_READERS.dec()
            self._readers.discard(reader)
            feed.cursors.discard(cursor)
        # What was sent has an end, and the connection should have one, too: another gateway takes the next request.
        response.force_close()
        return response

    async def _tell(self, exchange: Exchange, feed: Feed, cursor: Cursor, reader: _Reader) -> None:
        checked_s = self._clock.monotonic()
        # A reader that is told nothing yet has a place to go on from all the same.
        await self._write(reader, _ping(cursor.place))
        while not self._is_stopping:
            cursor.changed.clear()
            told = feed.waiting(cursor)
            found = told if told is not None else await self._catch_up(feed, cursor, reader)
            now_s = self._clock.monotonic()
            if now_s >= checked_s + CHECK_S:
                checked_s = now_s
                if not await self._may_go_on(exchange, reader):
                    return
            if data := reader.rendered(found):
                await self._write(reader, data)
            elif now_s >= reader.quiet_s + self._ping_s - CHECK_S:
                await self._write(reader, _ping(cursor.place))
            if told is not None and not found:
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(CHECK_S, self._ping_s / 2)):
                        await cursor.changed.wait()
        retry_ms = RETRY_MS + zlib.crc32(exchange.request_id.encode()) % RETRY_SPREAD_MS
        await self._write(reader, b"retry: %d\n\n" % retry_ms)

    async def _catch_up(self, feed: Feed, cursor: Cursor, reader: _Reader) -> Sequence[Told]:
        try:
            found = await feed.catch_up(cursor)
        except Unavailable as exc:
            log.warning("feed.not_read", code=exc.code)
            await asyncio.sleep(CHECK_S)
            return ()
        if found is None:
            await self._write(reader, GAP)
            return ()
        return found

    async def _write(self, reader: _Reader, data: bytes) -> None:
        reader.quiet_s = self._clock.monotonic()
        await reader.response.write(data)

    async def _may_go_on(self, exchange: Exchange, reader: _Reader) -> bool:
        """Look at the reader's key again; one that cannot be looked at counts as before."""
        try:
            principal = await self._identify(exchange)
            reader.wanted.check(principal)
        except Unavailable:
            return True
        except KitemeshError as exc:
            log.info("feed.refused", request=exchange.request_id, code=exc.code)
            return False
        reader.principal = principal
        return True

    async def _identify(self, exchange: Exchange) -> Principal:
        authorization = exchange.request.headers.getall("Authorization", ())
        exchange.principal = principal = await self._authenticator.identify(authorization, exchange.peer)
        return principal

    async def _join(self, tenant: str) -> Feed:
        feed, readers = self._feeds.get(tenant) or (Feed(self._bus, self._clock, tenant), 0)
        if readers >= READERS_MAX:
            raise Busy(ErrorCode.QUEUE_FULL, "Too many readers of this tenant's events", retry_after_s=1)
        self._feeds[tenant] = feed, readers + 1
        try:
            await feed.open()
        except BaseException:
            await self._leave(feed)
            raise
        if feed not in self._following:
            assert self._tasks is not None  # noqa: S101  it runs before anything is served
            self._following[feed] = self._tasks.create_task(feed.run(), name="feed")
        return feed

    async def _leave(self, feed: Feed) -> None:
        _, readers = self._feeds[feed.tenant]
        if readers > 1:
            self._feeds[feed.tenant] = feed, readers - 1
            return
        del self._feeds[feed.tenant]
        following = self._following.pop(feed, None)
        if following is not None:
            following.cancel()
        await feed.close()

    async def _stop(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._is_stopping = True
        for feed, _ in self._feeds.values():
            for cursor in feed.cursors:
                cursor.changed.set()

    def _on_reconnect(self) -> None:
        for feed, _ in self._feeds.values():
            feed.doubt()


def _ping(place: Place) -> bytes:
    """Return an event without data: clients do not show it, and note its id."""
    return b": ping\nid: %b\n\n" % id_of(place)
