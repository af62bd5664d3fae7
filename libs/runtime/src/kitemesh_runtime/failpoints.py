"""Named places where a test makes a process die, stop or stumble. Off unless `KITEMESH_FAILPOINT` names one.

`KITEMESH_FAILPOINT=name:action[:n][@file]`: on the n-th pass (1 by default) through `name` do `kill` (SIGKILL itself),
`stop` (SIGSTOP itself), `sleep` (30 s) or `raise` (`Unavailable`). Several are separated by commas.
`exec_and_timeout` runs the guarded call and then reports a time-out.

It happens once in each process, and one that is started again has the same environment. With a `file` it happens at
every pass from the n-th on that can take a byte off the file's end: a test says when, and how often over all of them.
"""

import asyncio
import fcntl
import os
import signal
from collections.abc import Awaitable
from pathlib import Path
from typing import Final, TypeVar

from kitemesh_contracts.errors import ErrorCode, Unavailable

T = TypeVar("T")

ACTIONS: Final = frozenset({"kill", "stop", "sleep", "raise", "exec_and_timeout"})
SLEEP_S: Final = 30.0


class _Armed:
    def __init__(self, action: str, nth: int, file: str) -> None:
        self.action = action
        self.left = nth
        self.file = file

    def due(self) -> bool:
        self.left -= 1
        if self.file:
            return self.left <= 0 and _shorten(Path(self.file))
        return self.left == 0


def _shorten(path: Path) -> bool:
    """Take a byte off a file's end; tell whether there was one."""
    try:
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            file.truncate(max(0, size - 1))
    except FileNotFoundError:
        return False
    return size > 0


def parse(text: str) -> dict[str, _Armed]:
    """Read the variable's value.

    Raises:
        ValueError: It is not `name:action[:n][@file]`, comma-separated.

    """
    armed: dict[str, _Armed] = {}
    for entry in filter(None, text.split(",")):
        point, _, file = entry.partition("@")
        name, _, rest = point.partition(":")
        action, _, nth = rest.partition(":")
        if action not in ACTIONS or (nth and not nth.isdigit()):
            raise ValueError(
                f"failpoint {entry!r} is not name:action[:n][@file] with one of {', '.join(sorted(ACTIONS))}"
            )
        armed[name] = _Armed(action, int(nth or 1), file)
    return armed


_armed: dict[str, _Armed] = parse(os.environ.get("KITEMESH_FAILPOINT", ""))


async def reach(name: str) -> None:
    """Pass a failpoint; free when none is armed."""
    if not _armed:
        return
    point = _armed.get(name)
    if point is None or point.action == "exec_and_timeout" or not point.due():
        return
    if point.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif point.action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif point.action == "sleep":
        await asyncio.sleep(SLEEP_S)
    else:
        raise Unavailable(ErrorCode.INTERNAL, f"failpoint {name}")


async def guard(name: str, call: Awaitable[T]) -> T:
    """Run a call whose outcome a failpoint may make ambiguous: it runs, and a time-out is reported."""
    result = await call
    point = _armed.get(name) if _armed else None
    if point is not None and point.action == "exec_and_timeout" and point.due():
        raise Unavailable(ErrorCode.INTERNAL, f"failpoint {name}: ran, then timed out")
    return result
