"""The grouped writer: what travels together, who hears of which error, and what ends it."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from kitemesh_contracts.errors import BadRequest, Bug, Busy, Conflict, ErrorCode, KitemeshError, Unavailable
from kitemesh_runtime import writer_mongo
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.errors_mongo import duplicate, unavailable
from kitemesh_runtime.stores_mongo import open_stores
from kitemesh_runtime.writer_mongo import GroupedWriter


class Gate:
    """Stands for the server: each group is held until it is let through."""

    def __init__(self, *, opened: bool = False) -> None:
        self.groups: list[list[int]] = []
        self.arrived = asyncio.Queue[list[int]]()
        self.errors: dict[int, KitemeshError] = {}
        self.failure: Exception | None = None
        self._permits = asyncio.Semaphore(1000 if opened else 0)

    def let_through(self) -> None:
        self._permits.release()

    async def write(self, operations: Sequence[int]) -> Mapping[int, KitemeshError]:
        group = list(operations)
        self.groups.append(group)
        self.arrived.put_nowait(group)
        await self._permits.acquire()
        if self.failure is not None:
            raise self.failure
        return {index: self.errors[number] for index, number in enumerate(group) if number in self.errors}


@pytest.mark.requirement("store:groups-writes")
async def test_the_first_goes_at_once_and_what_arrives_meanwhile_goes_together() -> None:
    gate = Gate()
    async with asyncio.timeout(5), GroupedWriter(gate.write) as writer:
        first = writer.submit(0)
        assert await gate.arrived.get() == [0]
        rest = [writer.submit(n) for n in range(1, 151)]
        gate.let_through()
        await first
        assert not any(done.done() for done in rest)
        assert await gate.arrived.get() == list(range(1, 101))
        gate.let_through()
        assert await gate.arrived.get() == list(range(101, 151))
        assert all(done.done() for done in rest[:100])
        gate.let_through()
        await asyncio.gather(*rest)
    assert len(gate.groups) == 3


@pytest.mark.requirement("store:groups-writes")
async def test_one_at_a_time_is_written_one_at_a_time_without_waiting() -> None:
    gate = Gate(opened=True)
    async with asyncio.timeout(5), GroupedWriter(gate.write) as writer:
        for n in range(3):
            await writer.submit(n)
    assert gate.groups == [[0], [1], [2]]


async def test_a_group_is_bounded_in_bytes_but_takes_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_mongo, "GROUP_MAX_BYTES", 100)
    gate = Gate(opened=True)
    async with asyncio.timeout(5), GroupedWriter(gate.write) as writer:
        await asyncio.gather(*(writer.submit(n, size_bytes=size) for n, size in enumerate([500, 60, 40, 1, 0])))
    assert gate.groups == [[0], [1, 2], [3, 4]]


@pytest.mark.requirement("store:groups-writes")
async def test_each_caller_hears_of_its_own_error_only() -> None:
    gate = Gate(opened=True)
    gate.errors = {1: duplicate(), 3: BadRequest(ErrorCode.REQUEST_INVALID, "no")}
    async with asyncio.timeout(5), GroupedWriter(gate.write) as writer:
        outcomes = await asyncio.gather(*(writer.submit(n) for n in range(5)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), Conflict, type(None), BadRequest, type(None)]


async def test_when_the_store_is_down_the_group_and_all_behind_it_fail_at_once_and_later_ones_are_tried() -> None:
    gate = Gate()
    gate.failure = unavailable()
    async with asyncio.timeout(5), GroupedWriter(gate.write) as writer:
        sent = [writer.submit(n) for n in range(2)]
        await gate.arrived.get()
        queued = [writer.submit(n) for n in range(2, 5)]
        gate.let_through()
        outcomes = await asyncio.gather(*sent, *queued, return_exceptions=True)
        assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
        assert gate.groups == [[0, 1]]
        gate.failure = None
        gate.let_through()
        await writer.submit(5)
    assert gate.groups == [[0, 1], [5]]


async def test_a_failure_that_nobody_foresaw_fails_its_group_and_not_the_writer() -> None:
    gate = Gate(opened=True)
    gate.failure = RuntimeError("surprise")
    async with asyncio.timeout(5), GroupedWriter(gate.write) as writer:
        with pytest.raises(Bug) as raised:
            await writer.submit(0)
        assert raised.value.__cause__ is gate.failure
        gate.failure = None
        await writer.submit(1)


async def test_a_caller_that_gives_up_takes_only_its_own_unsent_operation_away() -> None:
    gate = Gate()
    async with asyncio.timeout(5), GroupedWriter(gate.write) as writer:

        async def submit(n: int) -> None:
            await writer.submit(n)

        sent, neighbour = asyncio.create_task(submit(0)), asyncio.create_task(submit(1))
        assert await gate.arrived.get() == [0, 1]
        queued, last = writer.submit(2), writer.submit(3)
        sent.cancel()
        queued.cancel()
        gate.let_through()
        await neighbour
        assert await gate.arrived.get() == [3]
        gate.let_through()
        await last
        assert sent.cancelled()


async def test_a_full_queue_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_mongo, "QUEUE_MAX", 3)
    monkeypatch.setattr(writer_mongo, "QUEUE_MAX_BYTES", 100)
    gate = Gate()
    async with asyncio.timeout(5), GroupedWriter(gate.write) as writer:
        sent = writer.submit(0, size_bytes=1000)
        await gate.arrived.get()
        queued = [writer.submit(1, size_bytes=90)]
        with pytest.raises(Busy):
            writer.submit(2, size_bytes=20)
        queued += [writer.submit(n) for n in (3, 4)]
        with pytest.raises(Busy) as raised:
            writer.submit(5)
        assert raised.value.retry_after_s is not None
        gate.let_through()
        gate.let_through()
        await asyncio.gather(sent, *queued)


async def test_leaving_writes_what_is_queued_and_refuses_more() -> None:
    gate = Gate()
    async with asyncio.timeout(5):
        async with GroupedWriter(gate.write) as writer:
            first = writer.submit(0)
            await gate.arrived.get()
            queued = writer.submit(1)
            gate.let_through()
            gate.let_through()
        assert first.done()
        assert queued.done()
        with pytest.raises(Unavailable) as raised:
            writer.submit(2)
        assert raised.value.code is ErrorCode.DRAINING


async def test_leaving_does_not_wait_for_ever() -> None:
    gate = Gate()
    async with asyncio.timeout(5):
        async with GroupedWriter(gate.write, close_timeout_s=0.01) as writer:
            sent = writer.submit(0)
            await gate.arrived.get()
            queued = writer.submit(1)
        for done in (sent, queued):
            with pytest.raises(Unavailable):
                await done


async def test_on_the_server_an_operation_that_cannot_be_encoded_fails_alone(database: Database, tenant: str) -> None:
    async with open_stores(database) as stores:
        create = stores.conversations.create
        names = [f"{tenant}-{n}" for n in range(4)]
        outcomes = await asyncio.gather(
            *(create(tenant, name, "one", agent=None) for name in names[:2]),
            create(tenant, f"{tenant}-bad", "\ud800", agent=None),
            *(create(tenant, name, "one", agent=None) for name in names[2:]),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [bool, bool, BadRequest, bool, bool]
        for name in names:
            assert await stores.conversations.get(tenant, name) is not None
        assert await stores.conversations.get(tenant, f"{tenant}-bad") is None
