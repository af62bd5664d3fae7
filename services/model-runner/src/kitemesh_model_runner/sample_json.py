"""A value that fits a JSON Schema, as far as that can be read off it: what the scripted model answers if asked for one.

Pure, and always the same for the same schema. Patterns, formats and conditions are not understood.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

MAX_VALUES: Final = 1000
"""Behind that many every further one is `null`: a schema may contain itself, and more than once."""
MAX_DEPTH: Final = 24
MAX_TEXT: Final = 1000

_WORD: Final = "text"
_PLAIN: Final = {"boolean": True, "null": None}
_CHOICES: Final = ("anyOf", "oneOf", "allOf")
_WHOLE_TO: Final = 2
"""Deeper down what need not be there is left out, or many a schema would only end at the bounds."""


def sample(schema: msgspec.Raw) -> object:
    """Return a value that fits a schema."""
    return _Sampler(msgspec.json.decode(schema)).value()


class _Sampler:
    def __init__(self, root: object) -> None:
        self._root: Final = root
        self._left = MAX_VALUES

    def value(self) -> object:
        return self._value(self._root, 0)

    def _value(self, schema: object, depth: int) -> object:
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            return None
        if not isinstance(schema, Mapping):
            return _WORD
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        for choices in _lists(schema, "enum"):
            return choices[0]
        for word in _CHOICES:
            for choices in _lists(schema, word):
                return self._value(choices[0], depth + 1)
        kind = schema.get("type")
        kind = next(iter(kind), None) if isinstance(kind, list) else kind
        kind = kind if isinstance(kind, str) else None
        if kind == "object" or (kind is None and "properties" in schema):
            return self._object(schema, depth)
        if kind == "array":
            wanted = max(_whole(schema.get("minItems"), 0), 1)
            return [self._value(schema.get("items", {}), depth + 1) for _ in range(min(wanted, max(self._left, 0)))]
        if kind in {"integer", "number"}:
            return _number(schema, is_whole=kind == "integer")
        return _PLAIN[kind] if kind in {"boolean", "null"} else _text(schema)

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, object]:
        properties = schema.get("properties")
        if not isinstance(properties, Mapping):
            return {}
        required = schema.get("required")
        wanted = list(properties)
        if isinstance(required, list) and depth >= _WHOLE_TO:
            wanted = [name for name in wanted if name in required]
        return {name: self._value(properties[name], depth + 1) for name in wanted}

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        for _ in range(MAX_DEPTH):
            reference = schema.get("$ref")
            if not isinstance(reference, str) or not reference.startswith("#"):
                break
            found: object = self._root
            for part in filter(None, reference.removeprefix("#").split("/")):
                name = part.replace("~1", "/").replace("~0", "~")
                found = found.get(name) if isinstance(found, Mapping) else None
            if not isinstance(found, Mapping):
                break
            schema = found
        return schema


def _lists(schema: Mapping[str, Any], word: str) -> Iterator[list[Any]]:
    found = schema.get(word)
    if isinstance(found, list) and found:
        yield found


def _text(schema: Mapping[str, Any]) -> str:
    least = min(_whole(schema.get("minLength"), 0), MAX_TEXT)
    most = max(_whole(schema.get("maxLength"), MAX_TEXT), 0)
    return _WORD.ljust(least, "x")[:most]


def _number(schema: Mapping[str, Any], *, is_whole: bool) -> float:
    low, high = schema.get("minimum"), schema.get("maximum")
    value: float = 1 if is_whole else 1.5
    if isinstance(high, int | float) and value > high:
        value = high
    if isinstance(low, int | float) and value < low:
        value = low
    return int(value) if is_whole else value


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) else default
