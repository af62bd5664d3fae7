"""Notices that the terminal this runs in was closed, even when nobody sends SIGHUP.

The kernel sends it to the session's leader only. Where that is `make`, which waits for its child, nobody else hears.
"""

import asyncio
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Final

_LOOK_EVERY_S: Final = 1.0


async def watch_terminal(closed: Callable[[], None]) -> None:
    """Call back once when the terminal that this runs in the foreground of is gone; else never."""
    descriptor = sys.stdin.fileno() if sys.stdin is not None and not sys.stdin.closed else -1
    # Under nohup SIGHUP is ignored: then the person wants it to outlive the terminal.
    if descriptor < 0 or not os.isatty(descriptor) or signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        return
    poll = select.poll()
    poll.register(descriptor, 0)
    was_in_foreground = False
    while not poll.poll(0):
        was_in_foreground = _is_in_foreground(descriptor)
        await asyncio.sleep(_LOOK_EVERY_S)
    # A job that was sent to the background is meant to stay.
    if was_in_foreground:
        closed()


def _is_in_foreground(descriptor: int) -> bool:
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False
