"""`kitemesh tools list | unknown`: what MCP servers offer, and calls whose outcome nobody knows."""

import argparse
import asyncio
import os
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from kitemesh_cli.arguments import add_data, folder_of, identifier
from kitemesh_cli.connections import open_cli_stores
from kitemesh_cli.failures import Failed
from kitemesh_cli.mcp_offers import Entry, compare, find_gone, render
from kitemesh_cli.output import add_json, print_json
from kitemesh_cli.settings import KeysSettings, load_settings, tenant_of
from kitemesh_cli.tables import lay_out, moment
from kitemesh_runtime import catalog_file
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.catalog_addresses import find_in_url
from kitemesh_runtime.catalog_tools import McpServer, Tool
from kitemesh_runtime.ledger import LedgerRow
from kitemesh_runtime.one_line import one_line
from kitemesh_runtime.settings import Settings

OFFERED: Final = """\
Ask MCP servers what they offer and print it in the catalog's form, ready to be pasted: description and parameters are
the pin under which a tool runs. Comments say which of the catalog's tools differ from what their server offers now.
A stdio server's command is run.

examples:
  kitemesh tools list                          every server of the catalog
  kitemesh tools list docs                     one of them
  kitemesh tools list https://docs.example/mcp one that is not in it
"""
UNKNOWN: Final = """\
List a tenant's tool calls whose outcome is unknown, newest first: the tool was told to act, and whoever told it died
before the answer was stored. Such a call is never repeated; look in the tool's own records whether it had its effect.
LATE says that a result came after the call was given up: it is kept, and --json shows it.
"""


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verbs."""
    parser = verbs.add_parser(
        "tools", help="look at tools and their calls", description="Look at tools and their calls."
    )
    what = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    raw = argparse.RawDescriptionHelpFormatter
    offered = what.add_parser(
        "list", help="list what MCP servers offer, as YAML for the catalog", description=OFFERED, formatter_class=raw
    )
    offered.add_argument("server", nargs="?", metavar="SERVER", help="a name in mcp_servers, or an https:// URL")
    offered.set_defaults(run=list_offered)
    unknown = what.add_parser(
        "unknown",
        help="list calls whose outcome is unknown",
        description=UNKNOWN,
        formatter_class=raw,
    )
    unknown.add_argument("--limit", type=int, default=100, metavar="N", help="at most so many (default: %(default)s)")
    unknown.add_argument(
        "--tenant",
        type=identifier,
        metavar="T",
        help="whose; the anonymous tenant's when left out (KITEMESH_ANONYMOUS_TENANT)",
    )
    unknown.set_defaults(run=list_unknown)
    for each in (offered, unknown):
        add_json(each)
        add_data(each)


def list_offered(arguments: argparse.Namespace) -> int:
    """Be `tools list`."""
    settings = load_settings(KeysSettings, folder_of(arguments), os.environ)
    named = arguments.server
    if named is not None and "://" in named:
        servers, known = _unlisted(named), {}
    else:
        catalog = catalog_file.read(settings.catalog)
        servers, known = _chosen(catalog, named), catalog.tools
    entries, gone = asyncio.run(_compare(servers, known))
    if arguments.json:
        print_json({"tools": [entry._asdict() for entry in entries], "gone": [name for _, name in gone]})
    elif not entries and not gone:
        print("# no MCP server offers a tool")
    else:
        print(render(entries, gone))
    return 0


def _chosen(catalog: Catalog, named: str | None) -> Mapping[str, McpServer]:
    if named is None:
        return catalog.mcp_servers
    if named not in catalog.mcp_servers:
        known = ", ".join(catalog.mcp_servers) or "none"
        raise Failed(f"the catalog has no MCP server {named!r}; it has: {known}")
    return {named: catalog.mcp_servers[named]}


def _unlisted(url: str) -> Mapping[str, McpServer]:
    wrong = list(find_in_url(one_line(url), url, may_be_plain=False))
    if wrong or "{{" in url:
        raise Failed(wrong[0] if wrong else f"{one_line(url)}: is no URL")
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", url.partition("://")[2].partition("/")[0]).strip("-")[:64]
    return {name: McpServer(url=url)}


async def _compare(
    servers: Mapping[str, McpServer], known: Mapping[str, Tool]
) -> tuple[list[Entry], list[tuple[str, str]]]:
    # The SDK takes a second to load, which no other verb should.
    from kitemesh_cli.mcp_listing import list_offers  # noqa: PLC0415  see above

    entries: list[Entry] = []
    gone: list[tuple[str, str]] = []
    for name, server in servers.items():
        offers = await list_offers(name, server)
        entries += compare(name, offers, known, taken=[entry.name for entry in entries])
        gone += [(name, each) for each in find_gone(name, offers, known)]
    return entries, gone


def list_unknown(arguments: argparse.Namespace) -> int:
    """Be `tools unknown`."""
    folder = folder_of(arguments)
    settings = load_settings(KeysSettings, folder, os.environ)
    tenant = tenant_of(arguments.tenant, settings, folder)
    rows = asyncio.run(_read(settings, tenant, max(1, arguments.limit)))
    if arguments.json:
        print_json([msgspec.to_builtins(row) for row in rows])
    elif not rows:
        print(f"tenant {tenant} has no call whose outcome is unknown")
    else:
        cells = [
            (row.id, moment(row.dispatched_at_s), row.tool, row.effect, row.turn, "yes" if row.late else "-")
            for row in rows
        ]
        print(lay_out(("CALL", "DISPATCHED", "TOOL", "EFFECT", "EXECUTION", "LATE"), cells))
    return 0


async def _read(settings: Settings, tenant: str, limit: int) -> list[LedgerRow]:
    async with open_cli_stores(settings) as stores:
        return await stores.ledger.unknown(tenant, limit=limit)
