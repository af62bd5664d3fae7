"""The arguments of a call while a model writes them: what of their text may be told already, and what they are. Pure.

Nobody is shown what is secret in them. The text of a tool that has declared something secret is not told at all, that
of any other up to the first name that announces a secret; the complete arguments are told with those parts masked.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kitemesh_runtime.catalog_tools import Tool
from kitemesh_runtime.secret_arguments import mask
from kitemesh_runtime.secret_names import is_secret_name

_IN_STRING: Final = re.compile(r'["\\]')
_BETWEEN: Final = re.compile(r'[":]')
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})


class Arguments:
    """The arguments of one call.

    Args:
        tool: As the catalog has it; `None` when it is not a tool of this server's.

    """

    __slots__ = ("_is_open", "_names", "_text", "_told", "_tool")

    def __init__(self, tool: Tool | None) -> None:
        self._tool: Final = tool
        self._is_open = tool is None or not (tool.secret_arguments or _hides(tool.parameters))
        self._names = _Names()
        self._text = ""
        self._told = 0

    def restart(self) -> None:
        """Be told from the beginning, by another attempt; what was told stays told."""
        self._names = _Names()
        self._text = ""

    def add(self, piece: str) -> str:
        """Take more of the text and return what of it is to be told now."""
        self._text += piece
        if not self._is_open:
            return ""
        if any(map(_is_secret, self._names.read(self._text))):
            # What follows is, or may be, the secret.
            self._is_open = False
            return ""
        told, self._told = self._told, max(len(self._text), self._told)
        return self._text[told:]

    def complete(self) -> dict[str, Any] | None:
        """Return the arguments without what is secret; `None` when the text is not that of an object."""
        try:
            values = msgspec.json.decode(self._text or "{}")
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            return None
        if not isinstance(values, dict):
            return None
        if self._tool is None:
            return mask(values, {}, frozenset())
        return mask(values, self._tool.parameters, frozenset(self._tool.secret_arguments))


class _Names:
    """The names in a JSON text that grows."""

    __slots__ = ("_begin", "_last", "_read")

    def __init__(self) -> None:
        self._read = 0
        self._begin: int | None = None
        self._last = ""

    def read(self, text: str) -> list[str]:
        """Return the names that the text has besides those that were returned; they are as they are written."""
        names: list[str] = []
        while (mark := (_BETWEEN if self._begin is None else _IN_STRING).search(text, self._read)) is not None:
            if mark[0] == "\\":
                if mark.end() == len(text):
                    # What it stands before is still to come.
                    self._read = mark.start()
                    return names
                self._read = mark.end() + 1
                continue
            self._read = mark.end()
            if mark[0] == ":":
                names.append(self._last)
            elif self._begin is None:
                self._begin = mark.end()
            else:
                self._last, self._begin = text[self._begin : mark.start()], None
        self._read = len(text)
        return names


def _is_secret(written: str) -> bool:
    try:
        name = msgspec.json.decode(f'"{written}"', type=str)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return True
    return is_secret_name(name)


def _hides(schema: object) -> bool:
    """Tell whether a schema says, or may say, that something is secret."""
    if isinstance(schema, Mapping):
        if schema.get("writeOnly") is True or schema.get("format") == "password" or not _REFERENCES.isdisjoint(schema):
            return True
        return any(_hides(each) for each in schema.values())
    return isinstance(schema, list | tuple) and any(_hides(each) for each in schema)
