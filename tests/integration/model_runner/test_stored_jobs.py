"""Jobs of turns whose state is in the store: redelivery, claims, results of an attempt that no longer counts."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest

from integration.bus.rig import OwnServer
from integration.model_runner.rig import WAIT_S, Rig, job_of, running
from kitemesh_contracts import codec
from kitemesh_contracts.commands import Generate
from kitemesh_contracts.deltas import TextDelta
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_contracts.events import StepCancelled, StepFailed, StepGenerated, StepReleased
from kitemesh_contracts.headers import classic_result_msg_id, job_msg_id
from kitemesh_model_runner import runner as runner_module
from kitemesh_model_runner.provider import Generated, ModelCall, Sink
from kitemesh_model_runner.provider_scripted import ScriptedModel
from kitemesh_runtime import failpoints
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.live_turns import Job
from kitemesh_runtime.worker import Done, Leave, Retry
from upstream import Upstream


@pytest.fixture
async def rig(nats: OwnServer, upstream: Upstream, session: aiohttp.ClientSession) -> AsyncIterator[Rig]:
    async with running(nats.url, upstream, session, {"ok": "ok?tokens=3"}, at_once=False) as ready:
        yield ready


def stored(text: str = "hello", **more: Any) -> Generate:
    return job_of(text, **{"mode": "durable", "stored": True, "step": 2, "carry": msgspec.Raw(b"null"), **more})


class Delivery:
    """One delivery of a job that the test makes by itself."""

    sequence = 7

    def __init__(self, job: Generate, deliveries: int, waited_s: float = 0.0) -> None:
        self.data = codec.encode(job)
        self.published_at_s = SystemClock().now_ms() / 1000 - waited_s
        self.deliveries = deliveries
        self.subject = f"km.v1.model.p.interactive.0.{job.turn}"


async def handle(rig: Rig, job: Generate, deliveries: int, waited_s: float = 0.0) -> object:
    return await rig.runner.on_job(Delivery(job, deliveries, waited_s))  # type: ignore[arg-type]  # no answer is needed


async def test_a_first_delivery_of_a_stored_job_claims_nothing_and_names_its_result_by_the_attempt(rig: Rig) -> None:
    asked = stored("@echo hi", attempt=3)
    await rig.live_turns.begin(asked)
    rig.start()
    job = await rig.send(asked)
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert (event.attempt, event.text) == (3, "hi")
    assert await rig.message_id(event) == job_msg_id(job.turn, 2, "model", 0, 3)
    await rig.emptied()


async def test_a_classic_jobs_result_keeps_its_name_whatever_the_attempt(rig: Rig) -> None:
    job = job_of("@echo hi", step=2)
    assert await handle(rig, job, 3) == Done()
    event = await rig.event()
    assert event.attempt == 3
    assert await rig.message_id(event) == classic_result_msg_id(job.turn, 2, "model", 0)


@pytest.mark.requirement("attempt:redelivery-has-a-number-of-its-own")
async def test_a_zombies_result_after_the_claim_carries_the_attempt_that_no_longer_counts(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, thaw = asyncio.Event(), asyncio.Event()
    original = ScriptedModel.generate

    async def generate(self: ScriptedModel, call: ModelCall, sink: Sink) -> Generated:
        if not asked.is_set():
            asked.set()
            await sink((TextDelta(text="old "),))
            await thaw.wait()
        return await original(self, call, sink)

    monkeypatch.setattr(ScriptedModel, "generate", generate)
    job = await rig.send(stored("@echo new", models=("anew",)))
    await rig.live_turns.begin(job)
    frozen = await rig.take()
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        zombie = group.create_task(rig.runner.on_job(frozen))
        await asked.wait()
        frozen.nak()  # what the server does by itself when the acknowledgement does not come
        rig.start()
        current = await rig.event()
        assert isinstance(current, StepGenerated)
        assert (current.attempt, current.text) == (2, "new")
        assert await rig.message_id(current) == job_msg_id(job.turn, 2, "model", 0, 2)
        assert await rig.live_turns.attempt(job) == 2
        thaw.set()
        assert await zombie == Done()
    late = await rig.event()
    assert isinstance(late, StepGenerated)
    assert (late.attempt, late.text) == (1, "old new")
    assert await rig.message_id(late) == job_msg_id(job.turn, 2, "model", 0, 1)
    await rig.emptied()
    assert await rig.live_turns.attempt(job) == 2


async def test_a_redelivered_job_whose_step_is_over_is_dropped(rig: Rig) -> None:
    job = await rig.send(stored())
    await rig.live_turns.begin(msgspec.structs.replace(job, step=3))
    (await rig.take()).nak()
    rig.start()
    await rig.emptied()
    assert rig.events.empty()
    assert rig.frames.empty()


@pytest.mark.requirement("attempt:redelivery-has-a-number-of-its-own")
async def test_a_job_that_another_has_claimed_keeps_its_message(rig: Rig) -> None:
    job = await rig.send(stored())
    taken = await rig.take()
    await rig.live_turns.begin(job, attempt=2, claimed=(taken.sequence, 3))
    taken.nak()
    rig.start()
    async with asyncio.timeout(WAIT_S):
        assert await rig.outcomes.get() == "left"
    await rig.bus.barrier()
    assert await rig.queued() == 1
    assert rig.events.empty()
    assert await rig.live_turns.attempt(job) == 2
    await rig.bus.request("$JS.API.STREAM.PURGE.KM_MODEL", b"", timeout_s=5)


@pytest.mark.requirement("attempt:redelivery-has-a-number-of-its-own")
@pytest.mark.parametrize("told", [False, True], ids=["before the tick", "after it"])
@pytest.mark.parametrize("mode", ["classic", "durable"])
@pytest.mark.parametrize(
    ("frozen", "claimed", "outcome"), [(True, True, Leave()), (True, False, Done()), (False, True, Done())]
)
async def test_a_runner_that_stood_still_leaves_the_message_of_whoever_claimed_meanwhile(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, *, mode: str, frozen: bool, claimed: bool, outcome: object, told: bool
) -> None:
    job = stored("@echo late", mode=mode)
    await rig.live_turns.begin(job)
    original = ScriptedModel.generate
    rig.runner.tick()

    async def generate(self: ScriptedModel, call: ModelCall, sink: Sink) -> Generated:
        if claimed:
            work = Job(kind="model", step=2, attempt=1, pool="p", message=Delivery.sequence, deliveries=2)
            assert await rig.live_turns.claim(job.tenant, job.turn, work)
        if frozen:
            rig.clock.ahead_s += 10.0
            if told:
                rig.runner.tick()
        return await original(self, call, sink)

    monkeypatch.setattr(ScriptedModel, "generate", generate)
    assert await handle(rig, job, 1) == outcome
    await rig.bus.barrier()
    if mode == "durable" and frozen and claimed:
        # Its frames would come between those of the attempt that counts, and its result would be refused.
        assert rig.frames.empty()
        assert rig.events.empty()
        return
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert (event.attempt, event.text) == (1, "late")


@pytest.mark.requirement("provider:budget")
@pytest.mark.parametrize(("waited_s", "left_s"), [(0.0, 30.0), (20.0, 10.0), (-5.0, 30.0), (2e9, 30.0)])
async def test_what_a_job_waited_is_taken_from_its_time_if_the_clocks_can_be_right(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, waited_s: float, left_s: float
) -> None:
    asked: list[float] = []
    original = ScriptedModel.generate

    async def generate(self: ScriptedModel, call: ModelCall, sink: Sink) -> Generated:
        asked.append(call.budget_s)
        return await original(self, call, sink)

    monkeypatch.setattr(ScriptedModel, "generate", generate)
    assert await handle(rig, stored(), 1, waited_s) == Done()
    assert asked == [pytest.approx(left_s, abs=2.0)]


@pytest.mark.requirement("provider:budget")
@pytest.mark.parametrize("is_stored", [True, False])
async def test_a_job_whose_time_is_up_before_it_begins_asks_no_model(
    rig: Rig, upstream: Upstream, is_stored: bool
) -> None:
    assert await handle(rig, stored(models=("ok",), stored=is_stored), 1, 31.0) == Done()
    event = await rig.event()
    assert isinstance(event, StepFailed)
    assert event.error.code == ErrorCode.TURN_TIMEOUT
    assert event.timings.queued_ms == pytest.approx(31_000, abs=2_000)
    assert await upstream.records() == []


async def test_a_third_delivery_follows_the_claim_of_the_worker_that_died(rig: Rig) -> None:
    job = stored("@echo third")
    await rig.live_turns.begin(job, attempt=2, claimed=(Delivery.sequence, 2))
    assert await handle(rig, job, 3) == Done()
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert (event.attempt, event.text) == (3, "third")


async def test_a_message_whose_job_was_published_again_is_removed_and_not_worked_on(rig: Rig) -> None:
    job = await rig.send(stored())
    await rig.live_turns.begin(job, attempt=2)
    (await rig.take()).nak()
    rig.start()
    await rig.emptied()
    assert rig.events.empty()
    assert await rig.live_turns.attempt(job) == 2


async def test_while_the_store_is_away_a_redelivered_job_waits_and_others_go_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "STORE_RETRY_S", 0.05)
    waiting = await rig.send(stored("@echo late"))
    await rig.live_turns.begin(waiting)
    (await rig.take()).nak()
    rig.live_turns.refusals = 1_000_000
    rig.start()
    for text in ("@echo one", "@echo two"):
        other = await rig.send(stored(text))
        assert (await rig.event()).turn == other.turn
    assert not rig.worker.paused
    rig.live_turns.refusals = 0
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert (event.turn, event.attempt, event.text) == (waiting.turn, 2, "late")
    await rig.emptied()


async def test_a_store_that_is_away_is_a_matter_of_time(rig: Rig) -> None:
    job = stored()
    await rig.live_turns.begin(job)
    rig.live_turns.refusals = 1
    outcome = await handle(rig, job, 2)
    assert isinstance(outcome, Retry)
    assert 0 < outcome.after_s <= 5


async def test_a_stumble_after_the_claim_claims_nothing_more(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_armed", failpoints.parse("run.before_upstream:raise,run.before_result:raise"))
    job = await rig.send(stored("@echo still here"))
    await rig.live_turns.begin(job)
    (await rig.take()).nak()
    rig.start()
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert (event.attempt, event.text) == (2, "still here")
    assert await rig.live_turns.attempt(job) == 2
    await rig.emptied()


@pytest.mark.parametrize(("deliveries", "attempt"), [(1, 1), (2, 1), (3, 2)])
async def test_a_kept_result_is_sent_while_nobody_else_can_have_claimed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, deliveries: int, attempt: int
) -> None:
    job = stored("@echo kept")
    await rig.live_turns.begin(job)
    monkeypatch.setattr(failpoints, "_armed", failpoints.parse("run.before_result:raise"))
    with pytest.raises(Unavailable):
        await handle(rig, job, 1)
    assert await handle(rig, job, deliveries) == Done()
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert (event.attempt, event.text) == (attempt, "kept")
    assert await rig.live_turns.attempt(job) == attempt


@pytest.mark.requirement("classic:hand-back-on-drain")
@pytest.mark.parametrize(("deliveries", "attempt"), [(1, 1), (2, 2)])
async def test_a_stored_job_is_handed_back_under_the_attempt_that_counts(
    rig: Rig, deliveries: int, attempt: int
) -> None:
    job = stored()
    await rig.live_turns.begin(job)
    delivery = Delivery(job, deliveries)
    await rig.runner.release(delivery)  # type: ignore[arg-type]  # no answer is needed
    event = await rig.event()
    assert isinstance(event, StepReleased)
    assert (event.attempt, bytes(event.job)) == (attempt, delivery.data)
    assert await rig.live_turns.attempt(job) == attempt


@pytest.mark.parametrize(("frozen", "handed_back"), [(True, False), (False, True)])
async def test_a_runner_that_stood_still_does_not_hand_back_what_another_has_claimed(
    rig: Rig, *, frozen: bool, handed_back: bool
) -> None:
    job = stored()
    await rig.live_turns.begin(job, attempt=2, claimed=(Delivery.sequence, 2))
    if frozen:
        rig.clock.ahead_s += 10.0
    left = await rig.runner.release(Delivery(job, 1))  # type: ignore[arg-type]  # no answer is needed
    await rig.bus.barrier()
    assert left == (None if handed_back else Leave())
    assert rig.events.empty() is not handed_back


async def test_a_job_that_is_no_longer_current_is_not_handed_back(rig: Rig) -> None:
    await rig.runner.release(Delivery(stored(), 2))  # type: ignore[arg-type]  # no answer is needed
    await rig.bus.barrier()
    assert rig.events.empty()


async def test_a_stored_job_of_an_unknown_shape_fails_under_its_attempt(rig: Rig) -> None:
    rig.start()
    job = stored(attempt=2)
    await rig.send(job, codec.encode(job).replace(b'"step.generate"', b'"step.divine"').replace(b',"carry":null', b""))
    event = await rig.event()
    assert isinstance(event, StepFailed)
    assert event.error.code == ErrorCode.CONTRACT_VIOLATED
    assert await rig.message_id(event) == job_msg_id(job.turn, 2, "model", 0, 2)


@pytest.mark.parametrize("is_stored", [True, False])
async def test_a_client_that_is_gone_stops_classic_jobs_only(rig: Rig, is_stored: bool) -> None:
    rig.start()
    turn = f"both-{is_stored}"
    durable = await rig.send(stored("@echo on\n@hang after 1", turn=turn, stored=is_stored))
    classic = await rig.send(stored("@hang", turn=turn, stored=is_stored, mode="classic", step=3))
    await rig.text(words=1)
    rig.cancel(durable, disconnect=True)
    event = await rig.event()
    assert isinstance(event, StepCancelled)
    assert event.step == classic.step
    rig.cancel(durable, "somebody asked", disconnect=False)
    event = await rig.event()
    assert isinstance(event, StepCancelled)
    assert (event.step, event.reason, event.text) == (durable.step, "somebody asked", "on")


async def test_a_job_that_comes_after_its_client_is_gone_is_refused_if_it_is_classic(rig: Rig) -> None:
    rig.start()
    durable, classic = stored("@echo on"), stored("@echo off", mode="classic")
    for job in (durable, classic):
        rig.cancel(job, disconnect=True)
    await rig.bus.barrier()
    for job in (durable, classic):
        await rig.send(job)
    events = {event.turn: event for event in [await rig.event(), await rig.event()]}
    assert isinstance(events[durable.turn], StepGenerated)
    assert isinstance(events[classic.turn], StepCancelled)


async def test_a_silent_gateway_ends_a_stored_job_that_is_classic_still(rig: Rig) -> None:
    rig.start()
    classic = await rig.send(stored("@tokens 1\n@hang after 1", mode="classic"))
    durable = await rig.send(stored("@tokens 1\n@hang after 1"))
    await rig.text(words=2)
    rig.runner.tick()
    for _ in range(3):
        rig.clock.ahead_s += 4.0
        rig.runner.tick()
    event = await rig.event()
    assert isinstance(event, StepCancelled)
    assert event.turn == classic.turn
    rig.cancel(durable)
    assert (await rig.event()).turn == durable.turn
