"""Servers that the suite itself starts, kills, freezes and starts again, each on its port and, if asked, a small disk.

Which flags a server needs is `kitemesh_cli.servers`' business, what a set of them is for that of its callers.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from chaos.small_disk import SmallDisk
from kitemesh_cli.processes import spawn
from kitemesh_cli.servers import mongod_command, nats_command, wait_listening

START_S: Final = 30.0


class Node:
    """One server process.

    Args:
        name: Names its log.
        folder: Where its log is, and its data if it has no `disk`.
        port: Where it listens.
        command: What starts it, given the folder of its data.
        disk: Where its data are.

    """

    def __init__(
        self, name: str, folder: Path, port: int, command: Callable[[Path], Sequence[str]], disk: SmallDisk | None
    ) -> None:
        self.name: Final = name
        self.port: Final = port
        self.log: Final = folder / f"{name}.log"
        self._data = folder / name if disk is None else disk.folder
        self._command = command
        self._disk = disk
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and return once its port accepts connections."""
        wait_listening(self._spawned(), self.port, timeout_s=START_S, log=self.log)

    async def start_beside(self) -> None:
        """Do the same beside what else the loop has to do; from the main thread, whose end ends the process."""
        process = self._spawned()
        await asyncio.to_thread(wait_listening, process, self.port, timeout_s=START_S, log=self.log)

    def kill(self) -> None:
        """End it as a crash does."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def freeze(self) -> None:
        """Stop it where it is; its sockets stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Delete all that a killed server has stored."""
        if self._disk is None:
            shutil.rmtree(self._data)
        else:
            self._disk.wipe()

    def _spawned(self) -> subprocess.Popen[bytes]:
        assert not self.is_running, f"{self.name} runs already"
        self._data.mkdir(parents=True, exist_ok=True)
        prefix = () if self._disk is None else self._disk.inside
        self._process = spawn([*prefix, *self._command(self._data)], self.log)
        return self._process

    def _signal(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, how)


def nats_node(name: str, folder: Path, port: int, *, more: str = "", disk: SmallDisk | None = None) -> Node:
    """Describe a nats-server; `more` is further configuration."""
    # The configuration is beside the data, which may lie on a disk that only the server's process sees.
    home = folder / f"{name}-conf"
    return Node(
        name, folder, port, lambda data: nats_command(home, port, name=name, store=data / "jetstream", more=more), disk
    )


def mongod_node(name: str, folder: Path, port: int, *more: str, disk: SmallDisk | None = None) -> Node:
    """Describe a mongod; `more` are further flags."""
    return Node(name, folder, port, lambda data: mongod_command(data, port, *more), disk)


@contextlib.contextmanager
def running(*nodes: Node) -> Iterator[None]:
    """Have servers while inside."""
    try:
        for node in nodes:
            node.start()
        yield
    finally:
        for node in nodes:
            node.kill()
