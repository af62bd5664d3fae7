"""What pydantic found wrong, in our own words: one sentence a mistake, with its place as the reader wrote it.

Used for the catalog and for settings alike. It never repeats what was given, which may be a secret; the one exception
is a part's unknown kind.
"""

import re
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

_CHARACTERS: Final = re.compile(r"\A\^\[([^\]]+)\]\{(\d+),(\d+)\}\$\Z")
_PATTERNS: Final[Mapping[str, str]] = {
    r"^https?://\S+$": "must begin with http:// or https://",
    r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$": (
        "a model's id is 1 to 128 of A-Z a-z 0-9 . _ : / @ + - and begins with a letter or digit"
    ),
}
_WHOLE: Final = {"int_type", "int_parsing", "int_from_float"}
_NUMBERS: Final = {
    *_WHOLE,
    "float_type",
    "float_parsing",
    "finite_number",
    "greater_than",
    "greater_than_equal",
    "less_than",
    "less_than_equal",
}
_MAPPINGS: Final = {"model_type", "model_attributes_type", "dict_type"}
_PLAIN: Final[Mapping[str, str]] = {
    "missing": "must be set",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "path_type": "must be a path",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
}


class Problem(NamedTuple):
    """A mistake.

    Attributes:
        place: Names and numbers from the top to it; empty for the whole.
        kind: What pydantic calls it.

    """

    place: tuple[str, ...]
    kind: str
    sentence: str

    def __str__(self) -> str:
        """Write the place before the sentence."""
        return f"{'.'.join(self.place)}: {self.sentence}" if self.place else self.sentence


def describe(model: type[BaseModel], error: ValidationError) -> list[Problem]:
    """Say every mistake that validating `model` found; a validator's sentences are parted at `; `."""
    problems = []
    for each in error.errors(include_url=False):
        place, wanted, metadata = _find(model, each["loc"])
        if each["type"].startswith("union_tag_"):
            place = (*place, "kind")
        sentence = _say(each, wanted, metadata)
        parts = sentence.split("; ") if each["type"] == "value_error" else [sentence]
        problems += [Problem(place, each["type"], part) for part in parts]
    return problems


def _find(model: type[BaseModel], loc: Sequence[int | str]) -> tuple[tuple[str, ...], Any, Sequence[Any]]:
    """Follow an error's place: return it without pydantic's own marks, and what is wanted there."""
    place: list[str] = []
    wanted: Any = model
    metadata: Sequence[Any] = ()
    for step in loc:
        if step == "[key]":
            continue
        variants = _variants(wanted)
        chosen = next((each for each in variants if _tag(each) == step), None) if len(variants) > 1 else None
        if chosen is not None:
            # The tag of a union's member is in the error's place and not in the text.
            wanted, metadata = chosen, ()
            continue
        place.append(str(step))
        wanted, metadata = _inside(wanted, step)
    return tuple(place), wanted, metadata


def _inside(wanted: Any, step: int | str) -> tuple[Any, Sequence[Any]]:
    wanted = _variants(wanted)[0]
    if isinstance(wanted, type) and issubclass(wanted, BaseModel):
        field = wanted.model_fields.get(str(step))
        # Of a field that does not exist, the part is what helps. An Optional's bounds belong to the type inside it.
        return (wanted, ()) if field is None else (field.annotation, field.metadata or _bounds(field.annotation))
    if get_origin(wanted) in {dict, tuple}:
        inner = get_args(wanted)[1 if get_origin(wanted) is dict else 0]
        return inner, _bounds(inner)
    return None, ()


def _variants(wanted: Any) -> tuple[Any, ...]:
    if get_origin(wanted) is Annotated:
        return _variants(get_args(wanted)[0])
    if get_origin(wanted) in {Union, UnionType}:
        return tuple(kept for each in get_args(wanted) if each is not type(None) for kept in _variants(each))
    return (wanted,)


def _tag(variant: Any) -> object:
    field = variant.model_fields.get("kind") if isinstance(variant, type) and issubclass(variant, BaseModel) else None
    return get_args(field.annotation)[0] if field is not None and get_origin(field.annotation) is Literal else None


def _bounds(wanted: Any) -> Sequence[Any]:
    if get_origin(wanted) in {Union, UnionType}:
        return [bound for each in get_args(wanted) for bound in _bounds(each)]
    if get_origin(wanted) is not Annotated:
        return ()
    flat: list[Any] = []
    for each in get_args(wanted)[1:]:
        flat += each.metadata if isinstance(each, FieldInfo) else [each]
    return flat


def _say(error: ErrorDetails, wanted: Any, metadata: Sequence[Any]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_type" and error["loc"][-1] == "[key]":
        return "a name must be text: put it between quotes"
    if kind in _NUMBERS:
        return _want_number(metadata, is_whole=kind in _WHOLE or int in _variants(wanted))
    if kind == "union_tag_invalid":
        known = context["expected_tags"].replace("'", "")
        return f"{str(context['tag'])[:64]!r} is not one of {known}"
    if kind == "union_tag_not_found":
        return f"must be set: one of {', '.join(str(_tag(each)) for each in _variants(wanted))}"
    if kind == "literal_error":
        values = [str(each) for each in get_args(wanted)]
        return f"must be {values[0]}" if len(values) == 1 else f"must be one of {', '.join(values)}"
    if kind == "extra_forbidden":
        return f"no such field; known: {', '.join(wanted.model_fields)}"
    if kind in _MAPPINGS:
        return "must be a mapping"
    if kind == "string_pattern_mismatch":
        return _want_pattern(str(context["pattern"]))
    if kind in {"string_too_short", "string_too_long"}:
        least = kind == "string_too_short"
        number = context["min_length" if least else "max_length"]
        return f"must have at {'least' if least else 'most'} {number} character{'' if number == 1 else 's'}"
    if kind == "too_short":
        return f"must have at least {context['min_length']} " + ("entry" if context["min_length"] == 1 else "entries")
    return _PLAIN.get(kind) or error["msg"]


def _want_number(metadata: Sequence[Any], *, is_whole: bool) -> str:
    found = {name: getattr(each, name) for each in metadata for name in ("ge", "gt", "le", "lt") if hasattr(each, name)}
    low = f"from {found['ge']}" if "ge" in found else f"above {found['gt']}" if "gt" in found else ""
    if "le" in found:
        high = (
            f" to {found['le']}" if "ge" in found else f" and at most {found['le']}" if low else f"up to {found['le']}"
        )
    else:
        high = " up" if "ge" in found else ""
    return " ".join(f"must be a {'whole ' if is_whole else ''}number {low}{high}".split())


def _want_pattern(pattern: str) -> str:
    found = _CHARACTERS.match(pattern)
    if found is None:
        return _PATTERNS.get(pattern, f"must look like {pattern}")
    characters, low, high = found.groups()
    shown = characters.replace(r"\w", "A-Za-z0-9_")
    spaced = " ".join(re.findall(r".-.|.", shown))
    return f"must be {low} to {high} of {spaced}" if low != "0" else f"must be at most {high} of {spaced}"
