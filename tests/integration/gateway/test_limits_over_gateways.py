"""Three gateways' limiters on one real store, and a store that goes away."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from msgspec import Struct

from kitemesh_gateway.limiter import Limited, Limiter, Permit
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.driver_mongo import open_database
from kitemesh_runtime.stores_mongo import open_stores
from kitemesh_runtime.tenancy import Limits
from real_servers import running_mongod

GATEWAYS = 3
BURST_S = 10.0


class Asker(Struct, frozen=True):
    tenant: str = "acme"
    key: str = ""
    limits: Limits = Limits()
    tenant_limits: Limits = Limits()


async def open_limiters(stack: AsyncExitStack, mongo_url: str, name: str) -> list[Limiter]:
    limiters = []
    for n in range(GATEWAYS):
        database = await stack.enter_async_context(open_database(mongo_url, name=name, timeout_s=0.5))
        stores = await stack.enter_async_context(open_stores(database))
        limiters.append(Limiter(stores.budgets, f"g{n}", lambda: GATEWAYS, SystemClock(), burst_s=BURST_S, budget_s=60))
    return limiters


@pytest.fixture
async def limiters(mongo_url: str) -> AsyncIterator[list[Limiter]]:
    async with AsyncExitStack() as stack:
        yield await open_limiters(stack, mongo_url, f"limits_{uuid.uuid4().hex[:12]}")


async def attempt(limiter: Limiter, asker: Asker) -> Permit | None:
    try:
        return await limiter.admit(asker)
    except Limited:
        return None


async def overload(limiters: list[Limiter], asker: Asker, seconds: float) -> int:
    """Ask all the time at every gateway; return how many requests were let through."""
    end = time.monotonic() + seconds
    admitted = 0

    async def press(limiter: Limiter) -> None:
        nonlocal admitted
        while time.monotonic() < end:
            told = await asyncio.gather(*(attempt(limiter, asker) for _ in range(10)))
            admitted += sum(permit is not None for permit in told)
            await asyncio.sleep(0.01)

    running = [asyncio.create_task(limiter.run()) for limiter in limiters]
    await asyncio.gather(*(press(limiter) for limiter in limiters))
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    return admitted


@pytest.mark.requirement("promise:P18")
async def test_three_gateways_on_one_store_let_the_limit_through_and_no_more(limiters: list[Limiter]) -> None:
    per_minute, seconds = 600, 2.0
    asker = Asker(key=uuid.uuid4().hex, limits=Limits(requests_per_minute=per_minute))
    began = time.monotonic()
    admitted = await overload(limiters, asker, seconds)
    elapsed_s = time.monotonic() - began
    burst = per_minute / 60 * BURST_S
    assert burst + 0.8 * per_minute / 60 * seconds <= admitted <= burst + per_minute / 60 * elapsed_s + 0.05 * burst


@pytest.mark.requirement("limits:turns-at-once-are-exact")
async def test_of_many_turns_at_once_on_three_gateways_exactly_as_many_run_as_may(limiters: list[Limiter]) -> None:
    asker = Asker(tenant=uuid.uuid4().hex, tenant_limits=Limits(concurrent_turns=7))

    async def begin(n: int) -> bool:
        limiter = limiters[n % GATEWAYS]
        try:
            await limiter.reserve(await limiter.admit(asker), f"turn-{n}", 100)
        except Limited:
            return False
        return True

    assert sum(await asyncio.gather(*(begin(n) for n in range(30)))) == 7


@pytest.mark.requirement("promise:P18")
async def test_a_store_that_dies_leaves_a_local_limit_and_no_request_waits_long(tmp_path: Path) -> None:
    per_minute = 600
    async with AsyncExitStack() as stack:
        with running_mongod(tmp_path) as url:
            limiters = await open_limiters(stack, url, "limits")
            asker = Asker(key="k", limits=Limits(requests_per_minute=per_minute))
            for limiter in limiters:
                assert await attempt(limiter, asker)
        began_s = time.monotonic()
        slowest_s, admitted = 0.0, 0
        for _ in range(per_minute):
            for limiter in limiters:
                asked_s = time.monotonic()
                admitted += await attempt(limiter, asker) is not None
                slowest_s = max(slowest_s, time.monotonic() - asked_s)
        assert slowest_s < 1.5
        assert 0 < admitted <= per_minute / 60 * (BURST_S + time.monotonic() - began_s) * 1.05
