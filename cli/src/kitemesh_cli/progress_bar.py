"""A bar on a terminal that says how far something is; nothing where nobody looks."""

import shutil
import sys
import time
from typing import Final, Self

from kitemesh_runtime.one_line import one_line

_WIDTH: Final = 24
_REDRAW_S: Final = 0.1
_CLEAR: Final = "\r\x1b[K"


class ProgressBar:
    """A bar on standard error. Use it as a context; leaving takes it away.

    Args:
        total: What there is to do, in any unit.

    """

    def __init__(self, total: int) -> None:
        self._total: Final = max(1, total)
        self._is_seen: Final = sys.stderr.isatty()
        self._drawn_s = 0.0
        self._is_drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, done: int, what: str) -> None:
        """Say how much is done and what is under way."""
        now_s = time.monotonic()
        if not self._is_seen or (done < self._total and now_s - self._drawn_s < _REDRAW_S):
            return
        self._drawn_s, self._is_drawn = now_s, True
        share = min(1.0, done / self._total)
        full = int(share * _WIDTH)
        line = f"[{'#' * full}{'.' * (_WIDTH - full)}] {share:4.0%}  {one_line(what)}"
        sys.stderr.write(_CLEAR + line[: shutil.get_terminal_size().columns - 1])
        sys.stderr.flush()

    def clear(self) -> None:
        """Make room for a line of text."""
        if self._is_drawn:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
            self._is_drawn = False
