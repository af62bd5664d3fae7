"""One session with one MCP server: opened when first needed, shared by all calls, opened again after it broke.

Each of its lives is entered, kept and left by one task of its own, as the SDK's cancel scopes demand.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final

import structlog
from mcp import MCPError
from mcp.types import CONNECTION_CLOSED, INVALID_PARAMS, METHOD_NOT_FOUND, CallToolResult

from kitemesh_contracts.errors import ErrorCode
from kitemesh_tool_executor.egress import SENDING
from kitemesh_tool_executor.mcp_life import Life
from kitemesh_tool_executor.mcp_sending import McpSending, Streams
from kitemesh_tool_executor.tool import Call, CallFailed

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
MAX_REFUSAL_CHARACTERS: Final = 500

# Other codes are the SDK's own, for what it met on the way, and so are their words.
_SPOKEN: Final = frozenset({INVALID_PARAMS, METHOD_NOT_FOUND})

log: Final = structlog.get_logger()


class McpSession:
    """The session with a server.

    Args:
        name: The server's, for the log.
        connect: Returns a way to the server, to be entered once.
        why: Says why connecting failed, as far as the way to the server knows.
        connect_timeout_s: Of opening it and listing its tools.

    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], AbstractAsyncContextManager[Streams]],
        why: Callable[[], CallFailed | None],
        connect_timeout_s: float,
    ) -> None:
        self._name: Final = name
        self._connect: Final = connect
        self._why: Final = why
        self._timeout_s: Final = connect_timeout_s
        self._life: Life | None = None
        self._lives: Final[set[asyncio.Task[None]]] = set()
        self._failures = 0
        self._not_before_s = 0.0

    async def call(self, tool: str, wanted: str, arguments: dict[str, Any], call: Call) -> CallToolResult:
        """Run a tool of the server's once.

        Args:
            tool: Its name there.
            wanted: The pin that it must have.
            arguments: Decoded JSON.
            call: Who asks.

        Raises:
            CallFailed: There is no result, or the tool is not the one that was pinned.

        """
        sending = McpSending(call)
        try:
            async with asyncio.timeout(call.timeout_s):
                return await self._call(tool, wanted, arguments, sending)
        except TimeoutError as exc:
            message = "The tool took too long"
            raise CallFailed(ErrorCode.TOOL_TIMEOUT, message, sent=sending.sent, again=True) from exc

    async def _call(self, tool: str, wanted: str, arguments: dict[str, Any], sending: McpSending) -> CallToolResult:
        life = await self._open()
        with life:
            try:
                await life.refresh()
            except CallFailed:
                self.retire(life)
                raise
            if life.pins.get(tool) != wanted:
                log.warning("mcp.tool_changed", server=self._name, tool=tool, listed=tool in life.pins)
                raise CallFailed(
                    ErrorCode.TOOL_CHANGED,
                    "The tool's definition changed at its server and awaits acceptance",
                    sent=False,
                )
            return await self._run(life, tool, arguments, sending)

    async def _run(self, life: Life, tool: str, arguments: dict[str, Any], sending: McpSending) -> CallToolResult:
        token = SENDING.set(sending)
        meta: Any = {"kitemesh/execution-id": sending.call.id}
        try:
            result = await life.client.session.call_tool(tool, arguments, meta=meta)
        except MCPError as exc:
            if exc.code == CONNECTION_CLOSED or sending.gone:
                self.retire(life)
            raise _failure(exc, sending) from exc
        except RuntimeError as exc:
            # The SDK's word for a result that does not fit the tool's own schema, or that asks us something.
            message = "The tool's answer does not fit its schema"
            raise CallFailed(ErrorCode.TOOL_FAILED, message, sent=True, answered=True) from exc
        except ValueError as exc:
            raise CallFailed(ErrorCode.TOOL_FAILED, "The tool's answer is not MCP", sent=True) from exc
        except BaseException:
            sending.abandon()
            raise
        finally:
            SENDING.reset(token)
        return result

    def retire(self, life: Life | None = None) -> None:
        """End the session, or that life of it, once the calls on it have ended; the next call opens another."""
        current = self._life
        if current is not None and life in (None, current):
            current.retire()
            self._life = None

    async def close(self) -> None:
        """End the session now."""
        self.retire()
        for task in self._lives:
            task.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)

    async def _open(self) -> Life:
        if self._life is None or self._life.over:
            wait_s = self._not_before_s - asyncio.get_running_loop().time()
            if wait_s > 0:
                raise self._refused(wait_s)
            life = self._life = Life(self._connect())
            task = asyncio.create_task(self._live(life), name=f"mcp-{self._name}")
            self._lives.add(task)
            task.add_done_callback(self._lives.discard)
        life = self._life
        await asyncio.shield(life.opened)
        return life

    async def _live(self, life: Life) -> None:
        """Be the task that enters a session, keeps it and leaves it."""
        SENDING.set(None)
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(self._timeout_s):
                    await life.enter(stack)
                    await life.refresh()
                self._failures = 0
                log.info("mcp.opened", server=self._name, tools=len(life.pins), version=life.client.protocol_version)
                life.opened.set_result(None)
                await life.keep()
        except Exception as exc:  # noqa: BLE001  whatever broke it, it is over
            # A session that broke is opened again by the next call; its pending calls are told by the SDK.
            reasons = sorted(_reasons(exc))
            log.warning("mcp.broke", server=self._name, reasons=reasons)
        finally:
            self._end(life)

    def _end(self, life: Life) -> None:
        life.over = True
        if self._life is life:
            self._life = None
        if life.opened.done():
            return
        pause_s = min(FIRST_PAUSE_S * 2.0**self._failures, LONGEST_PAUSE_S)
        self._failures += 1
        self._not_before_s = asyncio.get_running_loop().time() + pause_s
        life.opened.set_exception(self._refused(pause_s))
        # Whoever waits for it sees it; perhaps nobody does any more.
        life.opened.exception()

    def _refused(self, retry_after_s: float) -> CallFailed:
        why = self._why() or unreachable()
        after = retry_after_s if why.again else None
        return CallFailed(why.code, why.message, sent=False, again=why.again, retry_after_s=after)


def _reasons(error: BaseException) -> set[str]:
    """Name the errors in a group of them; their words are a server's."""
    if isinstance(error, BaseExceptionGroup):
        return {name for each in error.exceptions for name in _reasons(each)}
    return {type(error).__name__}


def unreachable() -> CallFailed:
    """Return the failure of a call that was not sent."""
    return CallFailed(ErrorCode.TOOL_FAILED, "The tool could not be reached", sent=False, again=True)


def _failure(error: MCPError, sending: McpSending) -> CallFailed:
    if sending.gone:
        return unreachable()
    if error.code in _SPOKEN:
        words = f"The tool's server refused the call: {error.message[:MAX_REFUSAL_CHARACTERS]}"
        return CallFailed(ErrorCode.TOOL_FAILED, words, sent=True, answered=True)
    if sending.failed is not None:
        return sending.failed
    if not sending.sent:
        return unreachable()
    if error.code == CONNECTION_CLOSED:
        return CallFailed(ErrorCode.TOOL_FAILED, "The tool broke off", sent=True, again=True)
    return CallFailed(ErrorCode.TOOL_FAILED, "The tool's server could not run the call", sent=True)
