"""What a start has waited counts: against its budget, and against what it was to wait at the most."""

import asyncio

import pytest
from msgspec.structs import replace

from integration.orchestrator.rig import Rig, generated, given, start
from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import Mode, StartTurn
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_runtime.bus import Receipt
from kitemesh_runtime.worker import Done


async def deliver(rig: Rig, begun: StartTurn, waited_s: float, deliveries: int = 1) -> None:
    late = given(subjects.turn_start(begun.turn), codec.encode(begun), deliveries)
    late.published_at_s = rig.clock.now_ms() / 1000 - waited_s  # type: ignore[misc]  it is the test's own
    assert await rig.engine.on_start(late) == Done()


async def accept(rig: Rig, mode: Mode, **more: object) -> StartTurn:
    begun = replace(start(conversation=None), **more)
    return await rig.accept(begun) if mode == "durable" else begun


@pytest.mark.requirement("pressure:dropped-before-it-costs")
@pytest.mark.parametrize("mode", ["classic", "durable"])
@pytest.mark.parametrize("waited_s", [3.0, 30.0])
async def test_a_start_that_waited_longer_than_it_was_to_is_refused_before_any_model_job(
    rig: Rig, mode: Mode, waited_s: float
) -> None:
    begun = await accept(rig, mode, max_wait_s=2.0)
    await deliver(rig, begun, waited_s)
    closing = await rig.closing()
    assert (closing.outcome, closing.error and closing.error.code) == ("failed", ErrorCode.QUEUE_FULL)
    assert closing.error is not None
    assert closing.error.retry_after_s == pytest.approx(waited_s, abs=0.5)
    await rig.bus.barrier()
    assert rig.jobs.empty()


@pytest.mark.requirement("pressure:dropped-before-it-costs")
@pytest.mark.parametrize("mode", ["classic", "durable"])
async def test_a_start_that_has_waited_for_its_whole_budget_is_not_begun(rig: Rig, mode: Mode) -> None:
    begun = await accept(rig, mode, budget_s=20.0)
    await deliver(rig, begun, 21.0)
    closing = await rig.closing()
    assert (closing.outcome, closing.error and closing.error.code) == ("failed", ErrorCode.TURN_TIMEOUT)
    await rig.bus.barrier()
    assert rig.jobs.empty()


@pytest.mark.parametrize("mode", ["classic", "durable"])
async def test_a_job_has_what_its_start_left_of_the_budget_and_of_the_wait(rig: Rig, mode: Mode) -> None:
    begun = await accept(rig, mode, budget_s=60.0, max_wait_s=20.0)
    await deliver(rig, begun, 12.0)
    job = await rig.job()
    assert job.budget_s == pytest.approx(48.0, abs=0.5)
    assert job.max_wait_s == pytest.approx(8.0, abs=0.5)


@pytest.mark.parametrize("mode", ["classic", "durable"])
async def test_a_second_step_may_wait_for_as_long_as_the_rest_of_the_budget(rig: Rig, mode: Mode) -> None:
    agent = replace(start().route, agent="doer")
    begun = await accept(rig, mode, budget_s=60.0, max_wait_s=20.0, route=agent)
    await deliver(rig, begun, 12.0)
    first = await rig.job()
    # A worker returns what was spent before.
    await rig.event(replace(generated(first, ("look", "{}")), timings=first.timings))
    await rig.returned(await rig.tool_job(), "sky")
    second = await rig.job()
    assert (second.step, second.max_wait_s) == (2, None)
    assert second.budget_s <= 48.5


async def test_a_stored_start_that_comes_again_is_not_refused_for_its_wait(rig: Rig) -> None:
    begun = await accept(rig, "durable", max_wait_s=2.0)
    await deliver(rig, begun, 30.0, deliveries=2)
    assert (await rig.job()).max_wait_s is None


@pytest.mark.parametrize("mode", ["classic", "durable"])
async def test_a_start_whose_job_may_be_out_is_not_refused_for_how_long_it_waits_then(
    rig: Rig, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, send = await accept(rig, mode, max_wait_s=2.0), rig.bus.send

    async def send_unheard(subject: str, payload: bytes, *, msg_id: str, timeout_s: float = 2.5) -> Receipt:
        await send(subject, payload, msg_id=msg_id, timeout_s=timeout_s)
        raise Unavailable(ErrorCode.BUS_DOWN, "the acknowledgement was lost")

    with monkeypatch.context() as patch:
        patch.setattr(rig.bus, "send", send_unheard)
        with pytest.raises(Unavailable):
            await deliver(rig, begun, 1.0)
    job = await rig.job()
    await deliver(rig, begun, 3.0)
    await rig.bus.barrier()
    assert rig.closings.empty()
    await rig.answer(job, "Yes.")
    assert (await rig.closing()).outcome == "completed"


@pytest.mark.requirement("fair:priority-of-the-start")
async def test_the_jobs_of_a_turn_go_into_the_queues_of_its_priority(rig: Rig) -> None:
    begun = replace(start(conversation=None), priority="batch", route=replace(start().route, agent="doer"))
    heard: asyncio.Queue[str] = asyncio.Queue()
    for kind in ("model", "tool"):
        await rig.bus.subscribe(f"km.v1.{kind}.>", lambda subject, _: heard.put_nowait(subject))
    await rig.bus.barrier()
    await rig.start(begun)
    await rig.call(await rig.job(), ("look", "{}"))
    await rig.tool_job()
    await rig.bus.barrier()
    own = [each for each in (heard.get_nowait() for _ in range(heard.qsize())) if each.endswith(begun.turn)]
    assert [each.split(".")[2:5:2] for each in own] == [["model", "batch"], ["tool", "batch"]]
