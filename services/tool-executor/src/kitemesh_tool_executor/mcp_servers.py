"""From the catalog's definition of an MCP server to its session: by URL through the guard, or by a command."""

import logging
import os
from contextlib import AbstractAsyncContextManager
from typing import Final

from kitemesh_runtime.catalog_tools import McpServer
from kitemesh_tool_executor.credentials import fill_headers, not_configured, read
from kitemesh_tool_executor.egress import Egress
from kitemesh_tool_executor.mcp_http import GuardedTransport, http_transport
from kitemesh_tool_executor.mcp_sending import Streams
from kitemesh_tool_executor.mcp_sessions import McpSession
from kitemesh_tool_executor.mcp_stdio import stdio_transport
from kitemesh_tool_executor.tool import CallFailed
from kitemesh_tool_executor.tool_http import read_template

# The SDK logs what servers send, with the traceback of every error of theirs. What matters is logged here.
for _name in ("client", "httpx2", "mcp"):
    logging.getLogger(_name).addHandler(logging.NullHandler())
    logging.getLogger(_name).propagate = False


def open_session(name: str, server: McpServer, egress: Egress) -> McpSession:
    """Return the session with a server; nothing is connected yet."""
    place = f"mcp_servers.{name}"
    way = _Command(place, server) if server.url is None else _Url(place, server, server.url, egress)
    return McpSession(name, way.connect, way.why, server.connect_timeout_s)


class _Url:
    def __init__(self, place: str, server: McpServer, url: str, egress: Egress) -> None:
        self._place: Final = place
        self._server: Final = server
        self._template: Final = read_template(place, url)
        self._url: Final = url
        self._egress: Final = egress
        self._transport: GuardedTransport | None = None

    def connect(self) -> AbstractAsyncContextManager[Streams]:
        if self._template is None or "{{" in self._url:
            raise not_configured()
        session = self._egress.session(self._server.allow_networks, plain=self._template.plain)
        self._transport = GuardedTransport(session, self._headers)
        return http_transport(self._url, self._transport)

    def why(self) -> CallFailed | None:
        return self._transport.failed if self._transport else None

    def _headers(self) -> dict[str, str]:
        return fill_headers(f"{self._place}.headers", self._server.headers)


class _Command:
    def __init__(self, place: str, server: McpServer) -> None:
        self._place: Final = place
        self._server: Final = server

    def connect(self) -> AbstractAsyncContextManager[Streams]:
        # A program with this sign in its name would be taken for a variable.
        if "=" in self._server.command[0]:
            raise not_configured()
        place = f"{self._place}.environment"
        named = {name: read(f"{place}.{name}", value) for name, value in self._server.environment.items()}
        path = {"PATH": os.environ.get("PATH", os.defpath)}
        return stdio_transport(self._server.command, path | named, self._server.working_directory)

    def why(self) -> CallFailed | None:
        return None
