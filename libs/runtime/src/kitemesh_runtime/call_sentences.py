"""A tool call as people are shown it: a sentence, and its arguments with the secrets masked. Pure.

Whatever a model wrote stays data: it is escaped, cut and never read as a template.
"""

from typing import Any, Final, NamedTuple

import msgspec

from kitemesh_runtime import templates
from kitemesh_runtime.catalog_tools import Tool
from kitemesh_runtime.one_line import one_line
from kitemesh_runtime.secret_arguments import MASK, mask

__all__ = ["MASK", "Described", "describe_call", "mask_arguments"]

VALUE_CHARS: Final = 200
SENTENCE_CHARS: Final = 4000
NAME_CHARS: Final = 64


class Described(NamedTuple):
    """A call for people.

    Attributes:
        sentence: One line, without a secret.
        shown: The arguments: canonical JSON text, secrets as `MASK`.

    """

    sentence: str
    shown: str


def describe_call(name: str, definition: Tool, arguments: str) -> Described:
    """Describe a call to the person who is to decide it.

    Args:
        name: The tool's.
        definition: Its place in the catalog: the template of its sentence, and what is secret.
        arguments: Canonical JSON text of an object.

    """
    values = _masked(definition, arguments)
    sentence = _plain(name, values) if definition.sentence is None else _filled(definition.sentence, values)
    return Described(_cut(sentence, SENTENCE_CHARS), _json(values))


def mask_arguments(definition: Tool, arguments: str) -> str:
    """Return arguments, canonical JSON text of an object, with the secrets as `MASK`."""
    return _json(_masked(definition, arguments))


def _masked(definition: Tool, arguments: str) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.json.decode(arguments)
    return mask(values, definition.parameters, frozenset(definition.secret_arguments))


def _filled(template: str, values: dict[str, Any]) -> str:
    # A block of YAML ends with a line break, which is no part of the sentence.
    return templates.fill(" ".join(template.split()), lambda name: _text(values[name]) if name in values else "(none)")


def _plain(name: str, values: dict[str, Any]) -> str:
    # Quoted, so that no text can pass for a further argument.
    inside = ", ".join(f"{_cut(one_line(key), NAME_CHARS)}={_cut_json(value)}" for key, value in values.items())
    return f"{name}({inside})"


def _text(value: Any) -> str:
    return _cut(one_line(value[: VALUE_CHARS + 1]), VALUE_CHARS) if isinstance(value, str) else _cut_json(value)


def _cut_json(value: Any) -> str:
    return _cut(one_line(_json(value)[: VALUE_CHARS + 1]), VALUE_CHARS)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _json(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
