"""The catalog of the fault tests: an agent whose tools are a stub's, one for each effect class and way to be run."""

from pathlib import Path
from typing import Any, Final, Literal

import yaml

from cluster import GROUP

Effect = Literal["safe", "keyed", "once"]

EFFECTS: Final[tuple[Effect, ...]] = ("safe", "keyed", "once")
FAR: Final = "far"
"""The second tool pool."""
FAR_TOOL: Final = "far_keyed"
BRIEF_TOOL: Final = "brief_once"
BRIEF_S: Final = 2.0
"""How long a call of `BRIEF_TOOL` may be decided."""


def tool_of(effect: Effect, *, held: bool = False) -> str:
    """Name the tool of a class; `held` names the one that a person must approve."""
    return f"held_{effect}" if held else f"run_{effect}"


def write_catalog(path: Path, stub: str, *, delay_ms: int) -> Path:
    """Write the catalog; every tool is the stub's and takes so long."""

    def tool(effect: Effect, pool: str = "default") -> dict[str, Any]:
        return {
            "kind": "http",
            "method": "GET" if effect == "safe" else "POST",
            "url": f"{stub}/{effect}/{{{{tag}}}}?mode=slow&delay_ms={delay_ms}",
            "effect": effect,
            "pool": pool,
            "allow_networks": ["127.0.0.0/8"],
            "timeout_s": 60,
            "parameters": {
                "type": "object",
                "properties": {"tag": {"type": "string"}},
                "required": ["tag"],
                "additionalProperties": False,
            },
        }

    tools = {tool_of(effect, held=held): tool(effect) for effect in EFFECTS for held in (False, True)}
    tools |= {FAR_TOOL: tool("keyed", FAR), BRIEF_TOOL: tool("once")}
    catalog = {
        "version": 1,
        "default_model": "scripted",
        "pools": {"tool": {"default": {}, FAR: {}}},
        "providers": {"scripted": {"kind": "scripted"}},
        "models": {"scripted": {"provider": "scripted"}},
        "agents": {"assistant": {"model": "scripted", "tools": list(tools)}},
        "groups": {GROUP.removeprefix("group:"): {"models": ["scripted"], "agent": "assistant"}},
        "tools": tools,
        "policies": [
            {"tools": ["held_*"], "then": "hold"},
            {"tools": ["brief_*"], "then": "hold", "expires_after_s": BRIEF_S},
        ],
    }
    path.write_text(yaml.safe_dump(catalog, sort_keys=False))
    return path
