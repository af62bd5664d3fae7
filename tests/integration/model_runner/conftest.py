"""A misbehaving upstream for the whole run, clean for each test."""

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

import upstream as upstreams
from integration.bus.rig import OwnServer
from kitemesh_model_runner.provider_openai import open_session


@pytest.fixture(scope="session")
def upstream_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[upstreams.Upstream]:
    """Run the stub."""
    with upstreams.start_upstream(tmp_path_factory.mktemp("upstream") / "log") as running:
        yield running


@pytest.fixture
async def upstream(upstream_process: upstreams.Upstream) -> upstreams.Upstream:
    """The stub, having seen nothing."""
    await upstream_process.reset()
    return upstream_process


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """The session that endpoints share."""
    async with open_session() as opened:
        yield opened


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    """A server whose streams nobody else reads."""
    own = OwnServer(tmp_path_factory.mktemp("nats"))
    try:
        yield own
    finally:
        own.kill()
