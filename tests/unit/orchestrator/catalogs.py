"""A catalog to judge calls by: a tool that runs, two that are held, one that is forbidden, one of somebody else."""

from typing import Any, Final

import msgspec

from kitemesh_contracts.content import ToolSpec
from kitemesh_runtime.catalog import Agent, Catalog

AMOUNT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"amount": {"type": "integer"}, "card_token": {"type": "string"}},
    "required": ["amount"],
    "additionalProperties": False,
}
OBJECT: Final[dict[str, Any]] = {"type": "object"}
TOOLS: Final = ("read", "pay", "drop", "format_disk")
PARTS: Final[dict[str, Any]] = {
    "providers": {"p": {"kind": "scripted"}},
    "models": {"a": {"provider": "p"}},
    "agents": {"helper": {"model": "a", "tools": list(TOOLS)}, "other": {"model": "a", "tools": ["launch"]}},
    "pools": {"tool": {"default": {}, "slow": {}}},
    "tools": {
        "read": {"kind": "http", "url": "https://docs.example/", "parameters": OBJECT, "pool": "slow"},
        "pay": {
            "kind": "http",
            "method": "POST",
            "url": "https://pay.example/v1",
            "parameters": AMOUNT,
            "sentence": "Pay {{amount}}",
            "description": "Pay somebody.",
        },
        "drop": {"kind": "python", "entry_point": "drop", "parameters": OBJECT, "effect": "keyed"},
        "format_disk": {"kind": "python", "entry_point": "format", "parameters": OBJECT},
        "launch": {"kind": "python", "entry_point": "launch", "parameters": OBJECT},
    },
    "policies": [
        {"tools": ["format_*"], "then": "deny"},
        {"tools": ["pay", "drop"], "then": "hold"},
    ],
}


def catalog(*policies: dict[str, Any], **limits: Any) -> Catalog:
    """Return the catalog, with other rules if any are given, and other limits of its helper."""
    parts = {**PARTS, "agents": {**PARTS["agents"], "helper": {**PARTS["agents"]["helper"], "limits": limits}}}
    return Catalog.model_validate({**parts, "policies": list(policies)} if policies else parts)


def helper(offered: Catalog) -> Agent:
    return offered.agents["helper"]


def client_tool(name: str) -> ToolSpec:
    return ToolSpec(name=name, parameters=msgspec.Raw(b'{"type":"object"}'))
