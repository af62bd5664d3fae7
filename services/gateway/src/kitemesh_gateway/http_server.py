"""The HTTP server: aiohttp's, with bounds on what a connection may cost and our own words for what it cannot read."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import HttpVersion10, HttpVersion11, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import ERROR

from kitemesh_gateway.middleware import Funnel

KEEPALIVE_S: Final = 15.0
"""Also what a client has to send its headers."""
LINGER_S: Final = 3.0
"""How long the rest of a refused body is read, so that the client sees the answer."""
MAX_LINE_BYTES: Final = 8190
MAX_HEADERS: Final = 64
SHUTDOWN_S: Final = 0.5
"""aiohttp takes it twice."""
BACKLOG: Final = 1024
KERNEL_UNSENT_BYTES: Final = 64 * 1024
_SPOKEN: Final = (HttpVersion11, HttpVersion10)
_NOTSENT_LOWAT: Final[int | None] = getattr(socket, "TCP_NOTSENT_LOWAT", None)


class _Connection(web.RequestHandler):
    """A connection whose unreadable requests are refused like any other."""

    __slots__ = ("funnel",)

    funnel: Funnel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection is not None and _NOTSENT_LOWAT is not None:
            # The kernel would take megabytes for a client that does not read, out of sight of whoever watches for it.
            connection.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, KERNEL_UNSENT_BYTES)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status < web.HTTPInternalServerError.status_code:
            return self.funnel.refuse_unreadable(request)
        return super().handle_error(request, status, exc, message)


class _Unreadable(web.BaseRequest):
    """What came instead of a request in a version of HTTP that we speak."""


class _Server(web.Server):
    """Makes our connections and their requests."""

    def __init__(self, funnel: Funnel, **options: Any) -> None:
        super().__init__(self._answer, request_factory=self._request, **options)
        self._funnel = funnel

    def __call__(self) -> web.RequestHandler:
        connection = _Connection(self, loop=self._loop, **self._kwargs)
        connection.funnel = self._funnel
        return connection

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        if message is not ERROR and message.version in _SPOKEN:
            return web.BaseRequest(message, payload, protocol, writer, task, self._loop)
        # An answer goes out in its request's version, and this one has none that we speak.
        message = message._replace(version=HttpVersion11)
        return _Unreadable(message, payload, protocol, writer, task, self._loop)

    def _answer(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        # Hands the coroutine on: one of its own would cost every request.
        return self._refuse(request) if isinstance(request, _Unreadable) else self._funnel.answer(request)

    async def _refuse(self, request: web.BaseRequest) -> web.StreamResponse:
        return self._funnel.refuse_unreadable(request)


@asynccontextmanager
async def serve_http(funnel: Funnel, host: str, port: int) -> AsyncIterator[int]:
    """Serve while inside; yields the port, which was chosen when 0 was asked for."""
    server = _Server(
        funnel,
        loop=asyncio.get_running_loop(),
        handler_cancellation=True,
        keepalive_timeout=KEEPALIVE_S,
        lingering_time=LINGER_S,
        auto_decompress=False,
        access_log=None,
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_LINE_BYTES,
        max_headers=MAX_HEADERS,
    )
    runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=BACKLOG)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
