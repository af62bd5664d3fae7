"""Texts with `{{name}}` in them: plain substitution and nothing else. Pure; no attribute, no code, no second pass."""

import re
from collections.abc import Callable
from typing import Final

_PLACE: Final = re.compile(r"\{\{([^{}]*)\}\}")


def names(template: str) -> list[str]:
    """Return what the places of a template name, in order."""
    return _PLACE.findall(template)


def fill(template: str, value: Callable[[str], str]) -> str:
    """Put a value into each place; what a value holds is never read as a template."""
    return _PLACE.sub(lambda place: value(place[1]), template)


def is_whole(template: str) -> bool:
    """Say whether every brace pair in it is a place with a name."""
    rest = _PLACE.sub("", template)
    return "{{" not in rest and "}}" not in rest and all(name.strip() == name != "" for name in names(template))
