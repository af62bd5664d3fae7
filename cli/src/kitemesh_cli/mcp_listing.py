"""Asks an MCP server what it offers, in the way in which the tool-executor will call it. Loads the SDK."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from mcp.client.client import Client
from mcp.types import PaginatedRequestParams

from kitemesh_cli.failures import Failed
from kitemesh_cli.mcp_offers import Offer
from kitemesh_contracts.errors import KitemeshError
from kitemesh_runtime.catalog_tools import McpServer
from kitemesh_runtime.one_line import one_line
from kitemesh_tool_executor.credentials import fill_headers, read
from kitemesh_tool_executor.egress import Egress
from kitemesh_tool_executor.mcp_http import GuardedTransport, http_transport
from kitemesh_tool_executor.mcp_stdio import stdio_transport

MAX_PAGES: Final = 100


async def list_offers(name: str, server: McpServer) -> list[Offer]:
    """Return the tools of a server.

    Raises:
        Failed: It cannot be asked.

    """
    try:
        async with (
            asyncio.timeout(server.connect_timeout_s),
            _transport(name, server) as streams,
            Client(streams, cache=None) as client,
        ):
            return await _list(client)
    except TimeoutError as exc:
        raise Failed(f"MCP server {name} did not answer within {server.connect_timeout_s:.0f} s") from exc
    except Failed:
        raise
    except Exception as exc:
        # The SDK raises groups of groups; what is at their bottom says most.
        reason = one_line(_bottom(exc))
        raise Failed(f"MCP server {name} cannot be asked: {reason}") from exc


async def _list(client: Client) -> list[Offer]:
    offers: list[Offer] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await client.session.list_tools(params=PaginatedRequestParams(cursor=cursor))
        offers += [Offer(each.name, each.description or "", each.input_schema) for each in page.tools]
        cursor = page.next_cursor
        if cursor is None:
            return offers
    raise Failed("the list of tools has no end")


@asynccontextmanager
async def _transport(name: str, server: McpServer) -> AsyncIterator[Any]:
    place = f"mcp_servers.{name}"
    if server.url is None:
        named = {each: read(f"{place}.environment.{each}", value) for each, value in server.environment.items()}
        path = {"PATH": os.environ.get("PATH", os.defpath)}
        yield stdio_transport(server.command, path | named, server.working_directory)
        return
    async with Egress() as egress:
        session = egress.session(server.allow_networks, plain=server.url.startswith("http://"))
        guarded = GuardedTransport(session, lambda: fill_headers(f"{place}.headers", server.headers))
        try:
            yield http_transport(server.url, guarded)
        except Exception as exc:
            if guarded.failed is not None:
                raise guarded.failed from exc
            raise


def _bottom(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, KitemeshError):
        return error.message
    return str(error) or type(error).__name__
