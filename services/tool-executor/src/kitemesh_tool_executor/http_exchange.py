"""One HTTP request of one tool call, and its answer, or the reason why there is none.

It does not know what the request means, and it never repeats one.
"""

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple

import aiohttp
from yarl import URL

from kitemesh_contracts.errors import ErrorCode
from kitemesh_tool_executor.egress import SENDING, Blocked, Broken, Sending
from kitemesh_tool_executor.http_answer import is_success
from kitemesh_tool_executor.tool import CallFailed

_MAX_REFUSAL_BYTES: Final = 16 * 1024


class Answer(NamedTuple):
    """What came back; of an answer that is no success, at most the beginning of its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def exchange(
    session: aiohttp.ClientSession,
    method: str,
    url: URL,
    *,
    headers: Mapping[str, str],
    body: bytes | None,
    timeout_s: float,
    max_bytes: int | None,
) -> Answer:
    """Send a request once and read the answer to its end; not at all when `max_bytes` is `None`.

    Raises:
        CallFailed: There is no answer, or a successful one is larger than `max_bytes`.

    """
    sending = Sending()
    token = SENDING.set(sending)
    try:
        async with (
            asyncio.timeout(timeout_s),
            session.request(method, url, headers=headers, data=body, allow_redirects=False) as response,
        ):
            return Answer(response.status, response.headers, await _read(response, max_bytes))
    except (aiohttp.ClientError, Broken, TimeoutError) as exc:
        raise failure(exc, sent=sending.sent) from exc
    finally:
        SENDING.reset(token)


async def _read(response: aiohttp.ClientResponse, max_bytes: int | None) -> bytes:
    if max_bytes is None:
        return b""
    success = is_success(response.status)
    limit = max_bytes if success else _MAX_REFUSAL_BYTES
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > limit:
            # What is left is not read: the connection is closed with the answer.
            response.close()
            if success:
                raise CallFailed(ErrorCode.TOOL_FAILED, "The tool's answer is too large", sent=True, answered=True)
            break
    return bytes(data[:limit])


def failure(exc: Exception, *, sent: bool) -> CallFailed:
    """Translate what aiohttp and the guard raise."""
    if isinstance(exc, aiohttp.ClientConnectorError) and isinstance(exc.os_error, Blocked):
        return CallFailed(ErrorCode.TOOL_BLOCKED, "The tool's address is not allowed", sent=False)
    if isinstance(exc, aiohttp.InvalidURL):
        # An IPv4 address in one of its odd spellings is no URL to aiohttp.
        return CallFailed(ErrorCode.TOOL_BLOCKED, "The tool's address is not allowed", sent=False)
    if isinstance(exc, aiohttp.ClientSSLError):
        return CallFailed(ErrorCode.TOOL_FAILED, "The tool could not prove who it is", sent=False)
    if isinstance(exc, TimeoutError):
        return CallFailed(ErrorCode.TOOL_TIMEOUT, "The tool took too long", sent=sent, again=True)
    if not sent:
        return CallFailed(ErrorCode.TOOL_FAILED, "The tool could not be reached", sent=False, again=True)
    return CallFailed(ErrorCode.TOOL_FAILED, "The tool broke off", sent=True, again=True)
