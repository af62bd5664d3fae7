"""The schemas of `/openapi.json`, from the models that validate and the structs that are encoded. Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from kitemesh_gateway.openapi_bodies import Described, Schema

_REF: Final = "#/components/schemas/{}"
_IN_CODE: Final = re.compile(r"\.|__")
_HUMP: Final = re.compile(r"_(.)")
_ATTRIBUTE: Final = re.compile(r"^ {8}(\w+): ((?:.+\n?)(?: {12}.+\n?)*)", re.MULTILINE)


def with_schemas(paths: Schema) -> tuple[Schema, Schema]:
    """Describe every type that is referred to, once; return the paths, which refer to names then, and the schemas.

    Where types have the same name, that of their dialect stands before it.

    Raises:
        ValueError: A model and a struct have one name, so that one of them would be described as the other.

    """
    types = dict.fromkeys(_types(paths))
    models = [each for each in types if issubclass(each, BaseModel)]
    _, described = models_json_schema([(model, "validation") for model in models], ref_template=_REF.format("{model}"))
    requests = _named(described.get("$defs", {}))
    structs = [each for each in types if issubclass(each, Struct)]
    answers = _named(msgspec.json.schema_components(structs, ref_template=_REF.format("{name}"))[1])
    twice = requests.keys() & answers.keys()
    if twice:
        raise ValueError(f"two types of the API have one name: {', '.join(sorted(twice))}")
    for schema in answers.values():
        _spread(schema)
        _drop_blank(schema)
    schemas = {**requests, **answers}
    names = {each: _name(each, schemas) for each in types}
    return (
        _referring(paths, {each: _REF.format(name) for each, name in names.items()}),
        dict(sorted(_reached(schemas, set(names.values())).items())),
    )


def _types(node: Any) -> Iterator[Described]:
    if isinstance(node, dict):
        for name, each in node.items():
            if name == "$ref":
                yield each
            else:
                yield from _types(each)
    elif isinstance(node, list):
        for each in node:
            yield from _types(each)


def _name(described: Described, schemas: Schema) -> str:
    long = _long(f"{described.__module__}.{described.__name__}")
    return long if long in schemas else described.__name__


def _named(schemas: Schema) -> Schema:
    """Replace the names that say where in the code a type is: that is nothing for clients."""
    names = {name: _long(name) for name in schemas if _IN_CODE.search(name)}
    references = {_REF.format(name): _REF.format(long) for name, long in names.items()}
    return {names.get(name, name): _referring(schema, references) for name, schema in schemas.items()}


def _long(qualified: str) -> str:
    """Put the name of its dialect, which its module begins with, before that of a type."""
    module, own = _IN_CODE.split(qualified)[-2:]
    return "".join(word.title() for word in module.split("_")[:-1] or [module]) + own


def _reached(schemas: Schema, names: set[str]) -> Schema:
    """Leave out what is there for the sake of its error messages alone: nothing refers to it."""
    found = {name: schemas[name] for name in names}
    text = str(found)
    more = {name for name in schemas if name not in found and repr(_REF.format(name)) in text}
    return _reached(schemas, names | more) if more else found


def _referring(node: Any, references: Mapping[Any, str]) -> Any:
    if isinstance(node, dict):
        return {
            name: references.get(each, each) if name == "$ref" else _referring(each, references)
            for name, each in node.items()
        }
    if isinstance(node, list):
        return [_referring(each, references) for each in node]
    return node


def _spread(schema: Schema) -> None:
    """Move what a docstring says of its attributes to the fields."""
    summary, _, attributes = schema.get("description", "").partition("Attributes:")
    schema["description"] = summary.strip()
    properties = schema.get("properties", {})
    for name, text in _ATTRIBUTE.findall(attributes):
        # A name that Python keeps to itself is written with a line behind it; some are of another case on the wire.
        plain = name.rstrip("_")
        field = plain if plain in properties else _HUMP.sub(lambda found: found[1].upper(), plain)
        properties[field]["description"] = " ".join(text.split())


def _drop_blank(schema: Schema) -> None:
    """Take out the empty value that stands for an absent field: it is never sent."""
    for field in schema.get("properties", {}).values():
        if field.get("default") == "" and "enum" in field:
            field["enum"].remove(field.pop("default"))
