"""Tools without a cluster: a catalog with one definition, and the tool that a kind makes of it."""

import asyncio
from typing import Any, Final

from pydantic import TypeAdapter

from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.catalog_tools import McpServer, Webhook
from kitemesh_runtime.catalog_tools import Tool as Definition
from kitemesh_runtime.ledger import Effect
from kitemesh_tool_executor.tool import Call, Kind, Tool
from tool_stub import ToolStub

LOOPBACK: Final = ["127.0.0.0/8", "::1/128"]
_DEFINITION: Final[TypeAdapter[Definition]] = TypeAdapter(Definition)


def catalog(
    tools: dict[str, Any] | None = None, servers: dict[str, Any] | None = None, webhooks: dict[str, Any] | None = None
) -> Catalog:
    """Return a catalog of these parts whose references nobody checked: a kind must not rely on that."""
    return Catalog.model_construct(
        tools={name: _DEFINITION.validate_python(each) for name, each in (tools or {}).items()},
        mcp_servers={name: McpServer.model_validate(each) for name, each in (servers or {}).items()},
        webhooks={name: Webhook.model_validate(each) for name, each in (webhooks or {}).items()},
    )


def make(kind: Kind, definition: dict[str, Any]) -> Tool:
    """Return the tool of one definition."""
    return kind.tool("t", catalog(tools={"t": definition}))


def call(
    arguments: str = "{}",
    *,
    id: str = "call-1",  # noqa: A002  it is the field's name
    effect: Effect = "once",
    timeout_s: float = 5.0,
) -> Call:
    """Return a call."""
    return Call(id, "turn-1", "acme", arguments, effect, timeout_s)


async def until_effect(stub: ToolStub, call: str) -> None:
    """Return once the stub's ledger has an effect of that call."""
    while not await asyncio.to_thread(stub.effects, call):
        pass
