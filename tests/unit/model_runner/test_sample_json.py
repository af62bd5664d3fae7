"""What the scripted model answers when it is asked for JSON."""

from typing import Any

import msgspec
import pytest

from kitemesh_model_runner.sample_json import sample
from kitemesh_runtime import schemas

TREE: dict[str, Any] = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/node"}},
            "required": ["name"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a", "b"]},
        {"type": "array", "items": {"type": "number", "minimum": 3}, "minItems": 2},
        {"type": "string", "minLength": 9},
        {"type": "string", "maxLength": 2},
        {"type": "string", "enum": ["red", "blue"]},
        {"const": {"x": [1]}},
        {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        {"type": ["null", "string"]},
        {"type": "integer", "maximum": -5},
        {"type": "number"},
        {"properties": {"a": {"type": "boolean"}}},
        {},
        TREE,
    ],
)
def test_it_fits_the_schema(schema: dict[str, Any]) -> None:
    assert schemas.problems(schema, sample(msgspec.Raw(msgspec.json.encode(schema)))) == []


@pytest.mark.parametrize(
    "schema",
    [
        b'{"$ref":"#"}',
        b'{"$ref":"#/nowhere"}',
        b'{"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]}',
        b'{"type":"array","items":{"$ref":"#"},"minItems":99999}',
        b'{"properties":{"a":{"$ref":"#"},"b":{"$ref":"#"}},"required":["a","b"]}',
        b'{"type":{}}',
        b"true",
        b"null",
        b'{"type":7,"enum":[],"anyOf":{},"minLength":"x"}',
    ],
)
def test_whatever_the_schema_it_ends(schema: bytes) -> None:
    msgspec.json.encode(sample(msgspec.Raw(schema)))
