"""A small disk: a file system of a given size in a mount namespace of its own, to be filled and freed from outside.

A keeper process holds it, so that it outlives the servers on it; when the keeper ends, the disk is gone. It needs no
privilege but user namespaces, and mounts nothing where anybody else could see it.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from chaos.waiting import await_true
from kitemesh_cli.processes import kill_group, spawn

MOUNT_S: Final = 10.0
FILL_BYTES: Final = 64 * 1024

_KEEP: Final = 'mount -t tmpfs -o "size=$1" none "$2" && exec sleep infinity'
_LAST: Final = ("setpriv", "--pdeathsig", "KILL")


class SmallDisk:
    """A disk; made by `small_disk`.

    Args:
        folder: Where it is mounted, for processes started with `inside`.
        size_bytes: Of the whole file system.
        keeper: The process id of the keeper.

    """

    def __init__(self, folder: Path, size_bytes: int, keeper: int) -> None:
        self.folder: Final = folder
        self.inside: Final = ("nsenter", "--target", str(keeper), "--user", "--mount", "--preserve-credentials", *_LAST)
        """What goes before a command that is to see the disk."""
        self._size_bytes = size_bytes
        self._root = Path(f"/proc/{keeper}/root{folder.absolute()}")

    @property
    def is_mounted(self) -> bool:
        """Whether it is a file system of its own."""
        try:
            found = os.statvfs(self._root)
        except OSError:
            return False
        return found.f_blocks * found.f_frsize == self._size_bytes

    @property
    def free_bytes(self) -> int:
        """How much fits."""
        found = os.statvfs(self._root)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """Leave no room for a single block."""
        assert self.is_mounted, "not the small disk"
        with contextlib.suppress(OSError), (self._root / "ballast").open("ab", buffering=0) as file:
            while True:
                file.write(b"x" * FILL_BYTES)

    def wipe(self) -> None:
        """Delete what is on it."""
        for path in self._root.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def free(self) -> None:
        """Give back what `fill` took."""
        (self._root / "ballast").unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(folder: Path, size_mb: int) -> Iterator[SmallDisk]:
    """Have a disk while inside."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["unshare", "--user", "--map-root-user", "--mount", *_LAST]
    log = folder.with_name(f"{folder.name}-disk.log")
    keeper: subprocess.Popen[bytes] = spawn([*command, "sh", "-c", _KEEP, "sh", f"{size_mb}m", str(folder)], log)
    try:
        disk = SmallDisk(folder, size_mb * 2**20, keeper.pid)
        await_true(lambda: disk.is_mounted or keeper.poll() is not None, "the disk is mounted", timeout_s=MOUNT_S)
        assert disk.is_mounted, f"no disk of its own here: {log.read_text()}"
        yield disk
    finally:
        kill_group(keeper)
        keeper.wait()
