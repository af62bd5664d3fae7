"""Whether a port can be had and, where the kernel tells, who has it."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_LISTENING: Final = "0A"
_PROC: Final = Path("/proc")


class Owner(NamedTuple):
    """A process that listens."""

    pid: int
    command: str


def binding_error(host: str, port: int) -> OSError | None:
    """Say what would keep a server from listening there now; `None` when nothing would."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.closing(socket.socket(family)) as sock:
        # As servers do: a connection that has just ended does not count.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as exc:
            return exc
        return None


def owner_of(port: int) -> Owner | None:
    """Find the process that listens on a TCP port; `None` when it is another user's or cannot be told here."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not wanted:
        return None
    for folder in _PROC.glob("[0-9]*"):
        # Processes end while we look, and other users' are closed to us.
        with contextlib.suppress(OSError):
            if any(str(link.readlink()) in wanted for link in (folder / "fd").iterdir()):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                return Owner(int(folder.name), b" ".join(words).decode(errors="replace").strip())
    return None


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        try:
            rows = (_PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]
