"""The catalog of the observed cluster: every provider, tool, pool and webhook that some metric is about.

Agents and tools with effects are `tool_cluster`'s; models at the stub upstream come beside the scripted one.
"""

from pathlib import Path
from typing import Any, Final

import yaml

from cluster import GROUP
from tool_cluster import catalog_at as tools_at
from upstream_faults import LIMITS

FIRST: Final = "first"
SECOND: Final = "second"
ALONE: Final = "alone"
"""A model in whose place no other answers."""
FAR_MODEL: Final = "far"
"""The model whose runners are a pool of their own."""
FAR: Final = "far"
"""That pool."""
FALLING: Final = "group:00000000-0000-4000-8000-000000000001"
"""A group of two models of the stub."""
MISTAKEN: Final = "mistaken"
"""The tenant whose webhook leads to an address that is not allowed."""
WEBHOOKS: Final = "webhooks"
SECRET_VARIABLE: Final = "OBSERVED_SECRET"

EVENTS: Final = ["approval.requested", "approval.decided", "approval.expired", "turn.finished", "turn.failed"]


def catalog_at(tool_stub: str, upstream: str, receiver: str) -> dict[str, Any]:
    """Write a catalog for stubs at these addresses."""
    catalog = tools_at(tool_stub)
    told = {"events": EVENTS, "secret": {"env": SECRET_VARIABLE}, "pool": WEBHOOKS}
    catalog["default_model"] = "scripted"
    catalog["pools"] = {"model": {"default": {}, FAR: {}}, "tool": {"default": {}, WEBHOOKS: {}}}
    catalog["providers"] |= {"stub": {"kind": "openai", "base_url": upstream, "retries": 0, **LIMITS}}
    catalog["models"] |= {
        FIRST: {"provider": "stub", "upstream": "ok?mark=first"},
        SECOND: {"provider": "stub", "upstream": "ok?mark=second"},
        ALONE: {"provider": "stub", "upstream": "ok?mark=alone"},
        FAR_MODEL: {"provider": "scripted", "pool": FAR},
    }
    catalog["agents"]["assistant"] = {"model": "scripted"}
    catalog["groups"] = {
        GROUP.removeprefix("group:"): {"models": ["scripted"], "agent": "assistant"},
        FALLING.removeprefix("group:"): {"models": [FIRST, SECOND]},
    }
    catalog["webhooks"] = {
        "desk": {**told, "url": f"{receiver}/desk", "allow_networks": ["127.0.0.0/8"]},
        "private": {**told, "url": "https://localhost:9/", "tenants": [MISTAKEN]},
    }
    return catalog


def write_catalog(path: Path, catalog: dict[str, Any]) -> Path:
    """Put a catalog in the place of the present one, in one piece."""
    fresh = path.with_suffix(".new")
    fresh.write_text(yaml.safe_dump(catalog, sort_keys=False))
    fresh.rename(path)
    return path
