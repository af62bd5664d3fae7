"""An engine for each test."""

from collections.abc import AsyncIterator

import pytest

from integration.orchestrator.rig import Rig, running


@pytest.fixture
async def rig(nats_url: str) -> AsyncIterator[Rig]:
    async with running(nats_url) as ready:
        yield ready
