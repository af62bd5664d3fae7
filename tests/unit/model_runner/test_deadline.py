import asyncio

import pytest

from kitemesh_model_runner.deadline import MovingDeadline


async def wait_in_vain(*allowed_s: float, end_s: float = 60.0) -> float:
    """Allow so many seconds, one after the other, then wait; return what it took."""
    now = asyncio.get_running_loop().time
    began = now()
    try:
        async with MovingDeadline(end=began + end_s) as deadline:
            for seconds in allowed_s:
                deadline.allow(seconds)
            await asyncio.Event().wait()
    except TimeoutError:
        return now() - began
    raise AssertionError


async def test_silence_beyond_the_deadline_is_a_timeout() -> None:
    assert await wait_in_vain(0.02) >= 0.02


async def test_a_sign_of_life_puts_it_off() -> None:
    assert await wait_in_vain(0.02, 0.1) >= 0.1


async def test_it_can_be_brought_nearer() -> None:
    assert await wait_in_vain(60, 0.02) < 30


async def test_no_sign_of_life_puts_it_beyond_the_end() -> None:
    assert await wait_in_vain(60, end_s=0.02) < 30


async def test_what_ends_in_time_leaves_no_timer_behind() -> None:
    async with MovingDeadline(end=asyncio.get_running_loop().time() + 60) as deadline:
        timer = deadline._timer
    assert timer is not None
    assert timer.cancelled()


async def test_a_cancel_from_outside_stays_a_cancel() -> None:
    entered = asyncio.Event()

    async def work() -> None:
        async with MovingDeadline(end=asyncio.get_running_loop().time() + 60):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
