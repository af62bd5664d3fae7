"""What is known of a dependency."""

import asyncio

import pytest

from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_runtime.dependency import Dependency, probe, watch


class SteppedClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at_s = 100.0

    def monotonic(self) -> float:
        return self.at_s

    def now_ms(self) -> int:
        return 0

    def new_id(self) -> str:
        return ""


async def fine() -> None:
    pass


def test_it_is_down_until_something_succeeds() -> None:
    dependency = Dependency("nats")
    assert not dependency.is_up
    assert dependency.reason == "not tried yet"


def test_it_tells_for_how_long_it_has_been_so() -> None:
    clock = SteppedClock()
    dependency = Dependency("nats", clock=clock)
    clock.at_s += 5
    dependency.mark_up()
    clock.at_s += 2
    dependency.mark_up()
    assert dependency.since_s == 2
    dependency.mark_down("gone")
    clock.at_s += 3
    dependency.mark_down("still gone")
    assert (dependency.is_up, dependency.since_s, dependency.reason) == (False, 3, "still gone")
    dependency.mark_up()
    assert (dependency.is_up, dependency.since_s, dependency.reason) == (True, 0, "")


@pytest.mark.requirement("fault:store-down")
def test_what_began_before_it_came_back_does_not_take_it_down_again() -> None:
    clock = SteppedClock()
    dependency = Dependency("mongodb", clock=clock)
    began_s = clock.at_s
    clock.at_s += 1
    dependency.mark_up()
    dependency.mark_down("no answer", began_s=began_s)
    assert dependency.is_up
    dependency.mark_down("no answer", began_s=clock.at_s + 1)
    assert not dependency.is_up


@pytest.mark.requirement("fault:store-down")
def test_what_began_before_a_success_does_not_take_down_what_was_never_seen_down() -> None:
    clock = SteppedClock()
    dependency = Dependency("mongodb", clock=clock)
    dependency.mark_up()
    began_s = clock.at_s
    clock.at_s += 1.4
    dependency.mark_up()
    clock.at_s += 0.1
    dependency.mark_down("no answer", began_s=began_s)
    assert dependency.is_up
    dependency.mark_down("no answer", began_s=clock.at_s)
    assert not dependency.is_up


async def test_a_waiter_is_woken_when_it_comes_back() -> None:
    dependency = Dependency("nats")
    waiter = asyncio.create_task(dependency.wait_up())
    await asyncio.sleep(0)
    assert not waiter.done()
    dependency.mark_up()
    async with asyncio.timeout(1):
        await waiter


@pytest.mark.requirement("health:dependencies")
async def test_a_probe_notes_each_kind_of_failure() -> None:
    dependency = Dependency("mongodb")

    async def refused() -> None:
        raise Unavailable(ErrorCode.STORE_DOWN, "No primary.")

    async def broken() -> None:
        raise ZeroDivisionError

    for ping, reason in (
        (refused, "No primary."),
        (broken, "ZeroDivisionError"),
        (asyncio.Event().wait, "no answer within 0.01 s"),
    ):
        await probe(dependency, fine, timeout_s=1)
        assert dependency.is_up
        await probe(dependency, ping, timeout_s=0.01)  # type: ignore[arg-type]  # the result is not looked at
        assert (dependency.is_up, dependency.reason) == (False, reason)


async def test_watching_notices_a_loss_and_a_return_while_nothing_else_happens() -> None:
    dependency = Dependency("nats")
    reachable = True
    failures = 0
    lost = asyncio.Event()

    async def ping() -> None:
        nonlocal failures
        if not reachable:
            failures += 1
            if failures == 2:  # the first one is noted by now
                lost.set()
            raise Unavailable(ErrorCode.BUS_DOWN, "gone")

    watching = asyncio.create_task(watch(dependency, ping, every_s=0.001, timeout_s=1))
    async with asyncio.timeout(2):
        await dependency.wait_up()
        reachable = False
        await lost.wait()
        assert (dependency.is_up, dependency.reason) == (False, "gone")
        reachable = True
        await dependency.wait_up()
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
