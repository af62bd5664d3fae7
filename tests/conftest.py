"""Real servers for the tests: one nats-server and one mongod for the whole run, namespaces for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kitemesh_cli import servers


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real nats-server with JetStream; it is never skipped when it does not start."""
    folder = tmp_path_factory.mktemp("nats")
    port = servers.free_port()
    process = servers.start_nats(folder / "data", port, folder / "log")
    try:
        servers.wait_listening(process, port, timeout_s=15, log=folder / "log")
        yield f"nats://{servers.LOOPBACK}:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def mongo_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real mongod; it is never skipped when it does not start."""
    folder = tmp_path_factory.mktemp("mongo")
    port = servers.free_port()
    process = servers.start_mongod(folder / "data", port, folder / "log")
    try:
        servers.wait_listening(process, port, timeout_s=30, log=folder / "log")
        yield f"mongodb://{servers.LOOPBACK}:{port}/?directConnection=true"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def repository() -> Path:
    """Folder of the checkout."""
    return Path(__file__).resolve().parent.parent
