"""The health port as an orchestrating system asks it."""

from typing import NamedTuple

import aiohttp
import pytest

from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.health import serve_health

STORE = "store-of-the-health-test"


class Answer(NamedTuple):
    status: int
    text: str


class Health:
    """A health port whose service and store do as the test says."""

    def __init__(self) -> None:
        self.is_ready = False
        self.store = Dependency(STORE)

    async def ask(self, *paths: str) -> list[Answer]:
        """Ask each path of a port that is served for that long."""
        async with (
            serve_health("127.0.0.1", 0, is_ready=lambda: self.is_ready, dependencies=[self.store]) as port,
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        ):
            answers = []
            for path in paths:
                async with session.get(path) as answer:
                    answers.append(Answer(answer.status, await answer.text()))
            return answers


@pytest.fixture
async def health() -> Health:
    return Health()


@pytest.mark.requirement("health:alive", "health:ready")
async def test_a_process_is_alive_before_it_is_ready(health: Health) -> None:
    assert await health.ask("/livez", "/readyz") == [
        Answer(200, '{"status": "alive"}'),
        Answer(503, '{"status": "not ready"}'),
    ]
    health.is_ready = True
    assert await health.ask("/readyz") == [Answer(200, '{"status": "ready"}')]


@pytest.mark.requirement("health:dependencies", "health:ready")
async def test_a_dependency_that_is_down_is_named_and_takes_nobody_out_of_service(health: Health) -> None:
    health.is_ready = True
    health.store.mark_up()
    health.store.mark_down("it does not answer")
    ready, healthy = await health.ask("/readyz", "/healthz")
    state = '{"up": false, "reason": "it does not answer"}'
    assert ready.status == 200
    assert healthy == Answer(503, f'{{"status": "degraded", "ready": true, "dependencies": {{"{STORE}": {state}}}}}')
    health.store.mark_up()
    (healthy,) = await health.ask("/healthz")
    state = '{"up": true, "reason": ""}'
    assert healthy == Answer(200, f'{{"status": "healthy", "ready": true, "dependencies": {{"{STORE}": {state}}}}}')
