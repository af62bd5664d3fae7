"""Which parts of a call's arguments nobody is shown, and the arguments without them. Pure.

A part is secret by the schema (`writeOnly`, `format: password`), by the definition, or by its name. Where a schema
leaves it open, rather too much is masked than too little.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from kitemesh_runtime.secret_names import is_secret_name

MASK: Final = "***"

_ALSO: Final = ("allOf", "anyOf", "oneOf")
_ONE_MORE: Final = ("if", "then", "else")
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")

_SECRET: Final[Mapping[str, Any]] = {"writeOnly": True}
"""Stands for a schema that cannot be found."""


def mask(arguments: dict[str, Any], schema: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """Return the arguments with `MASK` in place of each secret part.

    Args:
        arguments: A JSON object.
        schema: JSON Schema of it.
        names: Arguments that are secret whatever the schema says.

    """
    known = list(_expand([schema], schema))
    return {
        name: MASK if name in names or is_secret_name(name) else _masked(value, _of_property(known, name), schema)
        for name, value in arguments.items()
    }


def _masked(value: Any, schemas: Iterable[Any], root: Mapping[str, Any]) -> Any:
    known = list(_expand(schemas, root))
    if any(each.get("writeOnly") is True or each.get("format") == "password" for each in known):
        return MASK
    if isinstance(value, dict):
        return {
            name: MASK if is_secret_name(name) else _masked(each, _of_property(known, name), root)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [_masked(each, _of_entry(known, number), root) for number, each in enumerate(value)]
    return value


def _expand(schemas: Iterable[Any], root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the schemas and all that they bring in for the same value, each once."""
    waiting = list(schemas)
    seen: set[int] = set()
    while waiting:
        schema = waiting.pop()
        if not isinstance(schema, Mapping) or id(schema) in seen:
            continue
        seen.add(id(schema))
        yield schema
        for keyword in _ALSO:
            waiting += _list(schema.get(keyword))
        waiting += [schema[keyword] for keyword in _ONE_MORE if keyword in schema]
        dependent = schema.get("dependentSchemas", schema.get("dependencies"))
        waiting += dependent.values() if isinstance(dependent, Mapping) else []
        waiting += [_resolve(schema[keyword], root) for keyword in _REFERENCES if keyword in schema]


def _of_property(schemas: Iterable[Mapping[str, Any]], name: str) -> Iterator[Any]:
    for schema in schemas:
        properties, patterns = schema.get("properties"), schema.get("patternProperties")
        if isinstance(patterns, Mapping):
            yield from patterns.values()
        if isinstance(properties, Mapping) and name in properties:
            yield properties[name]
        else:
            yield schema.get("additionalProperties")
            yield schema.get("unevaluatedProperties")


def _of_entry(schemas: Iterable[Mapping[str, Any]], number: int) -> Iterator[Any]:
    for schema in schemas:
        items = schema.get("items")
        for first in (_list(schema.get("prefixItems")), _list(items)):
            yield from first[number : number + 1]
        yield items
        yield from (schema.get(keyword) for keyword in ("additionalItems", "unevaluatedItems", "contains"))


def _resolve(reference: object, root: Mapping[str, Any]) -> Any:
    if not isinstance(reference, str) or not re.match(r"#(/|\Z)", reference):
        return _SECRET
    found: Any = root
    for token in reference[2:].split("/") if len(reference) > 1 else ():
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            return _SECRET
    return found


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
