"""Cancels and signs of life over a real NATS."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import CancelTurn
from kitemesh_runtime.beats import Pulse, Signs, beat
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.cancels import MEMORY_S, Cancels
from kitemesh_runtime.clock import SystemClock


class HandClock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def new_id(self) -> str:
        return "id"


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[NatsBus]:
    async with open_bus(nats_url, name="broadcast-test") as bus:
        yield bus


def cancel(turn: str, reason: str = "stop") -> bytes:
    return codec.encode(CancelTurn(turn=turn, tenant="acme", reason=reason))


@pytest.mark.requirement("classic:cancel-is-repeated")
async def test_a_repeated_cancel_is_heard_once_and_remembered_for_a_minute(bus: NatsBus) -> None:
    clock, heard = HandClock(), []
    cancels = Cancels(clock, heard.append)
    await cancels.listen(bus)
    for _ in range(3):
        bus.publish(subjects.cancel("broadcast-1"), cancel("broadcast-1"))
    await bus.barrier()
    assert [each.turn for each in heard] == ["broadcast-1"]
    clock.now += MEMORY_S - 1
    bus.publish(subjects.cancel("broadcast-2"), cancel("broadcast-2"))
    await bus.barrier()
    assert cancels.reason("broadcast-1") == "stop"
    clock.now += 2
    bus.publish(subjects.cancel("broadcast-3"), cancel("broadcast-3"))
    await bus.barrier()
    assert cancels.reason("broadcast-1") is None
    assert cancels.reason("broadcast-2") == "stop"


async def test_the_end_of_a_stored_turn_stops_its_work_each_time_and_is_not_remembered(bus: NatsBus) -> None:
    heard: list[CancelTurn] = []
    cancels = Cancels(HandClock(), heard.append)
    await cancels.listen(bus)
    ended = CancelTurn(turn="broadcast-5", tenant="acme", reason="it was given up", ended=True)
    for _ in range(2):
        bus.publish(subjects.cancel("broadcast-5"), codec.encode(ended))
    await bus.barrier()
    assert (heard, cancels.reason("broadcast-5")) == ([ended, ended], None)
    bus.publish(subjects.cancel("broadcast-5"), cancel("broadcast-5"))
    bus.publish(subjects.cancel("broadcast-5"), codec.encode(ended))
    await bus.barrier()
    assert cancels.reason("broadcast-5", durable=True) == "stop"


async def test_what_is_no_cancel_is_ignored(bus: NatsBus) -> None:
    cancels = Cancels(HandClock())
    await cancels.listen(bus)
    bus.publish(subjects.cancel("broadcast-4"), b"\xff nonsense")
    bus.publish(subjects.cancel("broadcast-5"), cancel("broadcast-5"))
    await bus.barrier()
    assert cancels.reason("broadcast-4") is None
    assert cancels.reason("broadcast-5") == "stop"


@pytest.mark.requirement("classic:silent-gateway")
async def test_a_replica_that_beats_is_not_silent_and_one_that_stops_is(bus: NatsBus) -> None:
    clock = HandClock()
    pulse = Pulse(clock)
    await pulse.listen(bus, "broadcast-test")
    assert pulse.silent_s("replica-1") == 0.0
    clock.now += 9
    assert pulse.silent_s("replica-1") == 9.0
    heard = asyncio.Event()
    await bus.subscribe(subjects.beats_of("broadcast-test"), lambda *_: heard.set())
    await bus.barrier()
    beating = asyncio.create_task(beat(bus, "broadcast-test", "replica-1", lambda: Signs(3), SystemClock()))
    async with asyncio.timeout(5):
        await heard.wait()
    beating.cancel()
    await asyncio.wait({beating})
    assert pulse.silent_s("replica-1") == 0.0
    clock.now += 11
    assert pulse.silent_s("replica-1") == 11.0
