"""A server for the executor's streams alone."""

from collections.abc import Iterator

import pytest

from integration.bus.rig import OwnServer


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    """A server whose streams nobody else reads."""
    own = OwnServer(tmp_path_factory.mktemp("nats"))
    try:
        yield own
    finally:
        own.kill()
