"""Looking into a catalog's plain values, past whatever has the wrong shape. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

DEFAULT_POOL: Final = "default"


def parts(content: Mapping[str, Any], kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """List the parts of a kind that are readable as such."""
    found = content.get(kind)
    if isinstance(found, Mapping):
        yield from ((name, part) for name, part in found.items() if isinstance(name, str) and isinstance(part, Mapping))


def names_of(content: Mapping[str, Any], kind: str) -> set[str] | None:
    """Return the names of a kind, none when it is left out; `None` when what is given is not readable as such."""
    found = content.get(kind, {})
    return {name for name in found if isinstance(name, str)} if isinstance(found, Mapping) else None


def pools(content: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """Return the pools of a kind; `None` when what is given is not readable as such."""
    found = content.get("pools", {})
    listed = found.get(kind, {DEFAULT_POOL: {}}) if isinstance(found, Mapping) else None
    return listed if isinstance(listed, Mapping) else None


def texts(value: object) -> list[str]:
    """Return the texts of a list."""
    return [each for each in value if isinstance(each, str)] if isinstance(value, list | tuple) else []


def twice(listed: Iterable[str]) -> list[str]:
    """Return what a list has more than once, each once."""
    seen: set[str] = set()
    found: dict[str, None] = {}
    for each in listed:
        if each in seen:
            found[each] = None
        seen.add(each)
    return list(found)
