from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kitemesh_model_runner.breaker import (
    IN_A_ROW,
    LONGEST_OPEN_S,
    OPEN_S,
    PROBE_S,
    SPREAD,
    WINDOW,
    WINDOW_S,
    Breaker,
)


class Upstream:
    """A breaker in front of an upstream that the test switches, and a clock."""

    def __init__(self, chance: float = 0.0) -> None:
        self.breaker = Breaker(lambda: chance)
        self.now_s = 1000.0

    @property
    def state(self) -> str:
        return self.breaker.state(self.now_s)

    def enter(self) -> int:
        ticket = self.breaker.enter(self.now_s)
        assert ticket is not None
        return ticket

    def is_shut(self) -> bool:
        return self.breaker.enter(self.now_s) is None

    def call(self, *, fails: bool) -> None:
        ticket = self.enter()
        if fails:
            self.breaker.fail(ticket, self.now_s)
        else:
            self.breaker.succeed(ticket, self.now_s)

    def open(self) -> None:
        for _ in range(IN_A_ROW):
            self.call(fails=True)
        assert self.state == "open"


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


def test_five_failures_in_a_row_open_it(upstream: Upstream) -> None:
    for _ in range(IN_A_ROW - 1):
        upstream.call(fails=True)
    upstream.call(fails=False)
    for _ in range(IN_A_ROW - 1):
        assert upstream.state == "closed"
        upstream.call(fails=True)
    assert upstream.state == "closed"


def test_it_is_shut_while_open(upstream: Upstream) -> None:
    upstream.open()
    assert upstream.is_shut()
    assert upstream.breaker.wait_s(upstream.now_s) == OPEN_S
    upstream.now_s += OPEN_S - 0.01
    assert upstream.is_shut()


def test_half_of_ten_calls_open_it(upstream: Upstream) -> None:
    for fails in (True, False) * 4:
        upstream.call(fails=fails)
    upstream.call(fails=False)
    assert upstream.state == "closed"
    upstream.call(fails=True)
    assert upstream.state == "open"


def test_fewer_than_half_leave_it_closed(upstream: Upstream) -> None:
    for _ in range(100):
        for fails in (True, False, False):
            upstream.call(fails=fails)
    assert upstream.state == "closed"


def test_what_is_long_past_does_not_count(upstream: Upstream) -> None:
    for _ in range(4):
        for fails in (True, True, False):
            upstream.call(fails=fails)
            upstream.now_s += WINDOW_S / 9
    assert upstream.state == "closed"


@pytest.mark.requirement("routing:breaker")
def test_an_upstream_that_fails_most_calls_is_left_alone_after_ten_failures_whatever_came_before(
    upstream: Upstream,
) -> None:
    for _ in range(500):
        upstream.call(fails=False)
    failures = 0
    while upstream.state == "closed":
        for fails in (True, True, True, False):
            if upstream.state == "closed":
                upstream.call(fails=fails)
                failures += fails
    assert failures <= 10


@pytest.mark.requirement("routing:breaker")
def test_one_probe_at_a_time_sees_whether_it_is_back(upstream: Upstream) -> None:
    upstream.open()
    upstream.now_s += OPEN_S
    assert upstream.state == "half_open"
    probe = upstream.enter()
    assert upstream.is_shut()
    upstream.breaker.succeed(probe, upstream.now_s)
    assert upstream.state == "closed"
    upstream.enter()
    upstream.enter()


def test_a_probe_that_says_nothing_makes_room_for_the_next(upstream: Upstream) -> None:
    upstream.open()
    upstream.now_s += OPEN_S
    upstream.breaker.drop(upstream.enter())
    assert upstream.state == "half_open"
    upstream.enter()
    assert upstream.is_shut()


def test_a_long_probe_does_not_keep_the_next_away_for_ever_and_still_counts(upstream: Upstream) -> None:
    upstream.open()
    upstream.now_s += OPEN_S
    long = upstream.enter()
    upstream.now_s += PROBE_S
    second = upstream.enter()
    upstream.breaker.drop(long)
    assert upstream.is_shut()
    upstream.breaker.succeed(long, upstream.now_s)
    assert upstream.state == "closed"
    for _ in range(IN_A_ROW):
        upstream.breaker.fail(second, upstream.now_s)
    assert upstream.state == "closed"


def test_each_failed_probe_doubles_the_time_up_to_a_minute(upstream: Upstream) -> None:
    upstream.open()
    times = []
    for _ in range(6):
        times.append(upstream.breaker.wait_s(upstream.now_s))
        upstream.now_s += times[-1]
        upstream.call(fails=True)
    assert times == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


def test_a_relapse_goes_on_doubling_and_another_outage_begins_anew(upstream: Upstream) -> None:
    upstream.open()
    upstream.now_s += OPEN_S
    upstream.call(fails=False)
    upstream.now_s += WINDOW_S - 1
    upstream.open()
    assert upstream.breaker.wait_s(upstream.now_s) == 2 * OPEN_S
    upstream.now_s += 2 * OPEN_S
    upstream.call(fails=False)
    upstream.now_s += WINDOW_S
    upstream.open()
    assert upstream.breaker.wait_s(upstream.now_s) == OPEN_S


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_open_times_are_spread_and_never_shorter(chance: float) -> None:
    upstream = Upstream(chance)
    upstream.open()
    assert upstream.breaker.wait_s(upstream.now_s) == pytest.approx(OPEN_S * (1 + SPREAD * chance))


def test_calls_that_began_before_it_opened_say_nothing_afterwards(upstream: Upstream) -> None:
    good, bad = upstream.enter(), upstream.enter()
    upstream.open()
    upstream.breaker.succeed(good, upstream.now_s)
    assert upstream.state == "open"
    upstream.now_s += OPEN_S
    upstream.breaker.fail(bad, upstream.now_s)
    assert upstream.state == "half_open"
    upstream.call(fails=False)
    assert upstream.state == "closed"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.just(0.0)),
        st.tuples(st.sampled_from(["succeed", "fail", "drop"]), st.floats(0, 1, exclude_max=True)),
        st.tuples(st.just("wait"), st.floats(0, 40)),
    ),
    max_size=300,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, chance=st.floats(0, 1, exclude_max=True))
def test_whatever_happens_it_keeps_its_rules(steps: list[tuple[str, float]], chance: float) -> None:
    breaker, now_s = Breaker(lambda: chance), 0.0
    calls: list[int] = []
    probes: dict[int, float] = {}
    fresh: set[int] = set()
    ended: deque[tuple[float, bool]] = deque(maxlen=WINDOW)
    for step, value in steps:
        state = breaker.state(now_s)
        if step == "wait":
            now_s += value
        elif step == "enter":
            wait_s = breaker.wait_s(now_s)
            assert 0 <= wait_s <= LONGEST_OPEN_S * (1 + SPREAD)
            ticket = breaker.enter(now_s)
            assert (ticket is None) == (wait_s > 0)
            if state == "open":
                assert ticket is None
            if ticket is not None:
                calls.append(ticket)
                fresh.add(ticket)
            if state == "half_open" and ticket is not None:
                assert not [at for at in probes.values() if now_s < at + PROBE_S - 1e-6]
                probes[ticket] = now_s
        elif calls:
            ticket = calls.pop(int(value * len(calls)))
            probes.pop(ticket, None)
            if step == "drop":
                breaker.drop(ticket)
            else:
                getattr(breaker, step)(ticket, now_s)
                if ticket in fresh:
                    ended.append((now_s, step == "fail"))
        after = breaker.state(now_s)
        if step in {"succeed", "fail"} and after != state:
            assert after == ("closed" if step == "succeed" else "open")
            probes.clear()
            fresh.clear()
            ended.clear()
        if after == "closed":
            assert sum(failed for at, failed in ended if now_s - at < WINDOW_S) < 10
    while breaker.wait_s(now_s):
        now_s += breaker.wait_s(now_s) + 1e-6
    ticket = breaker.enter(now_s)
    assert ticket is not None
    breaker.succeed(ticket, now_s)
    assert breaker.state(now_s) == "closed"
