"""One supervisor for each data folder: a file lock that the kernel releases, whatever becomes of its holder."""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Final, NamedTuple

from kitemesh_cli.failures import Failed


class Holder(NamedTuple):
    """Who runs a cluster from a data folder."""

    pid: int
    url: str


class DevLock:
    """The lock, while this process lives."""

    def __init__(self, descriptor: int) -> None:
        # Kept open: closing it would release the lock. Children do not inherit it.
        self._descriptor: Final = descriptor

    def release(self) -> None:
        """Let another one in; only what has stopped everything may call this."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def acquire(path: Path, url: str) -> DevLock:
    """Take the lock, or say who has it.

    Raises:
        Failed: Another supervisor runs here.

    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    # Whoever only looks holds a shared lock for an instant.
    for pause_s in (0.05, 0.05, 0.1, None):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as exc:
            if pause_s is not None:
                time.sleep(pause_s)
                continue
            os.close(descriptor)
            held = _read(path)
            who = f"process {held.pid} at {held.url}" if held else "another process"
            message = f"{path.parent} is in use by {who}; `make down` stops it, --data takes another folder"
            raise Failed(message) from exc
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "url": url}).encode() + b"\n", 0)
    return DevLock(descriptor)


def holder(path: Path) -> Holder | None:
    """Return who holds the lock now, or `None`."""
    if not _is_held(path):
        return None
    for pause_s in (0.02, 0.1, 0.5):
        held = _read(path)
        if held is not None:
            return held
        # Its holder is just about to write it, or has just let go.
        time.sleep(pause_s)
    return _read(path) if _is_held(path) else None


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def _read(path: Path) -> Holder | None:
    try:
        kept = json.loads(path.read_text())
        return Holder(int(kept["pid"]), str(kept["url"]))
    except (ValueError, KeyError, TypeError):
        return None
