"""What is known of a request while an MCP session carries it, shared by both ways to a server.

The SDK sends each request from a task of its own, but in the context of whoever asked, so `SENDING` tells a tool's
call from the session's own traffic.
"""

import asyncio
from typing import Any, Final

import aiohttp

from kitemesh_tool_executor.egress import Sending
from kitemesh_tool_executor.tool import Call, CallFailed

CALL: Final = "tools/call"

Streams = Any
"""A pair of streams; the SDK's type of it is private."""


class McpSending(Sending):
    """What became of one tool's request.

    Attributes:
        failed: Why there is no answer, as far as the transport knows.
        gone: The server no longer knows the session, so it ran nothing.

    """

    __slots__ = ("_limit", "_response", "call", "failed", "gone")

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call: Final = call
        self.failed: CallFailed | None = None
        self.gone = False
        self._limit: asyncio.Timeout | None = None
        self._response: aiohttp.ClientResponse | None = None

    def hold(self, limit: asyncio.Timeout | None, response: aiohttp.ClientResponse | None) -> None:
        """Remember what `abandon` ends."""
        self._limit, self._response = limit, response

    def abandon(self) -> None:
        """End the request, of which nobody wants the answer any more; by itself the SDK might wait for ever."""
        if self._response is not None:
            self._response.close()
        elif self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())
