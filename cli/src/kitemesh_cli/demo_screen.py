"""What the demo shows: flowing text, between its lines what happens, and on a terminal how long nothing has come.

Plain, or where no terminal is, it is the same text without colour and without anything that is taken back.
"""

import asyncio
import contextlib
import os
import re
import shutil
import sys
import time
from collections.abc import AsyncIterator
from typing import Final

_WIDTH_MAX: Final = 80
_SILENT_S: Final = 0.7
_TICK_S: Final = 0.1
_PARTS: Final = re.compile(r"\s+|\S+")
_BOLD, _DIM, _USUAL, _ERASE = "\x1b[1m", "\x1b[2m", "\x1b[0m", "\r\x1b[K"


class Screen:
    """Where everything is written.

    Args:
        plain: No colour and no status line, whatever this runs in.

    """

    def __init__(self, *, plain: bool) -> None:
        fancy = not plain and os.environ.get("TERM") != "dumb"
        self._bold: Final = fancy and sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._live: Final = fancy and sys.stdout.isatty() and sys.stderr.isatty()
        self._width: Final = min(shutil.get_terminal_size((_WIDTH_MAX, 0)).columns, _WIDTH_MAX)
        self._began: Final = time.monotonic()
        self._column = 0
        self._blank = False
        self._status = False
        self._newest = time.monotonic()

    def write(self, text: str) -> None:
        """Let text flow on."""
        self._newest = time.monotonic()
        self._clear()
        for part in _PARTS.findall(text):
            if part.isspace():
                self._blank = bool(self._column)
                continue
            if self._column + self._blank + len(part) > self._width:
                self._break()
            sys.stdout.write(" " + part if self._blank else part)
            self._column += self._blank + len(part)
            self._blank = False
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Say what happens, in a line of its own that begins with the time."""
        line = f"[{time.monotonic() - self._began:5.1f} s] {text}"
        self.line(f"{_BOLD}{line}{_USUAL}" if self._bold else line)

    def line(self, text: str) -> None:
        """Write a line of its own."""
        self._clear()
        self._break()
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Show how long nothing has come, where there is a terminal, while inside."""
        ticking = asyncio.create_task(self._tick(), name="demo-status")
        try:
            yield
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
            self._clear()

    def _break(self) -> None:
        if self._column:
            sys.stdout.write("\n")
            self._column = 0
            self._blank = False

    def _clear(self) -> None:
        if self._status:
            self._status = False
            sys.stderr.write(_ERASE)
            sys.stderr.flush()

    async def _tick(self) -> None:
        while self._live:
            await asyncio.sleep(_TICK_S)
            silent_s = time.monotonic() - self._newest
            if silent_s > _SILENT_S:
                self._break()
                sys.stdout.flush()
                self._status = True
                sys.stderr.write(f"{_ERASE}{_DIM}no text for {silent_s:.1f} s{_USUAL}")
                sys.stderr.flush()
