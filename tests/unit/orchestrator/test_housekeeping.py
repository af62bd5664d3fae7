import pytest

from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_orchestrator.housekeeping import PARTS_MAX, Housekeeping
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.metrics import USAGE_LAG


class Chore:
    """Something of which there is so much to be done."""

    def __init__(self, parts: int, *, is_down: bool = False) -> None:
        self.left = parts
        self.done = 0
        self._is_down = is_down

    async def roll_up(self) -> bool:
        if self._is_down:
            raise Unavailable(ErrorCode.STORE_DOWN, "gone")
        self.done += 1
        self.left -= 1
        return self.left > 0

    apply = roll_up

    async def as_of(self) -> float:
        return SystemClock().now_ms() / 1000 - 30


async def test_all_that_there_is_to_do_is_done_part_by_part() -> None:
    usage, retention = Chore(3), Chore(1)
    await Housekeeping(usage, retention, SystemClock()).keep()  # type: ignore[arg-type]  one call of each is used
    assert (usage.done, retention.done) == (3, 1)
    (told,) = USAGE_LAG.collect()
    assert told.samples[0].value == pytest.approx(30, abs=5)


class MovableClock(SystemClock):
    """A clock that can be put forward."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


async def test_how_long_ago_usage_was_counted_grows_while_it_cannot_be_counted() -> None:
    clock, usage = MovableClock(), Chore(1)
    house = Housekeeping(usage, Chore(1), clock)  # type: ignore[arg-type]  one call of each is used
    await house.keep()
    usage._is_down = True
    with pytest.raises(Unavailable):
        await house.keep()
    clock.ahead_ms = 600_000
    (told,) = USAGE_LAG.collect()
    assert told.samples[0].value == pytest.approx(630, abs=5)


async def test_it_grows_too_where_a_process_could_never_count_since_it_began() -> None:
    clock = MovableClock()
    house = Housekeeping(Chore(1, is_down=True), Chore(1), clock)  # type: ignore[arg-type]  one call of each is used
    with pytest.raises(Unavailable):
        await house.keep()
    clock.ahead_ms = 600_000
    (told,) = USAGE_LAG.collect()
    assert told.samples[0].value == pytest.approx(600, abs=5)


async def test_a_backlog_of_one_kind_does_not_keep_the_other_waiting() -> None:
    usage, retention = Chore(10 * PARTS_MAX), Chore(10 * PARTS_MAX)
    await Housekeeping(usage, retention, SystemClock()).keep()  # type: ignore[arg-type]  one call of each is used
    assert (usage.done, retention.done) == (PARTS_MAX, PARTS_MAX)


async def test_a_store_that_is_down_is_told_to_whoever_waits_for_it() -> None:
    retention = Chore(1)
    with pytest.raises(Unavailable):
        await Housekeeping(Chore(1, is_down=True), retention, SystemClock()).keep()  # type: ignore[arg-type]  one call of each is used
    # What one of them cannot do does not keep the other from being done.
    assert retention.done == 1
