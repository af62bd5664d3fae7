import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from integration.bus.rig import OwnServer
from integration.model_runner.rig import WAIT_S, Rig, job_of, running
from kitemesh_contracts import codec
from kitemesh_contracts.commands import INLINE_MAX_BYTES, Generate, Parcel
from kitemesh_contracts.content import TextPart, Usage, UserMessage
from kitemesh_contracts.deltas import Frame, TextDelta
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_contracts.events import StepCancelled, StepFailed, StepGenerated, StepReleased
from kitemesh_model_runner import runner as runner_module
from kitemesh_model_runner.coalesce import KEEPALIVE_TICKS
from kitemesh_model_runner.provider import SENTENCES, Generated, ModelCall, Sink
from kitemesh_model_runner.provider_scripted import ScriptedModel
from kitemesh_runtime import failpoints, parcels
from kitemesh_runtime.clock import SystemClock
from upstream import Upstream

MODELS = {
    "ok": "ok?tokens=3",
    "slow": "ok?tokens=1000&delay_ms=20",
    "brief": "ok?tokens=8&delay_ms=50",
    "stalled": "stalled",
    "reset": "reset?delay_ms=20",
    "limited": "limited?retry_after=3",
    "long": "ok?tokens=40000",
}


@pytest.fixture
async def rig(nats: OwnServer, upstream: Upstream, session: aiohttp.ClientSession) -> AsyncIterator[Rig]:
    async with running(nats.url, upstream, session, MODELS) as ready:
        yield ready


@pytest.mark.requirement("classic:carry-is-untouched", "classic:frames-are-numbered")
async def test_a_job_is_answered_by_frames_and_one_event_and_then_leaves_the_queue(rig: Rig) -> None:
    job = await rig.send(job_of(models=("gone", "ok", "slow"), step=2))
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    text = "w0 w1 w2 "
    assert event == StepGenerated(
        turn=job.turn,
        tenant=job.tenant,
        step=2,
        attempt=1,
        model="ok",
        finish="stop",
        text=text,
        usage=Usage(input_tokens=7, output_tokens=3),
        last=event.last,
        timings=event.timings,
        carry=event.carry,
    )
    assert bytes(event.carry) == bytes(job.carry)
    frames = [await rig.frame() for _ in range(event.last)]
    assert [frame.n for frame in frames] == list(range(1, event.last + 1))
    assert "".join(item.text for frame in frames for item in frame.items if isinstance(item, TextDelta)) == text
    timings = event.timings
    assert timings.first_token_ms is not None
    assert 0 < timings.first_token_ms <= timings.total_ms < 5000
    assert 0 <= timings.queued_ms < 5000
    await rig.emptied()


async def test_a_caller_that_does_not_stream_gets_the_answer_in_the_event_only(rig: Rig) -> None:
    await rig.send(job_of("@echo all of it", stream=False))
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert (event.text, event.last) == ("all of it", 0)
    assert rig.frames.empty()


@pytest.mark.requirement("http:upstream-limit-keeps-its-time")
async def test_a_limit_reaches_the_client_with_its_time(rig: Rig) -> None:
    await rig.send(job_of(models=("limited",)))
    event = await rig.event()
    assert isinstance(event, StepFailed)
    assert (event.error.code, event.error.retry_after_s) == (ErrorCode.UPSTREAM_LIMITED, 3.0)
    assert event.error.message == SENTENCES[ErrorCode.UPSTREAM_LIMITED]
    assert (event.text, event.last, event.usage, event.timings.first_token_ms) == ("", 0, Usage(), None)


async def test_an_answer_that_breaks_off_is_a_failure_with_what_there_was(rig: Rig) -> None:
    job = await rig.send(job_of(models=("reset",)))
    event = await rig.event()
    assert isinstance(event, StepFailed)
    assert event.error.code == ErrorCode.UPSTREAM_CUT
    assert event.text.startswith("w0 ")
    assert event.last > 0
    assert event.usage.output_tokens > 0
    assert bytes(event.carry) == bytes(job.carry)


async def test_a_model_that_is_no_longer_offered_is_a_failure(rig: Rig) -> None:
    await rig.send(job_of(models=("gone",)))
    event = await rig.event()
    assert isinstance(event, StepFailed)
    assert event.error.code == ErrorCode.MODEL_UNKNOWN


@pytest.mark.requirement("provider:budget")
async def test_a_budget_that_runs_out_stops_the_upstream(rig: Rig, upstream: Upstream) -> None:
    await rig.send(job_of(models=("slow",), budget_s=0.3))
    event = await rig.event()
    assert isinstance(event, StepFailed)
    assert event.error.code == ErrorCode.TURN_TIMEOUT
    assert event.text.startswith("w0 ")
    (record,) = await upstream.records(ended=1, timeout_s=2)
    assert record["end"] == "disconnected"


async def test_a_broken_provider_is_an_internal_failure(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def break_down(self: ScriptedModel, call: ModelCall, sink: Sink) -> Generated:
        raise ZeroDivisionError

    monkeypatch.setattr(ScriptedModel, "generate", break_down)
    await rig.send(job_of())
    event = await rig.event()
    assert isinstance(event, StepFailed)
    assert event.error.code == ErrorCode.INTERNAL


@pytest.mark.requirement("promise:P16")
@pytest.mark.parametrize("model", ["slow", "stalled"])
async def test_a_cancel_stops_the_upstream_and_keeps_the_partial_answer(
    rig: Rig, upstream: Upstream, model: str
) -> None:
    other = await rig.send(job_of("@hang"))
    job = await rig.send(job_of(models=(model,)))
    shown = await rig.text(words=2)
    cancelled_s = time.monotonic()
    rig.cancel(job)
    event = await rig.event()
    assert isinstance(event, StepCancelled)
    assert (event.turn, event.reason, event.model) == (job.turn, "the client left", model)
    assert event.text.startswith(shown)
    assert event.usage.output_tokens > 0
    assert bytes(event.carry) == bytes(job.carry)
    (record,) = await upstream.records(ended=1, timeout_s=3)
    assert record["end"] == "disconnected"
    assert record["end_at_s"] - cancelled_s < 2.0
    rig.cancel(other)
    assert (await rig.event()).turn == other.turn


@pytest.mark.requirement("classic:cancel-before-work")
async def test_a_job_that_comes_after_its_cancel_is_answered_without_asking_the_upstream(
    rig: Rig, upstream: Upstream
) -> None:
    job = job_of(models=("ok",))
    rig.cancel(job, "too late")
    await rig.bus.barrier()
    await rig.send(job)
    event = await rig.event()
    assert isinstance(event, StepCancelled)
    assert (event.reason, event.text) == ("too late", "")
    assert await upstream.records() == []


@pytest.mark.requirement("classic:silent-gateway")
async def test_the_job_of_a_silent_gateway_is_cancelled(rig: Rig, upstream: Upstream) -> None:
    await rig.send(job_of(models=("slow",)))
    await rig.text(words=1)
    for _ in range(6):
        rig.clock.ahead_s += 4.0
        rig.beat()
        await rig.bus.barrier()
        rig.runner.tick()
    for _ in range(2):
        rig.clock.ahead_s += 4.0
        rig.runner.tick()
    assert rig.events.empty()
    rig.clock.ahead_s += 3.0
    rig.runner.tick()
    event = await rig.event()
    assert isinstance(event, StepCancelled)
    (record,) = await upstream.records(ended=1, timeout_s=2)
    assert record["end"] == "disconnected"


async def test_a_runner_that_stood_still_does_not_take_the_gateway_for_dead(rig: Rig) -> None:
    await rig.send(job_of("@delay_ms 50\n@tokens 8"))
    rig.beat()
    await rig.text(words=1)
    rig.runner.tick()
    rig.clock.ahead_s += 12.0  # frozen: what the gateway said meanwhile waits in the socket
    rig.runner.tick()
    assert isinstance(await rig.event(), StepGenerated)


@pytest.mark.parametrize("readable", [True, False])
async def test_a_job_of_an_unknown_shape_is_answered_with_a_failure_if_it_says_whose_it_is(
    rig: Rig, readable: bool
) -> None:
    job = job_of()
    data = codec.encode(job).replace(b'"step.generate"', b'"step.divine"')
    await rig.send(job, data if readable else data.replace(b'"carry"', b'"cargo"'))
    await rig.emptied()
    if readable:
        event = await rig.event()
        assert isinstance(event, StepFailed)
        assert (event.turn, event.error.code) == (job.turn, ErrorCode.CONTRACT_VIOLATED)
        assert bytes(event.carry) == bytes(job.carry)
    else:
        assert rig.events.empty()


async def test_a_durable_job_outlives_its_gateway(rig: Rig) -> None:
    await rig.send(job_of(models=("brief",), mode="durable"))
    await rig.text(words=1)
    rig.runner.tick()
    rig.clock.ahead_s += 60.0
    rig.runner.tick()
    assert isinstance(await rig.event(), StepGenerated)


@pytest.mark.requirement("classic:sign-of-life")
@pytest.mark.parametrize("stream", [True, False])
async def test_a_quiet_job_shows_that_it_lives(rig: Rig, upstream: Upstream, stream: bool) -> None:
    job = await rig.send(job_of(models=("stalled",), stream=stream))
    shown = "w0 w1 w2 w3 w4 " if stream else ""
    last = 0
    if stream:
        while shown:
            frame = await rig.frame()
            last = frame.n
            shown = shown.removeprefix("".join(item.text for item in frame.items if isinstance(item, TextDelta)))
    else:
        await upstream.records(came=1)
    for _ in range(KEEPALIVE_TICKS):
        rig.runner.tick()
    assert await rig.frame() == Frame(n=last, offset=15 if stream else 0, items=())
    rig.cancel(job)
    await rig.event()


@pytest.mark.requirement("classic:large-messages-are-parcels")
async def test_a_parcel_is_fetched_and_a_long_answer_goes_out_as_one(rig: Rig) -> None:
    prompt = (UserMessage(parts=(TextPart(text="x" * INLINE_MAX_BYTES),)),)
    job = job_of(models=("long",), messages=prompt, stream=False)
    data = codec.encode(job)
    blob = await rig.blobs.put(job.tenant, data, keep_s=60)
    await rig.send(job, codec.encode(Parcel(tenant=job.tenant, blob=blob, size=len(data))))
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert event.turn == job.turn
    assert len(codec.encode(event)) > INLINE_MAX_BYTES
    assert event.text.endswith("w39999 ")


@pytest.mark.requirement("worker:waits-for-a-dependency")
async def test_a_parcel_that_cannot_be_fetched_waits_and_others_go_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "STORE_RETRY_S", 0.05)
    job = job_of("@echo from afar", stream=False)
    data = codec.encode(job)
    blob = await rig.blobs.put(job.tenant, data, keep_s=60)
    asked = asyncio.Event()

    async def away(tenant: str, blob: str) -> bytes | None:
        asked.set()
        raise Unavailable(ErrorCode.STORE_DOWN, "the test took it away")

    with monkeypatch.context() as patch:
        patch.setattr(rig.blobs, "get", away)
        await rig.send(job, codec.encode(Parcel(tenant=job.tenant, blob=blob, size=len(data))))
        async with asyncio.timeout(WAIT_S):
            await asked.wait()
        for _ in range(2):
            other = await rig.send(job_of("@echo hi"))
            assert (await rig.event()).turn == other.turn
        assert not rig.worker.paused
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert (event.turn, event.text) == (job.turn, "from afar")


@pytest.mark.requirement("worker:waits-for-a-dependency")
async def test_an_answer_too_large_to_travel_waits_for_the_store_and_is_not_generated_again(
    rig: Rig, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "STORE_RETRY_S", 0.05)
    monkeypatch.setattr(parcels, "TRAVEL_MAX_BYTES", INLINE_MAX_BYTES)
    asked = asyncio.Event()

    async def away(tenant: str, data: bytes, *, keep_s: float) -> str:
        asked.set()
        raise Unavailable(ErrorCode.STORE_DOWN, "the test took it away")

    with monkeypatch.context() as patch:
        patch.setattr(rig.blobs, "put", away)
        job = await rig.send(job_of(models=("long",), stream=False))
        async with asyncio.timeout(WAIT_S):
            await asked.wait()
        other = await rig.send(job_of("@echo hi"))
        assert (await rig.event()).turn == other.turn
        assert not rig.worker.paused
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert (event.turn, event.text[-7:]) == (job.turn, "w39999 ")
    assert len(await upstream.records()) == 1


async def test_what_is_no_job_is_given_up(rig: Rig) -> None:
    await rig.send(job_of(), b'{"type":"step.generate"}')
    await rig.emptied()
    assert rig.events.empty()


@pytest.mark.requirement("classic:result-before-acknowledgement")
async def test_a_result_that_the_bus_did_not_take_is_sent_again_and_not_generated_again(
    rig: Rig, nats: OwnServer, upstream: Upstream
) -> None:
    job = await rig.send(job_of(models=("brief",)))
    await rig.text(words=1)
    nats.kill()
    try:
        async with asyncio.timeout(WAIT_S):
            assert await rig.outcomes.get() == "unavailable"
    finally:
        nats.start()
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert (event.turn, event.text.split()[-1]) == (job.turn, "w7")
    await rig.emptied()
    assert len(await upstream.records()) == 1


@pytest.mark.requirement("classic:result-before-acknowledgement")
@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("run.after_fetch", 1),
        ("run.before_upstream", 1),
        ("run.mid_stream", 2),
        ("run.before_result", 1),
        ("run.before_ack", 1),
    ],
)
async def test_a_stumble_anywhere_still_ends_in_one_result(
    rig: Rig, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, name: str, calls: int
) -> None:
    monkeypatch.setattr(failpoints, "_armed", failpoints.parse(f"{name}:raise"))
    await rig.send(job_of(models=("ok",)))
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert event.text == "w0 w1 w2 "
    await rig.emptied()
    assert len(await upstream.records()) == calls


async def test_a_drain_lets_a_job_finish(rig: Rig) -> None:
    await rig.send(job_of(models=("brief",)))
    await rig.text(words=1)
    await rig.worker.drain(10.0)
    assert isinstance(await rig.event(), StepGenerated)
    await rig.emptied()


@pytest.mark.requirement("classic:hand-back-on-drain")
async def test_a_job_that_outlasts_the_drain_is_handed_back_as_it_came(rig: Rig, upstream: Upstream) -> None:
    job = job_of(models=("slow",), attempt=3)
    data = codec.encode(job)
    blob = await rig.blobs.put(job.tenant, data, keep_s=60)
    parcel = codec.encode(Parcel(tenant=job.tenant, blob=blob, size=len(data)))
    await rig.send(job, parcel)
    await rig.text(words=1)
    await rig.worker.drain(0.0)
    event = await rig.event()
    assert isinstance(event, StepReleased)
    assert (event.turn, event.step, event.attempt) == (job.turn, job.step, 3)
    assert bytes(event.job) == parcel
    (record,) = await upstream.records(ended=1, timeout_s=2)
    assert record["end"] == "disconnected"
    await rig.emptied()


class Redelivery:
    """A delivery that comes for the third time."""

    deliveries = 3
    sequence = 7
    subject = "km.v1.model.p.interactive.0.t"

    def __init__(self, job: Generate) -> None:
        self.data = codec.encode(job)
        self.published_at_s = SystemClock().now_ms() / 1000


@pytest.mark.requirement("attempt:redelivery-has-a-number-of-its-own")
async def test_a_redelivery_works_under_an_attempt_of_its_own(rig: Rig) -> None:
    job = job_of("@echo again", attempt=2)
    await rig.runner.on_job(Redelivery(job))  # type: ignore[arg-type]  # the runner never answers a delivery
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert event.attempt == 4
    assert (await rig.frame()).n == 1


async def test_jobs_are_worked_on_side_by_side(rig: Rig) -> None:
    jobs = [await rig.send(job_of("@first_ms 100\n@tokens 2")) for _ in range(8)]
    events = [await rig.event() for _ in jobs]
    assert {event.turn for event in events} == {job.turn for job in jobs}
    total = sum(event.timings.total_ms for event in events if isinstance(event, StepGenerated))
    assert total >= 8 * 100
