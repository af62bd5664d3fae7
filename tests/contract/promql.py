"""What an expression of PromQL names: read by its words, for promtool tells whether it can be parsed."""

import re
from collections.abc import Iterator
from typing import Final

_TEXT: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_RANGE: Final = re.compile(r"\[[^\]]*\]")
_SELECTOR: Final = re.compile(r"\{[^}]*\}")
_GROUPING: Final = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_OFFSET: Final = re.compile(r"\boffset\s+\w+")
_WORD: Final = re.compile(r"[a-zA-Z_:][\w:]*(?!\w)(?!\s*\()")
_SELECTED: Final = re.compile(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}")
_LABEL: Final = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_OPERATORS: Final = {"and", "or", "unless", "bool", "sum", "max", "min", "count", "avg"}


def series(expr: str) -> set[str]:
    """Return the names of the series that an expression asks for."""
    for part in (_TEXT, _RANGE, _SELECTOR, _GROUPING, _OFFSET):
        expr = part.sub(" ", expr)
    return {word for word in _WORD.findall(expr) if word not in _OPERATORS}


def selected(expr: str) -> Iterator[tuple[str, set[str]]]:
    """Return each series that is asked for by labels, and which."""
    for name, labels in _SELECTED.findall(_TEXT.sub('""', expr)):
        yield name, set(_LABEL.findall(labels))


def grouped(expr: str) -> set[str]:
    """Return the labels that are kept."""
    return {label.strip() for _, labels in _GROUPING.findall(expr) for label in labels.split(",") if label.strip()}
