"""The only way out: HTTP sessions that connect to nothing but allowed addresses.

The guard sits where a socket is made, so the address that was judged is the address that is connected to, whatever
a name resolves to the next time. No redirect, proxy, cookie or second try happens here by itself.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from importlib.metadata import version
from types import SimpleNamespace, TracebackType
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.connector import AddrInfoType, Connection

from kitemesh_runtime.failpoints import reach
from kitemesh_tool_executor.addresses import Network, is_allowed, is_within

USER_AGENT: Final = f"kitemesh/{version('kitemesh-tool-executor')}"

# Shorter than the 5 s after which common servers close an idle connection: a request must not meet a closing one,
# for nobody could tell whether it had its effect.
_IDLE_S: Final = 4.0
_CONNECT_S: Final = 10.0
TIMES: Final = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)


class Blocked(PermissionError):
    """The address is not allowed; no packet was sent to it."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "the address is not allowed")


class Broken(Exception):
    """A connection broke while a request was on it; it was not repeated."""


class Sending:
    """What became of one tool's request.

    Attributes:
        sent: Its first byte may have left.

    """

    __slots__ = ("sent",)

    def __init__(self) -> None:
        self.sent = False


SENDING: Final[ContextVar[Sending | None]] = ContextVar("sending", default=None)
"""The tool call whose request is made in this context; `None` for requests that are no tool's."""


class Egress(AbstractAsyncContextManager["Egress"]):
    """Owns the sessions: one for each set of allowed networks, so that nothing is shared between two of them.

    Args:
        resolver: Resolves names; the system's resolver when absent.

    """

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        self._resolver: Final = resolver
        self._sessions: Final[dict[tuple[frozenset[Network], bool], aiohttp.ClientSession]] = {}

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        while self._sessions:
            _, session = self._sessions.popitem()
            await session.close()

    async def __aenter__(self) -> Self:
        return self

    def session(self, networks: tuple[Network, ...], *, plain: bool) -> aiohttp.ClientSession:
        """Return the session for definitions that allow these networks.

        Args:
            networks: Allowed besides public addresses.
            plain: For `http://`, which may only go to the networks, never to a public address.

        """
        key = (frozenset(networks), plain)
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = _open(networks, plain, self._resolver)
        return session


def _open(networks: tuple[Network, ...], plain: bool, resolver: AbstractResolver | None) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_note_sent)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=_IDLE_S,
            resolver=resolver,
            socket_factory=guard(networks, plain=plain),
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        timeout=TIMES,
        trace_configs=[trace],
        middlewares=(_send_once,),
        response_class=_Response,
    )


def guard(networks: tuple[Network, ...], *, plain: bool) -> Callable[[AddrInfoType], socket.socket]:
    """Return the maker of sockets that refuses addresses: it is asked before each attempt to connect."""
    allowed = is_within if plain else is_allowed

    def make(info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if not allowed(str(address[0]), networks):
            raise Blocked
        return socket.socket(family=family, type=kind, proto=protocol)

    return make


async def _note_sent(_: aiohttp.ClientSession, __: SimpleNamespace, ___: aiohttp.TraceRequestHeadersSentParams) -> None:
    # Called with the connection made, right before the first byte is written.
    sending = SENDING.get()
    if sending is not None:
        sending.sent = True


async def _send_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    try:
        return await send(request)
    except (aiohttp.ClientConnectorError, TimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as exc:
        # aiohttp would send a PUT or a DELETE again; by another name the error passes, and the request stays one.
        raise Broken from exc


class _Response(aiohttp.ClientResponse):
    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        if SENDING.get() is not None:
            # A body is written by a task of its own, whose turn comes first.
            await asyncio.sleep(0)
            await reach("tool.after_send")
        return await super().start(connection)
