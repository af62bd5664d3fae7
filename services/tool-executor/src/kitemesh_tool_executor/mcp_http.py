"""How an MCP session reaches its server by HTTP: every request of the SDK's goes through the egress guard.

A request that fails is noted where its call is, and the session itself outlives it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import aiohttp
import httpx2
import msgspec
from mcp.client.streamable_http import streamable_http_client
from yarl import URL

from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.headers import IDEMPOTENCY_KEY
from kitemesh_tool_executor.egress import SENDING, Broken
from kitemesh_tool_executor.http_answer import refusal
from kitemesh_tool_executor.http_exchange import failure
from kitemesh_tool_executor.mcp_sending import CALL, McpSending, Streams
from kitemesh_tool_executor.tool import CallFailed
from kitemesh_tool_executor.tool_http import CALL_ID

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""Of one message of a server: a result of the largest size, escaped, once as text and once structured."""

_LISTEN: Final = "subscriptions/listen"
_OWN_S: Final = 30.0
# The SDK waits for a notice to be taken before it sends anything else.
_NOTICE_S: Final = 5.0
_REST_S: Final = 0.2
_KEPT: Final = frozenset({"accept", "cache-control", "content-type", "last-event-id"})
_REDIRECT: Final = range(300, 400)
_ERRORS: Final = 400
_NOT_FOUND: Final = 404


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Carries the SDK's HTTP requests through a guarded session.

    A request that fails is answered with an error instead of an exception, which would end the whole session.

    Args:
        session: Connects to allowed addresses only.
        headers: Returns the definition's, anew for each request.

    Attributes:
        failed: Why the last request of the session's own failed; `None` when it did not.

    """

    def __init__(self, session: aiohttp.ClientSession, headers: Callable[[], dict[str, str]]) -> None:
        self._session: Final = session
        self._headers: Final = headers
        self.failed: CallFailed | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request."""
        method, asks = _peek(await request.aread())
        found = SENDING.get()
        sending = found if method == CALL and isinstance(found, McpSending) else None
        token = SENDING.set(sending)
        try:
            return await self._send(request, sending, _limit_s(request.method, method, asks=asks))
        except CallFailed as exc:
            if sending is not None:
                sending.failed = exc
            else:
                self.failed = exc
            error = {"code": -32000, "message": exc.message}
            return httpx2.Response(502, json={"jsonrpc": "2.0", "id": None, "error": error})
        finally:
            SENDING.reset(token)

    async def _send(
        self, request: httpx2.Request, sending: McpSending | None, limit_s: float | None
    ) -> httpx2.Response:
        headers = {name: value for name, value in request.headers.items() if _travels(name)} | self._headers()
        if sending is not None:
            headers[CALL_ID] = sending.call.id
            if sending.call.effect != "safe":
                headers[IDEMPOTENCY_KEY] = sending.call.id
        try:
            async with asyncio.timeout(limit_s) as limit:
                if sending is not None:
                    sending.hold(limit, None)
                response = await self._session.request(
                    request.method,
                    URL(str(request.url), encoded=True),
                    headers=headers,
                    data=request.content or None,
                    allow_redirects=False,
                )
        except (aiohttp.ClientError, Broken, TimeoutError) as exc:
            raise failure(exc, sent=sending is not None and sending.sent) from exc
        if sending is not None:
            sending.hold(None, response)
            sending.gone = response.status == _NOT_FOUND and "mcp-session-id" in request.headers
            if response.status >= _ERRORS:
                sending.failed = refusal(response.status, response.headers, b"")
        if response.status in _REDIRECT or response.headers.get("Content-Encoding", "identity") != "identity":
            response.close()
            raise refusal(response.status, {}, b"")
        if sending is None:
            self.failed = None
        media_type = response.headers.get("Content-Type", "")
        kept = {name: response.headers[name] for name in ("mcp-session-id", "content-type") if name in response.headers}
        body = _Body(response, None if media_type.startswith("text/event-stream") else MAX_MESSAGE_BYTES, sending)
        return httpx2.Response(response.status, headers=kept, stream=body)


class _Body(httpx2.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse, max_bytes: int | None, sending: McpSending | None) -> None:
        self._response: Final = response
        self._max_bytes: Final = max_bytes
        self._sending: Final = sending

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = 0
        try:
            async for chunk in self._response.content.iter_any():
                seen += len(chunk)
                if self._max_bytes is not None and seen > self._max_bytes:
                    raise self._fail(CallFailed(ErrorCode.TOOL_FAILED, "The tool's answer is too large", sent=True))
                yield chunk
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise self._fail(failure(exc, sent=True)) from exc

    def _fail(self, failed: CallFailed) -> httpx2.StreamError:
        if self._sending is not None:
            self._sending.failed = failed
        # The one kind that the SDK takes for the end of one answer, and not of the session.
        return httpx2.StreamError(failed.message)

    async def aclose(self) -> None:
        try:
            if self._sending is not None:
                # The SDK stops at the result; read to the end, the connection serves the next call.
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with asyncio.timeout(_REST_S):
                        while await self._response.content.readany():
                            pass
        finally:
            self._response.close()


class _Message(msgspec.Struct):
    method: str = ""
    id: int | str | None = None


def _peek(content: bytes) -> tuple[str, bool]:
    """Return a message's method, and whether it asks for an answer."""
    if not content:
        return "", True
    message = msgspec.json.decode(content, type=_Message)
    return message.method, message.id is not None


def _limit_s(verb: str, method: str, *, asks: bool) -> float | None:
    if method in {CALL, _LISTEN} or verb == "GET":
        # A call is abandoned by its caller; the others last.
        return None
    return _OWN_S if asks else _NOTICE_S


def _travels(name: str) -> bool:
    return name in _KEPT or name.startswith("mcp-")


@asynccontextmanager
async def http_transport(url: str, transport: GuardedTransport) -> AsyncIterator[Streams]:
    """Reach a server by streamable HTTP."""
    async with (
        httpx2.AsyncClient(transport=transport, trust_env=False, timeout=None) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=MAX_MESSAGE_BYTES) as streams,
    ):
        yield streams
