"""Work that nobody waits for any more costs no model call."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import pytest

from integration.bus.rig import OwnServer
from integration.model_runner.rig import Rig, job_of, running
from kitemesh_contracts import codec
from kitemesh_contracts.beats import GATEWAY_SILENCE_S
from kitemesh_contracts.commands import Generate
from kitemesh_contracts.deltas import Delta
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_contracts.events import StepCancelled, StepFailed, StepGenerated
from kitemesh_model_runner.attempt import Attempt
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.worker import Done, Retry
from upstream import Upstream

MODEL = "plan"


class Late:
    """A job that waited."""

    sequence = 7

    def __init__(self, job: Generate, waited_s: float, deliveries: int) -> None:
        self.data = codec.encode(job)
        self.published_at_s = SystemClock().now_ms() / 1000 - waited_s
        self.deliveries = deliveries
        self.subject = f"km.v1.model.p.interactive.0.{job.turn}"


async def handle(rig: Rig, job: Generate, waited_s: float, deliveries: int = 1) -> Any:
    late = Late(job, waited_s, deliveries)
    assert await rig.runner.on_job(late) == Done()  # type: ignore[arg-type]  # no answer is needed
    return await rig.event()


@pytest.fixture
async def rig(nats: OwnServer, upstream: Upstream, session: aiohttp.ClientSession) -> AsyncIterator[Rig]:
    async with running(nats.url, upstream, session, {MODEL: "ok?tokens=3"}) as ready:
        yield ready


@pytest.mark.requirement("pressure:dropped-before-it-costs")
async def test_a_job_that_waited_longer_than_it_was_to_is_refused_and_asks_no_model(
    rig: Rig, upstream: Upstream
) -> None:
    event = await handle(rig, job_of(models=(MODEL,), max_wait_s=2.0), waited_s=5.0)
    assert isinstance(event, StepFailed)
    assert event.error.code == ErrorCode.QUEUE_FULL
    assert event.error.retry_after_s == pytest.approx(5.0, abs=0.5)
    assert await upstream.records() == []


@pytest.mark.parametrize(("waited_s", "deliveries"), [(1.0, 1), (5.0, 2)], ids=["in time", "begun before"])
async def test_a_job_that_is_in_time_or_was_begun_is_worked_on(rig: Rig, waited_s: float, deliveries: int) -> None:
    event = await handle(rig, job_of(models=(MODEL,), max_wait_s=2.0), waited_s, deliveries)
    assert isinstance(event, StepGenerated)


async def test_a_job_whose_answer_was_begun_is_not_refused_for_how_long_it_waits_when_it_is_taken_up_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, take = job_of(models=(MODEL,), mode="durable", stored=True, max_wait_s=2.0), Attempt.take
    await rig.live_turns.begin(job)

    async def take_once(attempt: Attempt, deltas: Sequence[Delta]) -> None:
        await take(attempt, deltas)
        raise Unavailable(ErrorCode.STORE_DOWN, "whether the job is still its own cannot be told")

    with monkeypatch.context() as patch:
        patch.setattr(Attempt, "take", take_once)
        assert isinstance(await rig.runner.on_job(Late(job, 1.0, 1)), Retry)  # type: ignore[arg-type]  # same
    event = await handle(rig, job, waited_s=5.0)
    assert isinstance(event, StepGenerated)
    assert event.attempt == 2


@pytest.mark.requirement("pressure:dropped-before-it-costs")
async def test_a_job_whose_deadline_passed_in_the_queue_asks_no_model(rig: Rig, upstream: Upstream) -> None:
    event = await handle(rig, job_of(models=(MODEL,), budget_s=10.0), waited_s=11.0)
    assert isinstance(event, StepFailed)
    assert event.error.code == ErrorCode.TURN_TIMEOUT
    assert await upstream.records() == []


async def fall_silent(rig: Rig) -> None:
    """Let the gateway be heard once more, and time pass in which this process does not stand still."""
    rig.beat()
    await rig.bus.barrier()
    for _ in range(3):
        rig.clock.ahead_s += GATEWAY_SILENCE_S / 2 - 1
        rig.runner.tick()


@pytest.mark.requirement("pressure:dropped-before-it-costs", "classic:silent-gateway")
async def test_a_classic_job_whose_gateway_fell_silent_while_it_waited_asks_no_model(
    rig: Rig, upstream: Upstream
) -> None:
    await fall_silent(rig)
    event = await handle(rig, job_of(models=(MODEL,)), waited_s=12.0)
    assert isinstance(event, StepCancelled)
    assert await upstream.records() == []


async def test_a_durable_job_goes_on_without_its_gateway(rig: Rig) -> None:
    await fall_silent(rig)
    event = await handle(rig, job_of(models=(MODEL,), mode="durable"), waited_s=12.0)
    assert isinstance(event, StepGenerated)


async def test_a_runner_that_stood_still_begins_the_job_of_a_gateway_that_it_could_not_hear(rig: Rig) -> None:
    rig.beat()
    await rig.bus.barrier()
    rig.runner.tick()
    rig.clock.ahead_s += 12.0
    event = await handle(rig, job_of(models=(MODEL,)), waited_s=0.0)
    assert isinstance(event, StepGenerated)
