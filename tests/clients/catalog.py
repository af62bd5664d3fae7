"""What the clients' cluster offers: the packaged catalog, answered without pauses, and an agent for each speciality."""

from typing import Any

import yaml

from kitemesh_cli.dev_catalog import packaged_text


def client_catalog() -> dict[str, Any]:
    """Return the catalog."""
    catalog: dict[str, Any] = yaml.safe_load(packaged_text())
    catalog["providers"]["scripted"]["delay_ms"] = 0
    return catalog
