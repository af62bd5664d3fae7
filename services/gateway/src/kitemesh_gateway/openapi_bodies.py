"""How bodies and headers are written in `/openapi.json`. Pure.

A `$ref` here is the type itself: `openapi_schemas` finds the names and schemas of all of them at once.
"""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct
from pydantic import BaseModel

from kitemesh_contracts.headers import REQUEST_ID
from kitemesh_gateway.dialects.base import JSON

Schema = dict[str, Any]
Described = type[BaseModel] | type[Struct]
"""A model that validates, or a struct that is encoded."""

SSE: Final = "text/event-stream"
DONE: Final = "[DONE]"
NAMED: Final[Mapping[str, str]] = {
    REQUEST_ID: "The client's, if it is 1 to 255 of A-Z, a-z, 0-9, _, = and -; else generated.",
}


def content(media: str, body: Described) -> Schema:
    """Describe a body."""
    return {media: {"schema": {"$ref": body}}}


def events(*types: Described, last: str = "") -> Schema:
    """Describe a body of server-sent events, each of them as an object of its fields.

    Args:
        types: What their data are.
        last: The data of the last one, which are no JSON.

    """
    schemas: list[Schema] = [{"$ref": each} for each in types]
    told: Schema = {
        "type": "string",
        "contentMediaType": JSON,
        "contentSchema": schemas[0] if len(schemas) == 1 else {"oneOf": schemas},
    }
    data = {"anyOf": [told, {"const": last}]} if last else told
    event = {"type": "object", "properties": {"id": {"type": "string"}, "data": data}, "required": ["data"]}
    return {SSE: {"schema": event}}


def headers_of(described: Mapping[str, str]) -> Schema:
    """Describe headers."""
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in described.items()}
