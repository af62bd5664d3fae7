"""Closing ends for certain, whatever the connection is doing."""

import asyncio

import pytest

from kitemesh_runtime import connection_nats


async def test_a_task_that_loses_its_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_nats, "CANCEL_AGAIN_S", 0.01)
    begun = asyncio.Event()
    lost: list[str] = []

    async def deaf_once() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            lost.append("first")
        await asyncio.Event().wait()

    task = asyncio.create_task(deaf_once())
    await begun.wait()
    async with asyncio.timeout(5):
        await connection_nats.end([task])
    assert task.cancelled()
    assert lost == ["first"]
