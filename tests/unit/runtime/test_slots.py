"""The slots of workers that share queues, over a simulated bus: nothing idle, nothing starved, little held back."""

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable

import pytest

from kitemesh_contracts.topology import Lane, lane_consumers
from kitemesh_runtime.slots import STALE_S, WAITING_PER_SLOT, Slots

TRIP_S = 0.001


class Timer:
    def __init__(self, call: Callable[[], object]) -> None:
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        self.call = None


class World:
    """Simulated time, and the queues of the server."""

    def __init__(self, lanes: list[Lane]) -> None:
        self.now_s = 0.0
        self.lanes = lanes
        self.queues: list[deque[float]] = [deque() for _ in lanes]
        self.requests: list[deque[Pull]] = [deque() for _ in lanes]
        self._due: list[tuple[float, int, Timer]] = []
        self._number = itertools.count()

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._due, (self.now_s + delay, next(self._number), timer))
        return timer

    def call_soon(self, callback: Callable[[], object], /) -> Timer:
        return self.call_later(0.0, callback)

    def run(self, until_s: float) -> None:
        while self._due and self._due[0][0] <= until_s:
            self.now_s, _, timer = heapq.heappop(self._due)
            if timer.call is not None:
                timer.call()
        self.now_s = until_s

    def put(self, place: int) -> None:
        self.queues[place].append(self.now_s)
        self.match(place)

    def match(self, place: int) -> None:
        while self.queues[place] and self.requests[place]:
            pull, put_s = self.requests[place].popleft(), self.queues[place].popleft()
            pull.send(put_s, len(self.queues[place]))


class Pull:
    """A pull that asks the server after a trip, and cannot take back what it asked for."""

    def __init__(self, world: World, place: int, on_delivery: Callable[[float, int], None]) -> None:
        self._world, self._place, self._on_delivery = world, place, on_delivery
        self.credit = self.outstanding = 0

    def set_credit(self, n: int) -> None:
        self.credit = n
        wanted = n - self.outstanding
        if wanted > 0:
            self.outstanding += wanted
            self._world.call_later(TRIP_S, lambda: self._ask(wanted))

    def _ask(self, n: int) -> None:
        self._world.requests[self._place].extend([self] * n)
        self._world.match(self._place)

    def send(self, put_s: float, pending: int) -> None:
        self._world.call_later(TRIP_S, lambda: self._receive(put_s, pending))

    def _receive(self, put_s: float, pending: int) -> None:
        self.outstanding -= 1
        self.credit = max(0, self.credit - 1)
        self._on_delivery(put_s, pending)


class Worker:
    """Works on each delivery for a while, and notes how long it waited."""

    def __init__(self, world: World, size: int, service_s: Callable[[], float]) -> None:
        self.world, self.service_s = world, service_s
        self.slots = Slots(size, world.lanes, world)
        self.waited: list[list[float]] = [[] for _ in world.lanes]
        self.running = self.most = self.held = self.most_held = 0
        self.slots.fill([Pull(world, place, self._taker(place)) for place in range(len(world.lanes))])  # type: ignore[arg-type]

    def _taker(self, place: int) -> Callable[[float, int], None]:
        def take(put_s: float, pending: int) -> None:
            self.held += 1
            if self.slots.take(place, pending):
                self._begin(place, put_s)
            else:
                self.slots.wait(place, lambda: self._begin(place, put_s))
            self.most_held = max(self.most_held, self.held)

        return take

    def _begin(self, place: int, put_s: float) -> bool:
        self.waited[place].append(self.world.now_s - put_s)
        self.running += 1
        self.most = max(self.most, self.running)
        self.world.call_later(self.service_s(), lambda: self._end(place))
        return True

    def _end(self, place: int) -> None:
        self.running -= 1
        self.held -= 1
        self.slots.leave(place)


def pour(world: World, place: int, per_s: float, seed: int) -> None:
    """Let messages come for ever."""
    chance = random.Random(seed)

    def put() -> None:
        world.put(place)
        world.call_later(chance.expovariate(per_s), put)

    world.call_later(chance.expovariate(per_s), put)


def p99(waited: list[float]) -> float:
    return sorted(waited)[int(0.99 * len(waited))]


def fleet(lanes: list[Lane], *, workers: int = 2, size: int = 8, service_s: float = 0.1) -> tuple[World, list[Worker]]:
    world, chance = World(lanes), random.Random(3)
    return world, [Worker(world, size, lambda: chance.uniform(0.5, 1.5) * service_s) for _ in range(workers)]


@pytest.mark.requirement("fair:work-conserving")
@pytest.mark.parametrize("busy", [0, 3])
def test_whichever_queue_has_work_alone_it_gets_all_the_slots(busy: int) -> None:
    world, workers = fleet(lane_consumers("p", 2))
    for place in range(4):
        # Each was in use before, so that credit is out for it.
        for _ in range(3):
            world.put(place)
    world.run(5.0)
    before = len(workers[0].waited[busy]) + len(workers[1].waited[busy])
    for _ in range(4000):
        world.put(busy)
    world.run(15.0)
    done = sum(len(worker.waited[busy]) for worker in workers) - before
    assert done == pytest.approx(16 / 0.1 * 10, rel=0.05)
    assert [worker.most for worker in workers] == [8, 8]


@pytest.mark.requirement("fair:noisy-lane")
def test_a_flooded_lane_lets_the_others_through_within_a_service_time() -> None:
    lanes = [Lane(str(n), "interactive", n, 8) for n in range(4)]

    def quiet(heavy: float) -> float:
        world, workers = fleet(lanes)
        pour(world, 0, heavy, seed=1)
        for place in (1, 2, 3):
            pour(world, place, 10.0, seed=place + 1)
        world.run(60.0)
        return p99([each for worker in workers for place in (1, 2, 3) for each in worker.waited[place]])

    assert quiet(400.0) <= quiet(20.0) + 0.1


@pytest.mark.requirement("fair:weights-hold-under-saturation")
def test_with_both_priorities_flooded_each_gets_its_weight_over_all_workers() -> None:
    world, workers = fleet(lane_consumers("p", 1))
    pour(world, 0, 400.0, seed=1)
    pour(world, 1, 400.0, seed=2)
    world.run(60.0)
    interactive, batch = (sum(len(worker.waited[place]) for worker in workers) for place in (0, 1))
    assert interactive / batch == pytest.approx(8, rel=0.1)
    assert interactive + batch == pytest.approx(16 / 0.1 * 60, rel=0.05)


@pytest.mark.requirement("fair:weights-hold-under-saturation")
def test_an_interactive_job_does_not_wait_behind_the_batch_jobs() -> None:
    world, workers = fleet(lane_consumers("p", 1))
    pour(world, 1, 400.0, seed=2)
    pour(world, 0, 20.0, seed=1)
    world.run(60.0)
    assert p99([each for worker in workers for each in worker.waited[0]]) < 0.1


def test_what_is_held_without_a_slot_is_bounded_by_the_idle_queues() -> None:
    lanes = [Lane(str(n), "", n) for n in range(6)]
    world, (worker,) = fleet(lanes, workers=1, size=4)
    for _ in range(100):
        world.put(0)
    world.run(1.0)
    worker.most_held = 0
    for place in range(1, 6):
        for _ in range(5):
            world.put(place)
    world.run(40.0)
    assert worker.most_held <= 4 + 5
    assert sum(map(len, worker.waited)) == 125
    assert worker.most == 4


def test_a_slot_is_not_kept_long_for_messages_that_others_took() -> None:
    lanes = [Lane("a", "", 0), Lane("b", "", 1)]
    world, (worker,) = fleet(lanes, workers=1, size=4, service_s=10.0)
    worker.slots.learn(0, 50)
    assert worker.slots.free == 0
    for _ in range(4):
        world.put(1)
    world.run(2 * STALE_S + 3 * TRIP_S)
    assert worker.running == 4


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_when_nothing_is_lost_and_no_slot_too_many_is_used(seed: int) -> None:
    chance = random.Random(seed)
    world, workers = fleet(lane_consumers("p", chance.choice([1, 3])), workers=chance.choice([1, 3]), size=3)
    count = 300
    for _ in range(count):
        place = chance.randrange(len(world.lanes))
        world.call_later(chance.uniform(0, 4), lambda place=place: world.put(place))  # type: ignore[misc]
    world.run(60.0)
    assert sum(len(waited) for worker in workers for waited in worker.waited) == count
    for worker in workers:
        assert worker.most <= 3
        assert (worker.held, worker.running, worker.slots.free) == (0, 0, 3)


def test_a_queue_that_has_nobody_to_share_with_may_fill_all_the_slots_and_nothing_more() -> None:
    world, (worker,) = fleet([Lane("a")], workers=1, size=4)
    for _ in range(40):
        world.put(0)
    world.run(0.01)
    assert (worker.held, worker.running, len(world.queues[0])) == (4, 4, 36)
    world.run(10.0)
    assert len(worker.waited[0]) == 40
    assert worker.most_held == 4


def test_what_waits_for_its_retry_lends_its_slot_up_to_a_bound() -> None:
    world = World([Lane("a")])
    slots = Slots(2, world.lanes, world)
    for _ in range(2):
        slots.take(0, 0)
    assert slots.free == 0
    lent = 0
    while slots.lend(0):
        lent += 1
        slots.take(0, 0)
    assert lent == 2 * WAITING_PER_SLOT
    assert slots.free == 0


def test_nothing_is_heard_of_a_queue_that_has_no_credit_because_it_is_known_to_have_more() -> None:
    world = World([Lane("a"), Lane("b")])
    slots = Slots(1, world.lanes, world)
    assert slots.take(0, 0)
    assert (slots.is_deaf(0), slots.is_deaf(1)) == (True, False)
    slots.learn(1, 5)
    assert slots.is_deaf(1)


def test_what_waits_and_will_not_begin_costs_no_slot() -> None:
    world = World([Lane("a"), Lane("b")])
    slots = Slots(1, world.lanes, world)
    assert slots.take(0, 0)
    for begins in (False, True):
        assert not slots.take(1, 0)
        slots.wait(1, lambda begins=begins: begins)  # type: ignore[misc]  a test's shorthand
    slots.forget(1)
    slots.leave(0)
    assert slots.free == 0
    slots.leave(1)
    assert slots.free == 1
    assert not slots.is_deaf(1)


async def test_what_lent_its_slot_gets_it_back_in_its_turn() -> None:
    world = World([Lane("a")])
    slots = Slots(1, world.lanes, world)
    slots.take(0, 0)
    assert slots.lend(0)
    slots.take(0, 0)
    back = asyncio.ensure_future(slots.reclaim(0))
    gone = asyncio.ensure_future(slots.reclaim(0))
    await asyncio.sleep(0)
    assert not back.done()
    slots.leave(0)
    async with asyncio.timeout(1):
        await back
    gone.cancel()
    await asyncio.wait({gone})
    slots.leave(0)
    assert slots.free == 1
