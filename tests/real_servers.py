"""A nats-server or a mongod for as long as it is needed; one that does not start is a failure, never a skip."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kitemesh_cli import servers


@contextmanager
def running_nats(folder: Path, *, more: str = "") -> Iterator[str]:
    """Yield the URL of a nats-server with JetStream; `more` is configuration."""
    port = servers.free_port()
    with _ended(servers.start_nats(folder / "data", port, folder / "log", more=more)) as process:
        servers.wait_listening(process, port, timeout_s=15, log=folder / "log")
        yield f"nats://{servers.LOOPBACK}:{port}"


@contextmanager
def running_mongod(folder: Path, *flags: str) -> Iterator[str]:
    """Yield the URL of a mongod."""
    port = servers.free_port()
    with _ended(servers.start_mongod(folder / "data", port, folder / "log", *flags)) as process:
        servers.wait_listening(process, port, timeout_s=30, log=folder / "log")
        yield f"mongodb://{servers.LOOPBACK}:{port}/?directConnection=true"


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.kill()
        process.wait()
