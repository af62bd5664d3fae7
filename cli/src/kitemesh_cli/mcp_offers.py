"""What an MCP server offers against what the catalog says of it, and as a catalog's text. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import yaml
from pydantic import ValidationError

from kitemesh_runtime.catalog_references import find_broken
from kitemesh_runtime.catalog_tools import McpTool, Tool
from kitemesh_runtime.mcp_pins import pin

State = Literal["new", "same", "changed"]

_WIDTH: Final = 100


class Offer(NamedTuple):
    """A tool as its server lists it."""

    name: str
    description: str
    parameters: Mapping[str, Any]


class Entry(NamedTuple):
    """An offer in the catalog's form.

    Attributes:
        name: The catalog's, or one that it may have there.
        definition: Ready to be pasted.
        problem: Why the catalog cannot hold it; empty when it can.

    """

    server: str
    name: str
    tool: str
    state: State
    definition: dict[str, Any]
    problem: str


def compare(
    server: str, offers: Sequence[Offer], known: Mapping[str, Tool], *, taken: Iterable[str] = ()
) -> list[Entry]:
    """Put a server's offers beside the catalog's tools, an offer that several of them use once for each.

    Args:
        server: Its name in the catalog.
        offers: What it lists.
        known: The catalog's tools.
        taken: Further names that no new tool may have.

    """
    mine = _of_server(server, known)
    used = {*known, *taken}
    entries = []
    for offer in offers:
        names = [name for name, tool in mine.items() if (tool.tool or name) == offer.name]
        for name in names:
            state: State = "same" if _pin_of(offer) == _pin_of(_pinned(name, mine[name])) else "changed"
            entries.append(_entry(server, name, offer, state, mine[name]))
        if not names:
            name = _free_name(server, offer.name, used)
            used.add(name)
            entries.append(_entry(server, name, offer, "new", None))
    return entries


def find_gone(server: str, offers: Iterable[Offer], known: Mapping[str, Tool]) -> list[str]:
    """Return the catalog's tools that the server does not offer any more."""
    offered = {offer.name for offer in offers}
    return [name for name, tool in _of_server(server, known).items() if (tool.tool or name) not in offered]


def render(entries: Sequence[Entry], gone: Sequence[tuple[str, str]]) -> str:
    """Return a text for the catalog, with what is to be known of it as comments."""
    lines = [f"# {sentence}" for sentence in _say(entries, gone)]
    usable = {entry.name: entry.definition for entry in entries if not entry.problem}
    if not usable:
        return "\n".join(lines)
    return "\n".join([*lines, _dump({"tools": usable}).rstrip()])


def _say(entries: Sequence[Entry], gone: Sequence[tuple[str, str]]) -> Iterable[str]:
    for entry in entries:
        if entry.state == "changed":
            yield f"{entry.name}: differs from what {entry.server} offers now; disabled until the catalog says the same"
        elif entry.state == "same":
            yield f"{entry.name}: in the catalog as {entry.server} offers it"
        if entry.problem:
            yield f"{entry.name}: cannot be in a catalog: {entry.problem}"
    yield from (f"{name}: {server} does not offer it any more; calls of it fail" for server, name in gone)


def _entry(server: str, name: str, offer: Offer, state: State, known: McpTool | None) -> Entry:
    kept = {} if known is None else known.model_dump(mode="json", exclude_unset=True)
    definition = {**kept, "kind": "mcp", "server": server}
    if offer.name != name:
        definition["tool"] = offer.name
    definition |= {"description": offer.description, "parameters": dict(offer.parameters)}
    return Entry(server, name, offer.name, state, definition, _problem(name, server, definition))


def _problem(name: str, server: str, definition: dict[str, Any]) -> str:
    try:
        McpTool.model_validate(definition)
        pin(name, "", definition["parameters"])
    except (ValidationError, ValueError) as exc:
        return (
            "its name, description or schema is not what one may hold" if isinstance(exc, ValidationError) else str(exc)
        )
    pool = definition.get("pool", "default")
    parts = {"tools": {name: definition}, "mcp_servers": {server: {}}, "pools": {"tool": {pool: {}}}}
    return " ".join("; ".join(find_broken(parts)).split())


def _of_server(server: str, known: Mapping[str, Tool]) -> dict[str, McpTool]:
    return {name: tool for name, tool in known.items() if isinstance(tool, McpTool) and tool.server == server}


def _pinned(name: str, tool: McpTool) -> Offer:
    return Offer(tool.tool or name, tool.description, tool.parameters)


def _pin_of(offer: Offer) -> str:
    return pin(offer.name, offer.description, offer.parameters)


def _free_name(server: str, name: str, taken: set[str]) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:64] or "tool"
    if plain in taken or plain.startswith("webhook_"):
        plain = f"{server}_{plain}"[:64]
    number = 2
    found = plain
    while found in taken:
        found = f"{plain[:60]}_{number}"
        number += 1
    return found


def _dump(content: dict[str, Any]) -> str:
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=_WIDTH)
    # A server's words reach a terminal here: what could turn their order is escaped.
    if not text.replace("\n", "").isprintable():
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=False, width=_WIDTH)
    return text
