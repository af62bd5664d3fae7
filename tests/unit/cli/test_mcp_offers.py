"""What an MCP server offers, beside the catalog and in its form: what is pasted is what was offered, to the byte."""

from typing import Any

import pytest
import yaml

from kitemesh_cli.mcp_offers import Entry, Offer, compare, find_gone, render
from kitemesh_runtime.catalog import parse
from kitemesh_runtime.catalog_tools import McpTool, PythonTool, Tool
from kitemesh_runtime.mcp_pins import pin

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"on": {"type": "string", "default": "no"}, "n": {"maximum": 1e20}, "1": {"enum": ["1", 1, None]}},
}
SEARCH = Offer("search", "Search: the docs\n\n  # all of them\n", SCHEMA)


def known(**tools: dict[str, Any]) -> dict[str, Tool]:
    return {name: McpTool.model_validate({"kind": "mcp", "server": "docs", **tool}) for name, tool in tools.items()}


def pasted(entries: list[Entry]) -> dict[str, Tool]:
    parts = {
        "providers": {"p": {"kind": "scripted"}},
        "models": {"a": {"provider": "p"}},
        "mcp_servers": {"docs": {"url": "https://docs.example/mcp"}},
    }
    return parse(yaml.safe_dump(parts) + render(entries, [])).tools


@pytest.mark.parametrize(
    "offer",
    [
        SEARCH,
        Offer("search", "", {"type": "object"}),
        Offer("docs/search.all", "né \u202e日本 \x1b[2J", {"type": "object", "title": "a: b"}),
        Offer("webhook_x", "on", {"type": "object"}),
    ],
)
def test_what_is_pasted_has_the_pin_of_what_was_offered(offer: Offer) -> None:
    (name, tool), *_ = pasted(compare("docs", [offer], {})).items()
    assert isinstance(tool, McpTool)
    assert pin(tool.tool or name, tool.description, tool.parameters) == pin(*offer)


def test_what_is_printed_moves_no_cursor() -> None:
    printed = render(compare("docs", [Offer("x", "\u202eevil \x1b[2J", {"type": "object"})], {}), [])
    assert printed.replace("\n", "").isprintable()


def test_a_tool_that_is_in_the_catalog_keeps_its_name_and_what_the_operator_said() -> None:
    mine = known(
        find={"tool": "search", "description": SEARCH.description, "parameters": SCHEMA, "effect": "safe"},
        find_old={"tool": "search", "description": "Old", "parameters": SCHEMA, "timeout_s": 5},
        gone={},
    )
    entries = compare("docs", [SEARCH, Offer("other", "", {"type": "object"})], mine)
    assert [(entry.name, entry.state) for entry in entries] == [
        ("find", "same"),
        ("find_old", "changed"),
        ("other", "new"),
    ]
    assert entries[1].definition["timeout_s"] == 5
    assert entries[1].definition["description"] == SEARCH.description
    assert find_gone("docs", [SEARCH], mine) == ["gone"]
    said = render(entries, [("docs", "gone")]).splitlines()
    assert "# find: in the catalog as docs offers it" in said
    assert "# find_old: differs from what docs offers now; disabled until the catalog says the same" in said
    assert "# gone: docs does not offer it any more; calls of it fail" in said


def test_a_new_tool_gets_a_name_that_is_free() -> None:
    clock: dict[str, Tool] = {"search": PythonTool(kind="python", entry_point="x")}
    entries = compare(
        "docs", [SEARCH, SEARCH._replace(name="a b"), SEARCH._replace(name="a/b")], clock, taken=["docs_a_b"]
    )
    assert [(entry.name, entry.definition.get("tool")) for entry in entries] == [
        ("docs_search", "search"),
        ("a_b", "a b"),
        ("docs_a_b_2", "a/b"),
    ]


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "array"}, "type must be object"),
        ({"type": "object", "properties": {"a": {"$ref": "https://evil.example/x"}}}, "not a JSON Schema"),
    ],
)
def test_what_a_catalog_cannot_hold_is_said_and_left_out(schema: dict[str, Any], said: str) -> None:
    printed = render(compare("docs", [SEARCH._replace(parameters=schema)], {}), [])
    assert said in printed
    assert all(line.startswith("#") for line in printed.splitlines())
