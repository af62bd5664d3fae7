"""Jobs over several models: who answers, what the upstream is asked, and when it is left alone."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from integration.bus.rig import OwnServer
from integration.model_runner.rig import Rig, job_of, running
from integration.model_runner.test_continuing import Delivery, durable, tell, text
from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.events import StepCancelled, StepFailed, StepGenerated
from kitemesh_model_runner.asking import OPEN_WORDS
from kitemesh_model_runner.breaker import IN_A_ROW, OPEN_S, SPREAD
from kitemesh_runtime.metrics import REGISTRY
from kitemesh_runtime.worker import Done
from upstream import Upstream

MODELS = {
    "ok": "ok?tokens=3",
    "failing": "failing",
    "limited": "limited?retry_after=30",
    "too-long": "too_long",
    "missing": "unknown_model",
    "wrong": "bad_request",
    "reset": "reset?delay_ms=20",
    "stalled": "stalled_first",
}
ANSWER = "w0 w1 w2 "


@pytest.fixture
async def rig(nats: OwnServer, upstream: Upstream, session: aiohttp.ClientSession) -> AsyncIterator[Rig]:
    async with running(nats.url, upstream, session, MODELS) as ready:
        yield ready


async def asked(upstream: Upstream) -> list[str]:
    return [record["model"] for record in await upstream.records()]


async def failure(rig: Rig, *models: str) -> StepFailed:
    await rig.send(job_of(models=models))
    event = await rig.event()
    assert isinstance(event, StepFailed)
    return event


@pytest.mark.requirement("routing:ordered-fallback")
@pytest.mark.parametrize("first", ["failing", "limited", "too-long", "missing"])
async def test_the_next_model_answers_in_the_place_of_one_that_fails(rig: Rig, upstream: Upstream, first: str) -> None:
    await rig.send(job_of(models=(first, "ok", "scripted")))
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert (event.model, event.text) == ("ok", ANSWER)
    assert await asked(upstream) == [MODELS[first], MODELS["ok"]]


@pytest.mark.requirement("routing:ordered-fallback")
@pytest.mark.parametrize(
    ("first", "code", "begun"),
    [("wrong", ErrorCode.UPSTREAM_REFUSED, False), ("reset", ErrorCode.UPSTREAM_CUT, True)],
    ids=["a request that is wrong", "an answer that had begun"],
)
async def test_no_other_model_is_asked_after_what_it_would_not_mend(
    rig: Rig, upstream: Upstream, first: str, code: ErrorCode, *, begun: bool
) -> None:
    event = await failure(rig, first, "ok")
    assert (event.error.code, event.model) == (code, first)
    assert bool(event.text) is begun
    assert await asked(upstream) == [MODELS[first]]


@pytest.mark.requirement("routing:breaker", "routing:health")
async def test_an_upstream_that_fails_is_left_alone_until_a_probe_finds_it_well(rig: Rig, upstream: Upstream) -> None:
    def state() -> float | None:
        rig.runner.tick()
        return REGISTRY.get_sample_value("kitemesh_upstream_state", {"upstream": "stub"})

    assert state() == 0
    for _ in range(IN_A_ROW):
        assert (await failure(rig, "failing")).error.code == ErrorCode.UPSTREAM_FAILED
    error = (await failure(rig, "failing")).error
    assert (error.code, error.message) == (ErrorCode.UPSTREAM_UNREACHABLE, OPEN_WORDS)
    assert error.retry_after_s is not None
    assert 0 < error.retry_after_s <= OPEN_S * (1 + SPREAD)
    assert state() == 2
    assert await asked(upstream) == [MODELS["failing"]] * IN_A_ROW
    # Other models of the same provider are not concerned.
    await rig.send(job_of(models=("failing", "ok")))
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert event.model == "ok"
    rig.clock.ahead_s += OPEN_S * (1 + SPREAD)
    assert state() == 1
    await upstream.plan("ok?tokens=3")
    await rig.send(job_of(models=("failing",)))
    assert isinstance(await rig.event(), StepGenerated)
    assert state() == 0
    assert state() == 0


@pytest.mark.requirement("routing:cooling")
async def test_a_limit_is_told_to_every_job_until_its_time_without_a_call(rig: Rig, upstream: Upstream) -> None:
    assert (await failure(rig, "limited")).error.retry_after_s == 30.0
    rig.clock.ahead_s += 10.0
    error = (await failure(rig, "limited")).error
    assert error.code == ErrorCode.UPSTREAM_LIMITED
    assert error.retry_after_s is not None
    assert 10.0 < error.retry_after_s <= 20.0
    assert await asked(upstream) == [MODELS["limited"]]
    rig.clock.ahead_s += 20.0
    assert (await failure(rig, "limited")).error.retry_after_s == 30.0


@pytest.mark.requirement("routing:breaker")
async def test_calls_that_clients_left_do_not_speak_against_an_upstream(rig: Rig, upstream: Upstream) -> None:
    for number in range(1, IN_A_ROW + 1):
        job = await rig.send(job_of(models=("stalled",)))
        await upstream.records(came=number)
        rig.cancel(job)
        assert isinstance(await rig.event(), StepCancelled)
    await rig.send(job_of(models=("stalled",)))
    assert len(await upstream.records(came=IN_A_ROW + 1)) == IN_A_ROW + 1


@pytest.mark.requirement("routing:ordered-fallback")
async def test_text_that_was_told_is_gone_on_with_by_a_model_that_can(rig: Rig, upstream: Upstream) -> None:
    job = durable("@count 3", models=("ok", "scripted"))
    await rig.live_turns.begin(job)
    await tell(rig, job, 1, text("1 "))
    delivery = Delivery(job, 2)
    assert await rig.runner.on_job(delivery) == Done()  # type: ignore[arg-type]  # no answer is needed
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert (event.attempt, event.model, event.text) == (2, "scripted", "1 2 3 ")
    assert await asked(upstream) == []
