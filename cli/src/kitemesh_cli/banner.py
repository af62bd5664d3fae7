"""What is printed when a cluster is ready: where it is, its key, and lines to paste. Pure."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kitemesh_cli.data_folder import DEFAULT, shown
from kitemesh_cli.servers import LOOPBACK

GROUP = "group:123e4567-e89b-12d3-a456-426614174000"
"""The group that the packaged catalog answers for."""

_MODELS_SHOWN = 5

_WHOLE = """\
curl -X POST "{url}/v1/chat/completions" \\
  -H "Authorization: Bearer {key}" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Give a summary of the key points."}}],
       "metadata": {{"request_id": "req_demo_001", "mode": "auto"}}}}'
"""

_STREAMED = """\
curl -N -X POST "{url}/v1/chat/completions" \\
  -H "Authorization: Bearer {key}" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{model}", "stream": true,
       "messages": [{{"role": "user", "content": "Prepare a detailed response."}}]}}'
"""


class Ready(NamedTuple):
    """Everything the banner says.

    Attributes:
        key_note: What became of the key.
        access: Who reaches the port, and who needs a key.
        model: What the examples ask for.
        health_ports: Each process's, by its name.

    """

    url: str
    key: str
    key_note: str
    data: Path
    access: str
    model: str
    models: Sequence[str]
    nats: str
    mongo: str
    catalog: Path
    health_ports: Sequence[tuple[str, int]]
    started_in_s: float


def render(ready: Ready) -> str:
    """Write the banner."""
    width = max(len(name) for name, _ in ready.health_ports)
    health = [f"           {name:<{width}}  http://{LOOPBACK}:{port}/healthz" for name, port in ready.health_ports]
    data = "" if shown(ready.data) == str(DEFAULT) else f" --data {shown(ready.data)}"
    return "\n".join(
        [
            "",
            f"kitemesh is ready ({ready.started_in_s:.1f} s).",
            "",
            f"  URL      {ready.url}/v1   (documentation at {ready.url}/docs)",
            f"  access   {ready.access}",
            f"  key      {ready.key}   ({ready.key_note}; kept in {shown(ready.data)}/key)",
            f"  models   {_first(ready.models)}",
            f"  NATS     {ready.nats}",
            f"  MongoDB  {ready.mongo}",
            "  health   and, at /metrics of the same port, metrics:",
            *health,
            f"  catalog  {shown(ready.catalog)}, read again when it changes",
            f"  logs     {shown(ready.data)}/logs/",
            "",
            "A whole answer:",
            "",
            _WHOLE.format(url=ready.url, key=ready.key, model=ready.model),
            "A streamed answer:",
            "",
            _STREAMED.format(url=ready.url, key=ready.key, model=ready.model),
            "The stored conversation, by the id in the answer's x-conversation-id:",
            "",
            f"{command()} conversation{data} ID",
            "",
            "Ctrl-C stops everything.",
            "",
        ],
    )


def _first(models: Sequence[str]) -> str:
    more = len(models) - _MODELS_SHOWN
    return ", ".join(models[:_MODELS_SHOWN]) + (f" and {more} more: GET /v1/models" if more > 0 else "")


def command() -> str:
    """Return how the person may call `kitemesh` from this folder."""
    beside = Path(sys.executable).with_name("kitemesh")
    on_path = any(Path(folder) == beside.parent for folder in os.environ.get("PATH", "").split(os.pathsep))
    return shown(beside) if beside.exists() and not on_path else "kitemesh"
