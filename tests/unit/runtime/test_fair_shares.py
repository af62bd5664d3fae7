"""Whose turn it is: weights, lanes, and no turn lost, over millions of messages."""

import random
from collections import Counter, deque

import pytest

from kitemesh_contracts.topology import WEIGHTS, Lane, lane_consumers
from kitemesh_runtime.fair_shares import AHEAD_MAX, FairShares, credits_of


def picks(shares: FairShares, wanting: set[int], count: int) -> Counter[int | None]:
    pick = shares.pick
    return Counter(pick(wanting) for _ in range(count))


@pytest.mark.requirement("fair:weights-hold-under-saturation")
@pytest.mark.parametrize("lanes", [1, 4])
def test_under_saturation_priorities_get_their_weights_and_lanes_get_as_many_each(lanes: int) -> None:
    every = lane_consumers("p", lanes)
    rounds = 500_000 // sum(WEIGHTS.values())
    got = picks(FairShares(every), set(range(len(every))), rounds * sum(WEIGHTS.values()))
    for place, lane in enumerate(every):
        assert got[place] == pytest.approx(rounds * WEIGHTS[lane.priority] / lanes, abs=2)


@pytest.mark.requirement("fair:weights-hold-under-saturation")
def test_a_priority_s_share_does_not_depend_on_how_many_of_its_lanes_are_busy() -> None:
    got = picks(FairShares(lane_consumers("p", 16)), {3, *range(16, 32)}, 9_000)
    assert got[3] == 8_000
    assert {got[place] for place in range(16, 32)} <= {62, 63}


@pytest.mark.requirement("fair:work-conserving")
def test_a_turn_is_never_lost_while_anybody_wants_one() -> None:
    shares, chance = FairShares(lane_consumers("p", 3)), random.Random(5)
    for _ in range(20_000):
        wanting = {place for place in range(6) if chance.random() < 0.3}
        assert shares.pick(wanting) in (wanting or {None})


def test_who_did_not_want_its_turns_has_not_saved_them_up() -> None:
    shares = FairShares([Lane("a", "interactive", 0, 8), Lane("b", "batch", 0, 1)])
    assert picks(shares, {1}, 1000) == {1: 1000}
    assert picks(shares, {0, 1}, 90) == {0: 80, 1: 10}


def waits(heavy: float, *, lanes: int = 8, slots: int = 64, ticks: int = 4_000, seed: int = 7) -> tuple[int, list[int]]:
    """Serve lanes for so many service times and return how many messages came and how long the quiet ones' waited.

    Lane 0 sends `heavy` times what each of the others does, and these together half of what can be served.
    """
    shares, chance = FairShares([Lane(str(n), "", n) for n in range(lanes)]), random.Random(seed)
    load = slots / 2 / (lanes - 1)
    queues: list[deque[int]] = [deque() for _ in range(lanes)]
    waiting = [0] * lanes
    wanting: set[int] = set()
    came, waited = 0, []
    for tick in range(ticks):
        for lane in range(lanes):
            mean = load * heavy if lane == 0 else load
            arrivals = max(0, round(chance.gauss(mean, mean**0.5)))
            came += arrivals
            waiting[lane] += arrivals
            if lane:
                queues[lane].extend([tick] * arrivals)
            if waiting[lane]:
                wanting.add(lane)
        for _ in range(slots):
            lane = shares.pick(wanting)
            if lane is None:
                break
            waiting[lane] -= 1
            if lane:
                waited.append(tick - queues[lane].popleft())
            if not waiting[lane]:
                wanting.discard(lane)
    return came, waited


@pytest.mark.requirement("fair:noisy-lane")
def test_a_lane_with_twenty_times_the_load_does_not_make_another_wait_a_service_time_longer() -> None:
    came, alone = waits(1.0)
    came_beside, beside = waits(20.0, ticks=16_000)
    assert came + came_beside > 2_000_000
    p99, p99_beside = (sorted(each)[int(0.99 * len(each))] for each in (alone, beside))
    assert p99_beside <= p99 + 1


def test_without_a_free_slot_only_a_queue_of_which_nothing_is_held_may_send_one() -> None:
    assert credits_of(0, [0, 2, 0], [4, 0, 0], passed=False) == [0, 2, 1]


def test_when_a_slot_was_given_to_one_that_has_more_the_others_are_asked_whether_they_have_something() -> None:
    assert credits_of(0, [0, 0, 0], [4, 5, 0], {0}, passed=True) == [0, 1, 1]


def test_with_free_slots_every_queue_may_send_one_and_a_busy_one_ahead_into_half_of_them() -> None:
    assert credits_of(1, [0, 0], [3, 0], passed=True) == [1, 1]
    assert credits_of(20, [0, 3, 0], [2, 1, 0], passed=False) == [5, 8, 1]
    assert credits_of(1000, [0, 0], [1, 0], passed=False) == [AHEAD_MAX, 1]
