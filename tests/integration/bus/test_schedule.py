"""Messages that the server sends later, and whether a stream has one, on a real nats-server."""

import asyncio
import time

import pytest

from kitemesh_contracts import topology
from kitemesh_runtime import topology_nats
from kitemesh_runtime.bus import Delivery
from kitemesh_runtime.bus_nats import NatsBus

STREAM = topology.StreamSpec(
    "TST_TIMER",
    ("tst.timer.>",),
    "limits",
    "memory",
    3600.0,
    allow_schedules=True,
    consumers=(topology.ConsumerSpec("due", "TST_TIMER", "tst.timer.due.>", 5.0, 5),),
)


@pytest.fixture
async def due(own_bus: NatsBus) -> asyncio.Queue[Delivery]:
    await topology_nats.apply(own_bus, (STREAM,), replicas=1)
    arrived: asyncio.Queue[Delivery] = asyncio.Queue()
    pull = await own_bus.pull("TST_TIMER", "due", arrived.put_nowait)
    pull.add_credit(10)
    return arrived


async def test_a_scheduled_message_goes_to_its_target_when_its_time_has_come(
    own_bus: NatsBus, due: asyncio.Queue[Delivery]
) -> None:
    at_s = time.time() + 1.0
    await own_bus.schedule("tst.timer.at.a", "tst.timer.due.a", b"now", at_s=at_s, msg_id="a:1")
    async with asyncio.timeout(10):
        delivery = await due.get()
    assert (delivery.subject, delivery.data) == ("tst.timer.due.a", b"now")
    assert time.time() >= at_s - 0.05


async def test_a_time_that_has_passed_is_now(own_bus: NatsBus, due: asyncio.Queue[Delivery]) -> None:
    await own_bus.schedule("tst.timer.at.b", "tst.timer.due.b", b"late", at_s=time.time() - 60, msg_id="b:1")
    async with asyncio.timeout(10):
        assert (await due.get()).data == b"late"


async def test_a_later_message_of_the_same_name_takes_the_first_ones_place(
    own_bus: NatsBus, due: asyncio.Queue[Delivery]
) -> None:
    soon_s = time.time() + 1.0
    await own_bus.schedule("tst.timer.at.c", "tst.timer.due.c", b"first", at_s=soon_s + 60, msg_id="c:1")
    await own_bus.schedule("tst.timer.at.c", "tst.timer.due.c", b"second", at_s=soon_s, msg_id="c:2")
    async with asyncio.timeout(10):
        assert (await due.get()).data == b"second"


async def test_a_stream_tells_whether_it_has_a_message_on_a_subject(own_bus: NatsBus) -> None:
    await topology_nats.apply(own_bus, (STREAM,), replicas=1)
    await own_bus.send("tst.timer.kept.x.turn-1", b"{}", msg_id="kept")
    assert await own_bus.holds("TST_TIMER", "tst.timer.kept.x.turn-1")
    assert await own_bus.holds("TST_TIMER", "tst.timer.kept.*.turn-1")
    assert not await own_bus.holds("TST_TIMER", "tst.timer.kept.*.turn-2")
