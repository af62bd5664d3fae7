"""Tools of MCP servers, each pinned to what the catalog says of it.

The SDK takes a second to load and much memory, so that happens with the first definition that needs it.
"""

import asyncio
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import msgspec
from aiohttp.abc import AbstractResolver

from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.catalog_tools import McpServer, McpTool
from kitemesh_runtime.mcp_pins import pin
from kitemesh_tool_executor.egress import Egress
from kitemesh_tool_executor.tool import Call, Tool

if TYPE_CHECKING:
    from kitemesh_tool_executor.mcp_sessions import McpSession


class McpKind(AbstractAsyncContextManager["McpKind"]):
    """Makes tools of MCP definitions and owns the sessions with their servers.

    Args:
        resolver: Resolves names; the system's resolver when absent.

    """

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        self._egress: Final = Egress(resolver)
        self._sessions: Final[dict[str, tuple[McpServer, McpSession]]] = {}
        self._replaced: Final[list[McpSession]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sessions = [*self._replaced, *(session for _, session in self._sessions.values())]
        await asyncio.gather(*(each.close() for each in sessions))
        await self._egress.__aexit__(kind, error, trace)

    def tool(self, name: str, catalog: Catalog) -> Tool:
        """Return the tool of that name."""
        definition = catalog.tools[name]
        if not isinstance(definition, McpTool):
            raise TypeError(f"tools.{name} is of kind {definition.kind}")
        session = self._session(definition.server, catalog.mcp_servers[definition.server])
        return McpServerTool(definition.tool or name, definition, session)

    def _session(self, name: str, server: McpServer) -> "McpSession":
        known = self._sessions.get(name)
        if known is not None:
            if known[0] == server:
                return known[1]
            known[1].retire()
            self._replaced.append(known[1])
        from kitemesh_tool_executor.mcp_servers import open_session  # noqa: PLC0415  see above

        session = open_session(name, server, self._egress)
        self._sessions[name] = (server, session)
        return session


class McpServerTool:
    """One definition."""

    def __init__(self, name: str, definition: McpTool, session: "McpSession") -> None:
        self._name: Final = name
        self._definition: Final = definition
        self._session: Final = session
        self._pin: Final = pin(name, definition.description, definition.parameters)

    async def run(self, call: Call) -> str:
        """Call the tool once."""
        from kitemesh_tool_executor.mcp_answer import read_result  # noqa: PLC0415  see above

        arguments = msgspec.json.decode(call.arguments)
        result = await self._session.call(self._name, self._pin, arguments, call)
        return read_result(result, max_bytes=self._definition.max_result_bytes)
