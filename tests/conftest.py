"""Real servers for the tests: one nats-server and one mongod for the whole run, namespaces for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from real_servers import running_mongod, running_nats


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real nats-server with JetStream."""
    with running_nats(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest.fixture(scope="session")
def mongo_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real mongod."""
    with running_mongod(tmp_path_factory.mktemp("mongo")) as url:
        yield url


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """Undo what a test that runs a command in this process did to the logs."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def repository() -> Path:
    """Folder of the checkout."""
    return Path(__file__).resolve().parent.parent
