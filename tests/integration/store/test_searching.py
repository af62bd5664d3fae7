"""Searches beside everything else: few at once, and slow without the server counting as lost."""

import asyncio

import pytest

from kitemesh_contracts.errors import Unavailable
from kitemesh_runtime import searching_mongo
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.driver_mongo import open_database, ping
from kitemesh_runtime.searching_mongo import AT_ONCE, Searching


@pytest.mark.requirement("conversation:searched-by-its-words")
async def test_a_search_that_is_not_answered_in_time_leaves_the_store_up(mongo_url: str) -> None:
    state = Dependency("mongodb")
    async with open_database(mongo_url, name="searching", dependency=state, timeout_s=0.2) as database:
        async with asyncio.timeout(10):
            while not state.is_up:
                await ping(database)
        with pytest.raises(Unavailable):
            await Searching(database).run(lambda: asyncio.sleep(60))
        assert state.is_up


async def test_only_a_few_search_at_once_and_the_others_are_told(
    mongo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching_mongo, "WAIT_S", 0.05)
    go, full, begun = asyncio.Event(), asyncio.Event(), 0

    async def search() -> int:
        nonlocal begun
        begun += 1
        if begun == AT_ONCE:
            full.set()
        await go.wait()
        return begun

    async with open_database(mongo_url, name="searching") as database, asyncio.timeout(10):
        searching = Searching(database)
        running = [asyncio.create_task(searching.run(search)) for _ in range(AT_ONCE)]
        await full.wait()
        with pytest.raises(Unavailable):
            await searching.run(search)
        # Who does not wait any more leaves its search running, and its slot taken.
        running[0].cancel()
        with pytest.raises(Unavailable):
            await searching.run(search)
        go.set()
        assert await running[1] == AT_ONCE
        assert await searching.run(search) == AT_ONCE + 1
