"""One life of a session with an MCP server, from connecting to its end, and the pins of the tools it lists meanwhile.

It knows nothing of the catalog's tools, and does not decide when another life begins.
"""

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Final

import structlog
from mcp import MCPError
from mcp.client.client import Client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.types import Implementation, PaginatedRequestParams, ToolListChangedNotification

from kitemesh_contracts.errors import ErrorCode
from kitemesh_runtime.mcp_pins import pin
from kitemesh_tool_executor.egress import USER_AGENT
from kitemesh_tool_executor.mcp_sending import Streams
from kitemesh_tool_executor.tool import CallFailed

LISTED_S: Final = 60.0
"""After it the tools are listed anew before a call, for not every server says that they changed."""
MAX_PAGES: Final = 100

log: Final = structlog.get_logger()

_NAME, _, _VERSION = USER_AGENT.partition("/")


class Life:
    """One life of a session, from connecting to its end.

    Attributes:
        opened: Done when calls may be made.
        over: No call may be made any more.
        pins: Of the tools that the server lists, by name.

    """

    def __init__(self, transport: AbstractAsyncContextManager[Streams]) -> None:
        self.client: Final = Client(
            transport,
            client_info=Implementation(name=_NAME, version=_VERSION),
            message_handler=self._on_message,
            cache=None,
        )
        self.opened: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()
        self.over = False
        self.pins: dict[str, str] = {}
        self._changes = 0
        self._listed: int | None = None
        self._listed_s = 0.0
        self._listing: Final = asyncio.Lock()
        self._calls = 0
        self._retired = asyncio.Event()

    def __enter__(self) -> None:
        self._calls += 1

    def __exit__(self, *_: object) -> None:
        self._calls -= 1
        if self.over and self._calls == 0:
            self._retired.set()

    def retire(self) -> None:
        """Take no more calls, and end after the last one."""
        self.over = True
        if self._calls == 0:
            self._retired.set()

    async def enter(self, stack: AsyncExitStack) -> None:
        """Connect and agree on a version; by the task that will also leave."""
        await stack.enter_async_context(self.client)

    async def keep(self) -> None:
        """Stay until retired, and hear when the tools change."""
        watching = asyncio.create_task(self._watch())
        try:
            await self._retired.wait()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self) -> None:
        # Versions before 2026-07-28 need no asking: they tell `_on_message`.
        try:
            async with self.client.listen(tools_list_changed=True) as events:
                # Between the listing and this, something may have changed unheard.
                self._changes += 1
                async for _ in events:
                    self._changes += 1
        except (ListenNotSupportedError, SubscriptionLost, MCPError) as exc:
            log.debug("mcp.unwatched", reason=type(exc).__name__)
        self._changes += 1

    async def _on_message(self, message: object) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._changes += 1

    async def refresh(self) -> None:
        """List the tools, unless it was done lately and nothing is known to have changed.

        Raises:
            CallFailed: They cannot be listed.

        """
        async with self._listing:
            now_s = asyncio.get_running_loop().time()
            if self._listed == self._changes and now_s - self._listed_s < LISTED_S:
                return
            changes = self._changes
            try:
                self.pins = await self._list()
            except (MCPError, RuntimeError, ValueError) as exc:
                message = "The tool's server does not list its tools"
                raise CallFailed(ErrorCode.TOOL_FAILED, message, sent=False, again=True) from exc
            self._listed, self._listed_s = changes, now_s

    async def _list(self) -> dict[str, str]:
        pins: dict[str, str] = {}
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await self.client.session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            for each in page.tools:
                try:
                    found = pin(each.name, each.description or "", each.input_schema)
                except ValueError:
                    continue
                # Of two with one name nobody can say which one is meant.
                pins[each.name] = "" if each.name in pins else found
            cursor = page.next_cursor
            if cursor is None:
                return pins
        raise ValueError("the list has no end")
