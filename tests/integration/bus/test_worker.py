"""The worker loop over the real server: outcomes, pauses, heartbeats, handing back."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from integration.bus.rig import Stream, jetstream, make_stream, until
from kitemesh_contracts.errors import Bug, ContractViolation, ErrorCode, Unavailable
from kitemesh_contracts.topology import Lane
from kitemesh_runtime import worker as worker_module
from kitemesh_runtime.bus import Delivery
from kitemesh_runtime.bus_nats import NatsBus
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.slots import WAITING_PER_SLOT
from kitemesh_runtime.worker import Done, Leave, Outcome, Reject, Retry, Worker


class Outcomes:
    """What `observe` was told."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._changed = asyncio.Event()

    def __call__(self, outcome: str, held_s: float) -> None:
        assert held_s >= 0
        self.counts[outcome] += 1
        self._changed.set()

    async def reach(self, outcome: str, count: int) -> None:
        async with asyncio.timeout(15):
            while self.counts[outcome] < count:
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def working(
    bus: NatsBus, stream: Stream, handler: Callable[[Delivery], Awaitable[Outcome]], *, slots: int = 10, **options: Any
) -> AsyncIterator[tuple[Worker, Outcomes]]:
    outcomes = Outcomes()
    worker = Worker(bus, stream.name, [stream.consumer], slots, handler, name="w", observe=outcomes, **options)
    running = asyncio.create_task(worker.run())
    try:
        yield worker, outcomes
    finally:
        async with asyncio.timeout(10):
            await worker.drain(1)
            await running


async def messages(stream: Stream) -> int:
    return int((await stream.state())["messages"])


def emptied(stream: Stream) -> Callable[[], Awaitable[bool]]:
    async def empty() -> bool:
        return await messages(stream) == 0

    return empty


async def test_what_is_done_leaves_the_queue_and_each_message_is_handled_once(bus: NatsBus) -> None:
    stream = await make_stream(bus)
    seen: Counter[bytes] = Counter()
    most = 0

    async def handler(delivery: Delivery) -> Outcome:
        nonlocal most
        most = max(most, worker.in_flight)
        seen[delivery.data] += 1
        await bus.barrier()
        return Done()

    async with working(bus, stream, handler) as (worker, outcomes):
        await stream.put(*(b"%d" % n for n in range(100)))
        await outcomes.reach("done", 100)
    assert seen == {b"%d" % n: 1 for n in range(100)}
    assert most <= 10
    await until(emptied(stream))


@pytest.mark.requirement("worker:retry-costs-no-delivery")
async def test_a_retry_runs_the_handler_again_here_and_costs_no_delivery(bus: NatsBus) -> None:
    stream = await make_stream(bus)
    deliveries: list[int] = []

    async def handler(delivery: Delivery) -> Outcome:
        deliveries.append(delivery.deliveries)
        return Done() if len(deliveries) == 3 else Retry(0.01, "not yet")

    async with working(bus, stream, handler) as (_, outcomes):
        await stream.put(b"x")
        await outcomes.reach("done", 1)
    assert deliveries == [1, 1, 1]
    await until(emptied(stream))


class Patience:
    """A handler whose `stored` messages wait until told otherwise, and which counts who runs at once."""

    def __init__(self, bus: NatsBus) -> None:
        self._bus = bus
        self.away = True
        self.running = self.most = 0
        self.deliveries: Counter[tuple[bytes, int]] = Counter()

    async def __call__(self, delivery: Delivery) -> Outcome:
        self.running += 1
        self.most = max(self.most, self.running)
        await self._bus.barrier()
        self.running -= 1
        if self.away and delivery.data.startswith(b"stored"):
            return Retry(0.05, "")
        self.deliveries[delivery.data, delivery.deliveries] += 1
        return Done()


@pytest.mark.requirement("worker:retry-takes-no-slot")
async def test_what_waits_for_its_retry_keeps_no_other_message_from_being_handled(bus: NatsBus) -> None:
    stream = await make_stream(bus, ack_wait_s=0.5)
    handler = Patience(bus)
    stored, classic = [b"stored%d" % n for n in range(12)], [b"classic%d" % n for n in range(40)]
    async with working(bus, stream, handler, slots=4, heartbeat_s=0.1) as (worker, outcomes):
        await stream.put(*stored)
        await until_in_flight(bus, worker, 12)
        await stream.put(*classic)
        await outcomes.reach("done", 40)
        await still_for(bus, 0.8)  # well past the ack wait
        assert worker.in_flight == 12
        handler.away = False
        await outcomes.reach("done", 52)
    assert handler.deliveries == {(data, 1): 1 for data in [*stored, *classic]}
    assert handler.most <= 4
    await until(emptied(stream))


@pytest.mark.requirement("worker:retry-takes-no-slot")
async def test_so_many_wait_and_no_more_and_afterwards_as_many_are_taken_as_before(bus: NatsBus) -> None:
    stream = await make_stream(bus)
    handler = Patience(bus)
    bound = 2 + 2 * WAITING_PER_SLOT
    async with working(bus, stream, handler, slots=2) as (worker, outcomes):
        await stream.put(*(b"stored%d" % n for n in range(bound + 5)))
        await until_in_flight(bus, worker, bound)
        await still_for(bus, 0.3)
        assert worker.in_flight == bound
        handler.away = False
        await outcomes.reach("done", bound + 5)
        go_on = asyncio.Event()

        async def hang(_delivery: Delivery) -> Outcome:
            await go_on.wait()
            return Done()

        worker._handler = hang
        await stream.put(*(b"%d" % n for n in range(10)))
        await until_in_flight(bus, worker, 2)
        await still_for(bus, 0.3)
        assert worker.in_flight == 2
        go_on.set()
        await outcomes.reach("done", bound + 15)
    assert handler.most <= 2


@pytest.mark.requirement("worker:waits-for-a-dependency")
async def test_a_message_that_cannot_be_given_up_yet_waits_and_others_go_on(
    bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "REJECT_AGAIN_S", 0.02)
    stream = await make_stream(bus)
    tries = 0

    async def handler(delivery: Delivery) -> Outcome:
        return Reject("no known kind") if delivery.data == b"bad" else Done()

    async def tell(_delivery: Delivery, _reason: str) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise Unavailable(ErrorCode.STORE_DOWN, "gone")

    async with working(bus, stream, handler, slots=1, on_reject=tell) as (worker, outcomes):
        await stream.put(b"bad", b"good")
        await outcomes.reach("done", 1)
        assert not worker.paused
        await outcomes.reach("rejected", 1)
    assert outcomes.counts == {"done": 1, "rejected": 1}


@pytest.mark.requirement("worker:outdated-is-left")
async def test_what_is_left_frees_its_slot_and_is_neither_removed_nor_given_back(bus: NatsBus) -> None:
    stream = await make_stream(bus, ack_wait_s=0.5)
    seen: list[tuple[bytes, int]] = []

    async def handler(delivery: Delivery) -> Outcome:
        seen.append((delivery.data, delivery.deliveries))
        return Leave() if seen == [(b"1", 1)] else Done()

    async with working(bus, stream, handler, slots=1, heartbeat_s=0.1) as (worker, outcomes):
        await stream.put(b"1")
        await outcomes.reach("left", 1)
        assert (await messages(stream), worker.in_flight) == (1, 0)
        await stream.put(b"2")
        await outcomes.reach("done", 2)
    assert seen == [(b"1", 1), (b"2", 1), (b"1", 2)]


@pytest.mark.requirement("worker:outdated-is-left")
async def test_a_release_that_finds_the_message_in_other_hands_leaves_it_there(bus: NatsBus) -> None:
    stream = await make_stream(bus)

    async def stuck(_delivery: Delivery) -> Outcome:
        await asyncio.Event().wait()
        return Done()

    async def release(_delivery: Delivery) -> Leave:
        return Leave()

    async with working(bus, stream, stuck, on_release=release) as (worker, outcomes):
        await stream.put(b"1")
        await until_in_flight(bus, worker, 1)
        await worker.drain(0)
        assert outcomes.counts == {"released": 1}
        assert (await stream.waiting())["num_ack_pending"] == 1


@pytest.mark.requirement("worker:outdated-is-left")
async def test_what_reaches_a_process_that_stood_still_is_left_to_whoever_has_it_now(
    bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await make_stream(bus, ack_wait_s=2)
    handled: list[tuple[bytes, int]] = []
    thawed = asyncio.Event()
    original = bus.barrier

    async def handler(delivery: Delivery) -> Outcome:
        handled.append((delivery.data, delivery.deliveries))
        return Done()

    async def barrier() -> None:
        await original()
        # Sent before the message to itself, and so before it woke up.
        worker._receiver(0)(old[1])
        thawed.set()

    await stream.put(b"1", b"2")
    old = [await taken(bus, stream) for _ in range(2)]
    async with working(bus, stream, handler, heartbeat_s=0.1) as (worker, outcomes):
        await bus.barrier()
        with monkeypatch.context() as patch:
            patch.setattr(bus, "barrier", barrier)
            # It has not got round to its heartbeat yet, and the delivery is what it finds first.
            worker._beaten_s = time.monotonic() - worker_module.STANDSTILL_S
            worker._receiver(0)(old[0])
            assert outcomes.counts == {"left": 1}
            async with asyncio.timeout(5):
                await thawed.wait()
        assert outcomes.counts == {"left": 2}
        await outcomes.reach("done", 2)
    assert sorted(handled) == [(b"1", 2), (b"2", 2)]


async def taken(bus: NatsBus, stream: Stream) -> Delivery:
    """Take a delivery as another process would."""
    found: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
    pull = await bus.pull(stream.name, stream.consumer, found.set_result)
    pull.add_credit(1)
    async with asyncio.timeout(5):
        delivery = await found
    await pull.stop()
    return delivery


@pytest.mark.requirement("dead-letter:one-reference", "log:no-content")
@pytest.mark.parametrize("by", ["outcome", "violation"])
async def test_a_reject_gives_the_message_up_and_logs_ids_but_no_content(bus: NatsBus, by: str) -> None:
    stream = await make_stream(bus)

    async def handler(_delivery: Delivery) -> Outcome:
        if by == "violation":
            raise ContractViolation("no known kind")
        return Reject("no known kind")

    with capture_logs() as logs:
        async with working(bus, stream, handler) as (_, outcomes):
            await bus.send(stream.subject("turn-1"), b"secret", msg_id="1")
            await outcomes.reach("rejected", 1)
            await until(emptied(stream))
    [entry] = [entry for entry in logs if entry["event"] == "delivery.rejected"]
    assert entry["reason"] == "no known kind"
    assert (entry["subject"], entry["sequence"], entry["deliveries"]) == (stream.subject("turn-1"), 1, 1)
    assert "secret" not in repr(logs)


@pytest.mark.requirement("worker:waits-for-a-dependency")
async def test_while_a_dependency_is_down_it_pulls_no_more_and_keeps_what_it_holds(bus: NatsBus) -> None:
    stream = await make_stream(bus, ack_wait_s=0.5)
    gate = Dependency("store")
    runs: Counter[bytes] = Counter()
    deliveries: set[int] = set()
    down = True

    async def handler(delivery: Delivery) -> Outcome:
        runs[delivery.data] += 1
        deliveries.add(delivery.deliveries)
        if down:
            raise Unavailable(ErrorCode.STORE_DOWN, "gone")
        return Done()

    async with working(bus, stream, handler, slots=5, gate=gate, heartbeat_s=0.1) as (worker, outcomes):
        await stream.put(b"0", b"1", b"2")
        await outcomes.reach("unavailable", 3)
        assert worker.paused
        await stream.put(*(b"%d" % n for n in range(3, 10)))  # two slots are free, but nothing more is taken
        await still_for(bus, 0.8)  # well past the ack wait
        assert (worker.in_flight, len(runs), sum(runs.values())) == (3, 3, 3)
        assert (await stream.waiting())["num_ack_pending"] == 3
        assert (await stream.waiting())["num_waiting"] == 0
        down = False
        gate.mark_up()
        await outcomes.reach("done", 10)
        assert not worker.paused
    assert deliveries == {1}
    await until(emptied(stream))


async def still_for(bus: NatsBus, seconds: float) -> None:
    """Let real time pass, by round trips, where the point of a test is that nothing happens meanwhile."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        await bus.barrier()


async def test_without_a_gate_backoff_alone_tries_again(bus: NatsBus) -> None:
    stream = await make_stream(bus)
    runs = 0

    async def handler(_delivery: Delivery) -> Outcome:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise Unavailable(ErrorCode.STORE_DOWN, "gone")
        return Done()

    async with working(bus, stream, handler, slots=1) as (worker, outcomes):
        await stream.put(b"1", b"2")
        await outcomes.reach("done", 2)
        assert not worker.paused
    assert outcomes.counts == {"unavailable": 2, "done": 2}


@pytest.mark.requirement("worker:waits-for-a-dependency")
@pytest.mark.parametrize("then", [ContractViolation("gone for good"), ZeroDivisionError()])
async def test_a_pause_ends_with_the_delivery_that_caused_it_however_that_ends(
    bus: NatsBus, monkeypatch: pytest.MonkeyPatch, then: Exception
) -> None:
    monkeypatch.setattr(worker_module, "REDELIVER_S", 60.0)
    stream = await make_stream(bus)
    down = True

    async def handler(delivery: Delivery) -> Outcome:
        nonlocal down
        if delivery.data == b"fine":
            return Done()
        if down:
            down = False
            raise Unavailable(ErrorCode.STORE_DOWN, "gone")
        raise then

    async with working(bus, stream, handler) as (worker, outcomes):
        await stream.put(b"x")
        await outcomes.reach("unavailable", 1)
        await stream.put(b"fine")
        await outcomes.reach("done", 1)
        assert not worker.paused


@pytest.mark.requirement("worker:heartbeat")
async def test_heartbeats_keep_a_slow_handler_s_message_from_redelivery(bus: NatsBus) -> None:
    stream = await make_stream(bus, ack_wait_s=0.5)
    deliveries: list[int] = []

    async def handler(delivery: Delivery) -> Outcome:
        deliveries.append(delivery.deliveries)
        await still_for(bus, 1.3)
        return Done()

    async with working(bus, stream, handler, heartbeat_s=0.1) as (_, outcomes):
        await stream.put(b"x")
        await outcomes.reach("done", 1)
    assert deliveries == [1]
    await until(emptied(stream))


@pytest.mark.requirement("worker:crash-goes-to-redelivery")
async def test_an_unexpected_error_is_tried_again_then_left_to_redelivery(
    bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "REDELIVER_S", 0.05)
    stream = await make_stream(bus)
    runs: list[int] = []

    async def handler(delivery: Delivery) -> Outcome:
        runs.append(delivery.deliveries)
        if len(runs) <= 1 + worker_module.CRASHES_MAX:
            raise ZeroDivisionError
        return Done()

    with capture_logs() as logs:
        async with working(bus, stream, handler) as (_, outcomes):
            await stream.put(b"x")
            await outcomes.reach("done", 1)
    assert runs == [1, 1, 1, 2]
    assert outcomes.counts == {"failed": 1, "done": 1}
    crashes = [entry for entry in logs if entry["event"] == "delivery.crashed"]
    assert [entry["crashes"] for entry in crashes] == [1, 2, 3]
    assert all(entry["exc_info"] for entry in crashes)


@pytest.mark.requirement("worker:drain-takes-nothing-new")
async def test_draining_lets_a_running_handler_finish_and_takes_nothing_new(bus: NatsBus) -> None:
    stream = await make_stream(bus)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handler(_delivery: Delivery) -> Outcome:
        entered.set()
        await leave.wait()
        return Done()

    async with working(bus, stream, handler, slots=1) as (worker, outcomes):
        await stream.put(b"1")
        await entered.wait()
        draining = [asyncio.create_task(worker.drain(10)) for _ in range(2)]
        await stream.put(b"2")
        assert not draining[0].done()
        leave.set()
        async with asyncio.timeout(5):
            await asyncio.gather(*draining)
        await worker.drain(10)
    assert outcomes.counts == {"done": 1}

    async def one_left() -> bool:
        return await messages(stream) == 1

    await until(one_left)


@pytest.mark.requirement("classic:hand-back-on-drain")
async def test_what_is_still_held_when_the_time_is_up_is_released_and_acknowledged(bus: NatsBus) -> None:
    stream = await make_stream(bus)
    released: list[bytes] = []
    cancelled: list[bytes] = []

    async def handler(delivery: Delivery) -> Outcome:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(delivery.data)
            raise
        return Done()

    async def release(delivery: Delivery) -> None:
        await bus.barrier()
        released.append(delivery.data)

    async with working(bus, stream, handler, on_release=release) as (worker, outcomes):
        await stream.put(b"1", b"2")
        await until_in_flight(bus, worker, 2)
        async with asyncio.timeout(5):
            await worker.drain(0.05)
    assert sorted(released) == sorted(cancelled) == [b"1", b"2"]
    assert outcomes.counts == {"released": 2}
    await until(emptied(stream))


async def until_in_flight(bus: NatsBus, worker: Worker, count: int) -> None:
    async def reached() -> bool:
        await bus.barrier()
        return worker.in_flight == count

    await until(reached)


async def test_without_a_way_to_release_the_message_is_given_back_for_another_worker(bus: NatsBus) -> None:
    stream = await make_stream(bus)

    async def stuck(_delivery: Delivery) -> Outcome:
        await asyncio.Event().wait()
        return Done()

    async with working(bus, stream, stuck) as (worker, _):
        await stream.put(b"1")
        await until_in_flight(bus, worker, 1)
        await worker.drain(0)
    assert await redelivered(bus, stream) == [2]


async def redelivered(bus: NatsBus, stream: Stream) -> list[int]:
    """Let another worker take what is left and tell how often each was delivered."""
    deliveries: list[int] = []

    async def handler(delivery: Delivery) -> Outcome:
        deliveries.append(delivery.deliveries)
        return Done()

    async with working(bus, stream, handler) as (_, outcomes):
        await outcomes.reach("done", 1)
    return deliveries


async def test_a_release_that_fails_gives_the_message_back(bus: NatsBus) -> None:
    stream = await make_stream(bus)

    async def handler(_delivery: Delivery) -> Outcome:
        return Retry(60, "later")

    async def release(_delivery: Delivery) -> None:
        raise Unavailable(ErrorCode.BUS_DOWN, "gone")

    with capture_logs() as logs:
        async with working(bus, stream, handler, on_release=release) as (worker, outcomes):
            await stream.put(b"1")
            await until_in_flight(bus, worker, 1)
            async with asyncio.timeout(5):
                await worker.drain(60)  # what only waits is not waited for
    assert outcomes.counts == {"released": 1}
    assert "delivery.release_failed" in [entry["event"] for entry in logs]

    assert await redelivered(bus, stream) == [2]


@pytest.mark.requirement("worker:drain-takes-nothing-new")
async def test_stopping_now_cuts_a_drain_short(bus: NatsBus) -> None:
    stream = await make_stream(bus)

    async def stuck(_delivery: Delivery) -> Outcome:
        await asyncio.Event().wait()
        return Done()

    async with working(bus, stream, stuck) as (worker, outcomes):
        await stream.put(b"1")
        await until_in_flight(bus, worker, 1)
        draining = asyncio.create_task(worker.drain(60))
        await bus.barrier()
        assert not draining.done()
        worker.stop_now()
        async with asyncio.timeout(5):
            await draining
    assert outcomes.counts == {"released": 1}


async def test_several_consumers_are_pulled_at_once(bus: NatsBus) -> None:
    stream = await make_stream(bus, retention="limits")
    stream.consumer = "d"
    await stream.create_consumer()
    seen: Counter[bytes] = Counter()

    async def handler(delivery: Delivery) -> Outcome:
        seen[delivery.data] += 1
        return Done()

    outcomes = Outcomes()
    worker = Worker(bus, stream.name, ["c", "d"], 1, handler, name="w", observe=outcomes)
    running = asyncio.create_task(worker.run())
    await stream.put(*(b"%d" % n for n in range(10)))
    await outcomes.reach("done", 20)
    await worker.drain(1)
    await running
    assert seen == {b"%d" % n: 2 for n in range(10)}


async def make_lanes(bus: NatsBus, *lanes: Lane) -> Stream:
    """Make a stream with a consumer for each lane, over the subjects that end in its name and a number."""
    stream = await make_stream(bus)
    await stream.delete_consumer()
    for lane in lanes:
        config = {
            "durable_name": lane.consumer,
            "ack_policy": "explicit",
            "filter_subject": f"{stream.name}.{lane.consumer}.*",
        }
        question = f"CONSUMER.CREATE.{stream.name}.{lane.consumer}.{config['filter_subject']}"
        await jetstream(bus, question, {"stream_name": stream.name, "config": config})
    return stream


LANES = (Lane("urgent", "interactive", 0, 8), Lane("later", "batch", 0, 1))


@pytest.mark.requirement("fair:weights-hold-under-saturation")
async def test_a_flood_of_one_priority_neither_holds_up_the_other_nor_leaves_a_slot_idle(bus: NatsBus) -> None:
    stream = await make_lanes(bus, *LANES)
    order: list[str] = []
    go_on, running = asyncio.Event(), 0
    most = 0

    async def handler(delivery: Delivery) -> Outcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go_on.wait()
        await bus.barrier()
        running -= 1
        order.append(delivery.subject.split(".")[1])
        return Done()

    outcomes = Outcomes()
    worker = Worker(bus, stream.name, LANES, 4, handler, name="w", pool="p", observe=outcomes)
    working = asyncio.create_task(worker.run())
    await stream.put(*(b"later.%d" % n for n in range(200)))
    await until_in_flight(bus, worker, 4)
    await stream.put(*(b"urgent.%d" % n for n in range(40)))
    # The urgent ones are asked for one by one while no slot is free.
    await until_in_flight(bus, worker, 5)
    go_on.set()
    await outcomes.reach("done", 240)
    first = order[: order.index("urgent") + 45]
    assert first.count("urgent") >= 34
    assert most == 4
    assert [(queue.priority, queue.waiting, queue.done) for queue in worker.queues()] == [
        ("interactive", 0, 40),
        ("batch", 0, 200),
    ]
    await worker.drain(1)
    await working


async def test_a_worker_without_a_free_slot_asks_what_waits_in_its_queues(
    bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "BEAT_EVERY_S", 0.05)
    stream = await make_lanes(bus, *LANES)
    go_on = asyncio.Event()
    ask, errors = bus.waiting, iter((Unavailable(ErrorCode.BUS_DOWN, "away"), Bug("it may not ask")))

    async def waiting(stream: str, consumer: str) -> int:
        if error := next(errors, None):
            raise error
        return await ask(stream, consumer)

    monkeypatch.setattr(bus, "waiting", waiting)

    async def handler(_delivery: Delivery) -> Outcome:
        await go_on.wait()
        return Done()

    outcomes = Outcomes()
    worker = Worker(bus, stream.name, LANES, 1, handler, name="w", pool="p", observe=outcomes)
    working = asyncio.create_task(worker.run())
    await stream.put(b"urgent.0")
    await until_in_flight(bus, worker, 1)
    await stream.put(*(b"urgent.%d" % n for n in range(1, 8)))

    async def told() -> bool:
        await bus.barrier()
        # What a request of before still brings waits here.
        return worker.queues()[0].waiting + worker.in_flight == 8 and worker.queues()[0].waiting > 0

    await until(told)
    assert worker.queues()[0].pool == "p"
    go_on.set()
    await outcomes.reach("done", 8)
    assert worker.queues()[0].waiting == 0
    await worker.drain(1)
    await working


async def test_what_waits_for_a_slot_is_handed_back_when_the_worker_stops(bus: NatsBus) -> None:
    stream = await make_lanes(bus, *LANES)

    async def stuck(_delivery: Delivery) -> Outcome:
        await asyncio.Event().wait()
        return Done()

    outcomes = Outcomes()
    worker = Worker(bus, stream.name, LANES, 1, stuck, name="w", observe=outcomes)
    working = asyncio.create_task(worker.run())
    await stream.put(b"later.1")
    await until_in_flight(bus, worker, 1)
    await stream.put(b"urgent.1")
    await until_in_flight(bus, worker, 2)
    assert (worker.slots, len(worker.queues())) == (1, 2)
    async with asyncio.timeout(5):
        await worker.drain(0)
        await working
    assert outcomes.counts == {"released": 2}
    # Nobody is to think that it has a slot for them.
    assert (worker.slots, worker.queues()) == (0, [])


@pytest.mark.parametrize("found_by", ["the heartbeat", "the next free slot"])
async def test_what_waited_for_a_slot_while_the_process_stood_still_is_left_to_whoever_has_it_now(
    bus: NatsBus, found_by: str
) -> None:
    stream = await make_lanes(bus, *LANES)
    go_on, handled = asyncio.Event(), []

    async def handler(delivery: Delivery) -> Outcome:
        handled.append((delivery.subject.split(".")[1], delivery.deliveries))
        await go_on.wait()
        return Done()

    outcomes = Outcomes()
    beat_s = 0.1 if found_by == "the heartbeat" else 60.0
    worker = Worker(bus, stream.name, LANES, 1, handler, name="w", heartbeat_s=beat_s, observe=outcomes)
    working = asyncio.create_task(worker.run())
    await stream.put(b"later.1")
    await until_in_flight(bus, worker, 1)
    await stream.put(b"urgent.1")
    await until_in_flight(bus, worker, 2)
    worker._beaten_s = time.monotonic() - worker_module.STANDSTILL_S
    if found_by == "the next free slot":
        go_on.set()
    await outcomes.reach("left", 1)
    go_on.set()
    await outcomes.reach("done", 1)
    assert handled == [("later", 1)]
    assert worker.in_flight == 0
    # It has not lost its slot with it; what comes before it has seen the end of the standstill is left, too.
    worker._beaten_s = time.monotonic()
    await bus.barrier()
    await stream.put(b"later.2")
    await outcomes.reach("done", 2)
    await worker.drain(1)
    await working


async def test_a_failure_of_its_own_machinery_ends_the_worker_loudly(bus: NatsBus) -> None:
    stream = await make_stream(bus)

    async def handler(_delivery: Delivery) -> Outcome:
        return Done()

    def broken(_outcome: str, _held_s: float) -> None:
        raise ZeroDivisionError

    worker = Worker(bus, stream.name, [stream.consumer], 1, handler, name="w", observe=broken)
    running = asyncio.create_task(worker.run())
    await stream.put(b"1")
    async with asyncio.timeout(5):
        with pytest.raises(ExceptionGroup) as caught:
            await running
    assert caught.group_contains(ZeroDivisionError)
    async with asyncio.timeout(1):
        await worker.drain(1)


async def test_a_worker_runs_once(bus: NatsBus) -> None:
    stream = await make_stream(bus)

    async def handler(_delivery: Delivery) -> Outcome:
        return Done()

    async with working(bus, stream, handler) as (worker, outcomes):
        await stream.put(b"1")
        await outcomes.reach("done", 1)
        with pytest.raises(Bug):
            await worker.run()
