"""What the gauges of queues say, asked of a real server's leaders."""

import asyncio
import math
from typing import Any

import pytest
from structlog.testing import capture_logs

from integration.bus.rig import OwnServer, jetstream
from kitemesh_contracts import subjects
from kitemesh_contracts.topology import CONTROL, DEAD, EVENT, MODEL, TIMER, TOOL, TURN, Pool, pool_of, topology
from kitemesh_runtime.bus import Delivery
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.metrics import REGISTRY
from kitemesh_runtime.queue_gauges import AGED, QUEUES, SILENCE_S, QueueGauges
from kitemesh_runtime.topology_nats import apply

POOLS = (Pool("default"), Pool("big-gpu", 2))


class MovableClock(SystemClock):
    """The machine's clock, put forward by the test."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


def shown(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"kitemesh_{name}", labels)


def queue(stream: str, pool: str = "") -> tuple[float | None, ...]:
    """Return depth, in flight and redelivered as shown."""
    return tuple(shown(f"queue_{what}", stream=stream, pool=pool) for what in ("depth", "in_flight", "redelivered"))


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
async def gauges(own_bus: NatsBus, clock: MovableClock) -> QueueGauges:
    await apply(own_bus, topology(POOLS, POOLS), replicas=1)
    return QueueGauges(own_bus, clock)


async def put(bus: NatsBus, *jobs: tuple[str, str, int]) -> None:
    for n, (pool, priority, lane) in enumerate(jobs):
        subject = f"km.v1.model.{pool}.{priority}.{lane}.turn-{n}"
        await bus.send(subject, b"{}", msg_id=f"{pool}:{n}", timeout_s=5)


async def taken(bus: NatsBus, consumer: str, most: int) -> list[Delivery]:
    """Take so many jobs and answer none."""
    deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
    pull = await bus.pull(MODEL, consumer, deliveries.put_nowait)
    pull.add_credit(most)
    async with asyncio.timeout(10):
        return [await deliveries.get() for _ in range(most)]


async def test_a_queues_messages_are_counted_over_its_priorities_and_lanes(
    own_bus: NatsBus, gauges: QueueGauges
) -> None:
    wide = [("big-gpu", priority, lane) for priority in ("interactive", "batch") for lane in (0, 1)]
    await put(own_bus, *wide, ("default", "interactive", 0))
    await put(own_bus, ("default", "interactive", 0), ("default", "interactive", 0))
    again, _ = await taken(own_bus, "default-interactive-0", 2)
    again.nak()
    async with asyncio.timeout(10):
        while queue(MODEL, "default")[2] != 1:
            await gauges.look()
            # What was handed back waits for the credit of the next worker.
            await own_bus.barrier()
            await taken(own_bus, "default-interactive-0", 1)
    assert queue(MODEL, "big-gpu") == (4, 0, 0)
    assert queue(TOOL, "default") == (0, 0, 0)
    for stream in (TURN, CONTROL, EVENT, TIMER, DEAD):
        assert queue(stream) == (0, 0, 0)


async def test_the_age_of_the_oldest_message_grows_until_it_is_done(own_bus: NatsBus, gauges: QueueGauges) -> None:
    await gauges.look()
    assert [shown("queue_oldest_seconds", stream=stream) for stream in AGED] == [0] * len(AGED)
    await put(own_bus, ("default", "interactive", 0))
    await gauges.look()
    first = shown("queue_oldest_seconds", stream=MODEL)
    await gauges.look()
    second = shown("queue_oldest_seconds", stream=MODEL)
    assert first is not None
    assert second is not None
    assert 0 < first < second < 10
    (delivery,) = await taken(own_bus, "default-interactive-0", 1)
    await gauges.look()
    # Work in hand ages as well.
    assert (shown("queue_oldest_seconds", stream=MODEL) or 0) > second
    delivery.ack()
    async with asyncio.timeout(10):
        while shown("queue_oldest_seconds", stream=MODEL):
            await gauges.look()


async def test_dead_letters_are_counted_until_they_are_dropped(own_bus: NatsBus, gauges: QueueGauges) -> None:
    for n, turn in enumerate(("one", "one", "two")):
        receipt = await own_bus.send(subjects.dead(MODEL, turn), b"{}", msg_id=f"dead:{n}", timeout_s=5)
    await gauges.look()
    assert shown("dead_letters_waiting") == 3
    await jetstream(own_bus, f"STREAM.MSG.DELETE.{DEAD}", {"seq": receipt.sequence})
    await gauges.look()
    assert shown("dead_letters_waiting") == 2


@pytest.mark.requirement("metrics:queues-agree")
async def test_every_replica_is_told_the_same(own_bus: NatsBus, server: OwnServer, gauges: QueueGauges) -> None:
    await put(own_bus, ("default", "interactive", 0), ("big-gpu", "batch", 1))
    await gauges.look()
    seen = {stream: queue(stream, "default") for stream in (MODEL, TOOL)}
    async with open_bus(server.url, name="second") as second:
        await QueueGauges(second, SystemClock()).look()
    assert {stream: queue(stream, "default") for stream in (MODEL, TOOL)} == seen


async def test_a_pool_that_was_taken_away_is_shown_no_more(own_bus: NatsBus, gauges: QueueGauges) -> None:
    await gauges.look()
    assert queue(MODEL, "big-gpu") == (0, 0, 0)
    for priority in ("interactive", "batch"):
        for lane in (0, 1):
            await jetstream(own_bus, f"CONSUMER.DELETE.{MODEL}.big-gpu-{priority}-{lane}")
    await gauges.look()
    assert queue(MODEL, "big-gpu") == (None, None, None)
    assert queue(MODEL, "default") == (0, 0, 0)
    assert queue(TOOL, "big-gpu") == (0, 0, 0)


@pytest.mark.requirement("metrics:queues-agree")
async def test_what_cannot_be_asked_is_unknown_after_a_while_and_is_told_once(
    own_bus: NatsBus, server: OwnServer, gauges: QueueGauges, clock: MovableClock
) -> None:
    await put(own_bus, ("default", "interactive", 0))
    await gauges.look()
    server.kill()
    with capture_logs() as logs:
        await gauges.look()
        assert queue(MODEL, "default") == (1, 0, 0)
        clock.ahead_s = SILENCE_S
        await gauges.look()
    assert all(math.isnan(each) for each in queue(MODEL, "default") if each is not None)
    unknown = [shown("queue_oldest_seconds", stream=MODEL), shown("dead_letters_waiting"), queue(TURN)[0]]
    assert all(each is not None and math.isnan(each) for each in unknown)
    asked = len(QUEUES) + len(AGED) + 1
    assert [entry["event"] for entry in logs if entry["event"].startswith("queue.")] == ["queue.not_seen"] * asked
    server.start()
    await own_bus.wait_connected(10)
    with capture_logs() as logs:
        async with asyncio.timeout(15):
            while queue(MODEL, "default") != (1, 0, 0) or math.isnan(shown("dead_letters_waiting") or 0):
                await gauges.look()
    assert {entry["event"] for entry in logs if entry["event"].startswith("queue.")} == {"queue.seen"}


async def test_one_stream_that_is_missing_does_not_hide_the_others(own_bus: NatsBus, gauges: QueueGauges) -> None:
    await jetstream(own_bus, f"STREAM.DELETE.{EVENT}")
    with capture_logs() as logs:
        await gauges.look()
    told: list[Any] = [entry["queue"] for entry in logs if entry["event"] == "queue.not_seen"]
    assert sorted(told) == [EVENT, f"{EVENT} oldest"]
    assert queue(TURN) == (0, 0, 0)


@pytest.mark.parametrize(
    ("stream", "consumer", "pool"),
    [
        (MODEL, "default-interactive-0", "default"),
        (TOOL, "big-gpu-batch-15", "big-gpu"),
        (TURN, "orchestrator-turn", ""),
        (MODEL, "somebody-elses", None),
        (MODEL, "default-urgent-0", None),
        (MODEL, "default-batch-x", None),
    ],
)
def test_a_consumer_tells_whose_pool_it_is(stream: str, consumer: str, pool: str | None) -> None:
    assert pool_of(stream, consumer) == pool
