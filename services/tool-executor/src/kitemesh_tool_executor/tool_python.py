"""Tools that are Python functions: typed arguments in, text out.

The one that ships has no effect outside itself, so it may run any number of times.
"""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec

from kitemesh_contracts.errors import ErrorCode, ToolFailed

A = TypeVar("A", bound=msgspec.Struct)


class TextToMeasure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `measure_text`."""

    text: str


def measure_text(arguments: TextToMeasure) -> str:
    """Count the characters, words and lines of a text."""
    text = arguments.text
    counts = {"characters": len(text), "words": len(text.split()), "lines": len(text.splitlines())}
    return msgspec.json.encode(counts).decode()


class PythonTool(Generic[A]):
    """A function with the struct that its arguments must satisfy."""

    def __init__(self, arguments: type[A], function: Callable[[A], str]) -> None:
        self._decoder: Final = msgspec.json.Decoder(arguments)
        self._function: Final = function

    async def run(self, arguments: str) -> str:
        """Validate the arguments, then call the function."""
        try:
            decoded = self._decoder.decode(arguments.encode())
        except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
            raise ToolFailed(ErrorCode.TOOL_FAILED, f"The arguments do not fit: {exc}") from exc
        return self._function(decoded)
