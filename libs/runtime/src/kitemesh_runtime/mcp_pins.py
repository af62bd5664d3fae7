"""What pins a tool of an MCP server: the SHA-256 of what a model is told of it. Pure.

Whoever changes the words that a model reads changes what it does, so a change waits until it is accepted.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

_encode: Final = msgspec.json.Encoder(order="sorted").encode


def pin(name: str, description: str, schema: Mapping[str, Any]) -> str:
    """Return a tool's pin, hexadecimal.

    Args:
        name: The tool's name at its server.
        description: Empty when the server gives none.
        schema: JSON Schema of the arguments.

    Raises:
        ValueError: The schema is not JSON, or nests too deep.

    """
    try:
        content = _encode({"name": name, "description": description, "schema": schema})
    except (TypeError, OverflowError, RecursionError, UnicodeError) as exc:
        raise ValueError("the schema is not JSON") from exc
    return hashlib.sha256(content).hexdigest()
