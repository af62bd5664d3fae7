"""Waiting, bounded, for what another process does: it sets no event here, so one looks again and again."""

import time
from collections.abc import Callable
from typing import Final

WAIT_S: Final = 30.0
LOOK_S: Final = 0.05


def await_true(condition: Callable[[], bool], what: str, *, timeout_s: float = WAIT_S) -> None:
    """Return once it is so.

    Raises:
        AssertionError: It was not in time.

    """
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(LOOK_S)
