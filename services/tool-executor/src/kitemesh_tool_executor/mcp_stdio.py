"""How an MCP session reaches its server by the pipes of a child process, started by the operator's own command."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from mcp.client.stdio import StdioServerParameters, get_default_environment, stdio_client
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCRequest

from kitemesh_runtime.failpoints import reach
from kitemesh_tool_executor.egress import SENDING
from kitemesh_tool_executor.mcp_sending import CALL, Streams


@asynccontextmanager
async def stdio_transport(
    command: tuple[str, ...], environment: dict[str, str], folder: Path | None
) -> AsyncIterator[Streams]:
    """Run a server as a child, whose environment is what is given and the path to programs.

    What it writes to its standard error is its own, and not a log of ours.
    """
    # The SDK adds some variables of ours and cannot be told not to.
    added = sorted(get_default_environment().keys() - environment.keys() - {"PATH"})
    unset = [part for name in added for part in ("-u", name)]
    parameters = StdioServerParameters(command="env", args=[*unset, *command], env=environment, cwd=folder)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:  # noqa: ASYNC230  the null device never blocks
        async with stdio_client(parameters, errlog=nowhere) as (incoming, outgoing):
            yield incoming, _Outgoing(outgoing)


class _Outgoing:
    """Notes which call was sent; one write after another, to a pipe."""

    def __init__(self, stream: Any) -> None:
        self._stream: Final = stream

    async def send(self, item: SessionMessage) -> None:
        sending = SENDING.get()
        if sending is None or not isinstance(item.message, JSONRPCRequest) or item.message.method != CALL:
            await self._stream.send(item)
            return
        sending.sent = True
        await self._stream.send(item)
        # The task that writes to the pipe has the message, and its turn comes first.
        await asyncio.sleep(0)
        await reach("tool.after_send")

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stream.__aexit__(kind, error, trace)
