"""JSON Schemas of tools: compiled once, nothing fetched, no schema and no pattern that costs without bound.

Patterns run on an engine that is linear in the text, so lookaround is refused. It knows no tool and no catalog.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import jsonschema_rs
import msgspec

PROBLEMS_MAX: Final = 10
PROBLEM_MAX_CHARACTERS: Final = 300
SCHEMA_MAX_BYTES: Final = 128 * 1024
SCHEMA_MAX_DEPTH: Final = 64
PATTERN_MAX_BYTES: Final = 1024 * 1024
"""Of one compiled pattern."""

VISITS_MAX: Final = 1_000_000
"""Subschemas that a schema may amount to with its references written out: about 15 ms of work."""
VISITS_TO_EXPLAIN: Final = 2_000
"""Beyond it, and for a schema that contains itself, only yes or no: to explain takes exponential time."""

_KEPT: Final = 1024
_UNFIT: Final = "do not satisfy the schema"
_encode: Final = msgspec.json.Encoder(order="sorted").encode


class SchemaRefused(Exception):
    """A schema cannot be used; the text is one sentence for the operator."""


class Schema:
    """A compiled schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Compile it.

        Raises:
            SchemaRefused: It is no schema, refers to what is not in it, or costs too much.

        """
        visits = _Visits(schema)
        self._explains: Final = not visits.recursive and visits.total <= VISITS_TO_EXPLAIN
        try:
            self._validator: Final = jsonschema_rs.validator_for(
                dict(schema),
                mask="the value",
                offline=True,
                pattern_options=jsonschema_rs.RegexOptions(
                    size_limit=PATTERN_MAX_BYTES, dfa_size_limit=PATTERN_MAX_BYTES
                ),
            )
        except jsonschema_rs.ValidationError as exc:
            raise SchemaRefused(_sentence(exc)) from exc
        except (ValueError, jsonschema_rs.ReferencingError) as exc:
            raise SchemaRefused(_cut(str(exc))) from exc

    def problems(self, arguments: object) -> list[str]:
        """Say what is wrong with decoded arguments, a few sentences that quote none of them; empty when nothing is."""
        if self._validator.is_valid(arguments):
            return []
        if not self._explains:
            return [f"the arguments {_UNFIT}"]
        found = islice(self._validator.iter_errors(arguments), PROBLEMS_MAX)
        return [_sentence(each) for each in found] or [f"the arguments {_UNFIT}"]


def compiled(schema: Mapping[str, Any]) -> Schema:
    """Return the schema, compiled when it is seen for the first time.

    Raises:
        SchemaRefused: It cannot be used.

    """
    try:
        return _compile(_encode(schema))
    except (TypeError, RecursionError, UnicodeError, ValueError) as exc:
        raise SchemaRefused("the schema is not JSON") from exc


def problems(schema: Mapping[str, Any], arguments: object) -> list[str]:
    """Say what is wrong with arguments; see `Schema.problems`.

    Raises:
        SchemaRefused: The schema cannot be used.

    """
    return compiled(schema).problems(arguments)


def check(schema: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with a schema; empty when it can be used."""
    try:
        compiled(schema)
    except SchemaRefused as exc:
        return [str(exc)]
    return []


@lru_cache(_KEPT)
def _compile(text: bytes) -> Schema:
    if len(text) > SCHEMA_MAX_BYTES:
        raise SchemaRefused(f"the schema is larger than {SCHEMA_MAX_BYTES} bytes")
    return Schema(msgspec.json.decode(text))


class _Visits:
    """How many subschemas a schema amounts to, its references written out.

    Attributes:
        recursive: It contains itself, or refers in a way that is not followed here.

    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._root: Final = schema
        self._known: dict[int, int] = {}
        self._open: set[int] = set()
        self.recursive = False
        self.total = self._count(schema, SCHEMA_MAX_DEPTH)

    def _count(self, part: object, depth: int) -> int:
        if not isinstance(part, dict | list):
            return 0
        place = id(part)
        if place in self._open:
            self.recursive = True
            return 1
        if place in self._known:
            return self._known[place]
        if depth == 0:
            raise SchemaRefused("the schema nests too deep")
        self._open.add(place)
        total = 1
        for child in self._children(part):
            total += self._count(child, depth - 1)
            if total > VISITS_MAX:
                raise SchemaRefused("the schema's references amount to more than can be checked in time")
        self._open.discard(place)
        self._known[place] = total
        return total

    def _children(self, part: dict[str, Any] | list[Any]) -> Iterator[object]:
        if isinstance(part, list):
            yield from part
            return
        for key, child in part.items():
            if key in ("$dynamicRef", "$recursiveRef"):
                self.recursive = True
            elif key == "$ref" and isinstance(child, str):
                yield self._target(child)
            else:
                yield child

    def _target(self, reference: str) -> object:
        found: Any = self._root
        for token in reference.removeprefix("#").split("/")[1:]:
            key = token.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict):
                found = found.get(key)
            elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            else:
                found = None
        if not reference.startswith("#") or (len(reference) > 1 and found is self._root):
            # By an anchor or an id: whether it is in the schema at all is the library's to say.
            self.recursive = True
            return None
        return found


def _sentence(error: jsonschema_rs.ValidationError) -> str:
    path = ".".join(str(each) for each in error.instance_path)
    return _cut(f"{path}: {error.message}" if path else error.message)


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= PROBLEM_MAX_CHARACTERS else line[: PROBLEM_MAX_CHARACTERS - 1] + "…"
