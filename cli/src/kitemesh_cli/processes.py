"""Child processes that leave nothing behind: how one is started, how it ended, what it said last.

A child dies with its parent, even when the parent is killed. Who waits for it and restarts it is `children`'s business.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent() -> Callable[[], None] | None:
    """Return what a child runs before exec so that the kernel ends it with its parent; `None` where none can."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def arm() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return arm


def describe_exit(process: subprocess.Popen[bytes]) -> str:
    """Say how a process ended."""
    status = process.returncode
    if status is None:
        return "still runs"
    if status >= 0:
        return f"ended with status {status}"
    # MongoDB is built for processors with AVX, and others stop at its first instruction.
    number = -status
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    hint = " (this processor lacks instructions it needs, such as AVX)" if number == signal.SIGILL else ""
    return f"was ended by {name}{hint}"


def tail(log: Path, lines: int = 5) -> list[str]:
    """Return the last lines of a log, none when there is no log."""
    return log.read_text(errors="replace").splitlines()[-lines:] if log.exists() else []


def spawn(command: list[str], log: Path, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own that dies with this one; it appends what it prints to `log`.

    Call it from the main thread: the kernel ends the child with the *thread* that started it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environ,
            start_new_session=True,
            preexec_fn=die_with_parent(),  # noqa: PLW1509  the child only calls prctl before exec
        )


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process made by `spawn`, and whatever it started and left behind."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
