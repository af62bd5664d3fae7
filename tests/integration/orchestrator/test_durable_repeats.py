"""What comes late, twice or after a crash leads to no second worker under one attempt, nor to a second turn at once."""

import pytest
from msgspec.structs import replace

from integration.orchestrator.rig import Rig, generated, given, start
from integration.orchestrator.test_durable_starts import document, purge, running, sweep
from integration.orchestrator.test_repeats import continued
from kitemesh_contracts import codec, subjects
from kitemesh_contracts.errors import ErrorCode, ErrorInfo, Unavailable
from kitemesh_contracts.events import StepFailed
from kitemesh_contracts.headers import start_msg_id
from kitemesh_contracts.topology import TURN
from kitemesh_runtime.conversations_memory import MemoryConversations
from kitemesh_runtime.live_turns import Job
from kitemesh_runtime.worker import Done, Retry

CLAIM = Job(kind="model", step=1, pool="engine", message=7, deliveries=2)


@pytest.mark.requirement("attempt:claimed-has-no-message")
@pytest.mark.parametrize("kind", ["failed", "generated"])
async def test_a_late_result_puts_no_message_of_the_claimed_attempt_into_the_queue(rig: Rig, kind: str) -> None:
    begun = await rig.accept(start(stream=True))
    await rig.start(begun)
    job = await rig.job()
    assert await rig.stores.live_turns.claim("acme", begun.turn, CLAIM)
    if kind == "failed":
        error = ErrorInfo(code=ErrorCode.UPSTREAM_FAILED, message="x")
        await rig.event(StepFailed(turn=job.turn, tenant=job.tenant, step=1, attempt=1, error=error))
    else:
        await rig.event(generated(job, text="old"))
    await rig.bus.barrier()
    assert rig.jobs.empty()
    await rig.answer(replace(job, attempt=2), "new")
    assert (await rig.closing()).text == "new"


@pytest.mark.parametrize("waited_s", [1.0, 30.0], ids=["prompt", "late"])
async def test_a_turn_of_which_two_starts_are_there_is_begun_under_one_attempt(rig: Rig, waited_s: float) -> None:
    begun = await rig.accept(start(stream=True))
    data, first = codec.encode(begun), subjects.turn_start(begun.turn)
    # The gateway was not told that it is stored, and sends another after a while.
    await rig.bus.send(first, data, msg_id=start_msg_id(begun.turn))
    await rig.take_up(begun)
    delivery = given(first, data)
    delivery.published_at_s = rig.clock.now_ms() / 1000 - waited_s  # type: ignore[misc]  it is the test's own
    assert await rig.engine.on_start(delivery) == Done()
    await purge(rig, TURN)
    await rig.take_up(begun)
    job = await rig.job()
    await rig.bus.barrier()
    assert rig.jobs.empty()
    assert job.attempt == 1
    await rig.answer(job, "Yes.")
    assert (await rig.closing()).text == "Yes."


@pytest.mark.requirement("attempt:claimed-has-no-message")
async def test_an_applied_event_that_comes_again_publishes_no_claimed_attempt(rig: Rig) -> None:
    begun = await rig.accept(start(route=replace(start().route, agent="doer")))
    await rig.start(begun)
    await rig.call(await rig.job(), ("look", "{}"))
    tools = await rig.tool_job()
    await rig.returned(tools, "sky")
    second = await rig.job()
    assert (second.step, second.attempt) == (2, 1)
    assert await rig.stores.live_turns.claim("acme", begun.turn, replace(CLAIM, step=2))
    await rig.returned(tools, "sky")
    await rig.bus.barrier()
    assert rig.jobs.empty()


async def test_an_applied_event_that_comes_again_publishes_what_nobody_claimed(rig: Rig) -> None:
    begun = await rig.accept(start(route=replace(start().route, agent="doer")))
    await rig.start(begun)
    await rig.call(await rig.job(), ("look", "{}"))
    tools = await rig.tool_job()
    await rig.returned(tools, "sky")
    second = await rig.job()
    await rig.returned(tools, "sky")
    assert await rig.job() == second


@pytest.mark.requirement("conversation:durable-turns-keep-their-lock")
@pytest.mark.parametrize("fresh", [False, True])
async def test_a_new_message_waits_for_a_durable_turn_that_no_sweep_has_renewed(rig: Rig, *, fresh: bool) -> None:
    if not fresh:
        await continued(rig, "c-quiet")
    name = "c-new" if fresh else "c-quiet"
    first = await rig.accept(start("one", conversation=name, fresh=fresh))
    await rig.start(first)
    await rig.job()
    rig.later(35.0)
    second = await rig.accept(start("two", conversation=name))
    await rig.start(second)
    await rig.sweeper.sweep()
    await rig.bus.barrier()
    assert rig.jobs.empty()
    assert await rig.holder(name) == first.turn


async def test_a_start_tried_again_after_its_job_was_lost_is_another_attempt(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = await rig.accept(start(stream=True, fresh=True, conversation="c-halfway"))
    delivery = given(subjects.turn_start(begun.turn), codec.encode(begun))
    with monkeypatch.context() as patched:
        patched.setattr(MemoryConversations, "create", _down)
        assert isinstance(await rig.engine.on_start(delivery), Retry)
    assert (await rig.job()).attempt == 1
    await purge(rig, "KM_MODEL")
    assert await rig.engine.on_start(delivery) == Done()
    assert (await rig.job()).attempt == 2


async def test_a_conversation_that_could_not_be_inserted_is_inserted_when_the_start_is_tried_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = await rig.accept(start(stream=True, fresh=True, conversation="c-late"))
    delivery = given(subjects.turn_start(begun.turn), codec.encode(begun))
    with monkeypatch.context() as patched:
        patched.setattr(MemoryConversations, "create", _down)
        assert isinstance(await rig.engine.on_start(delivery), Retry)
    await rig.job()
    assert await rig.engine.on_start(delivery) == Done()
    assert await rig.holder("c-late") == begun.turn
    assert (await running(rig, begun.turn)).status == "running"
    assert rig.jobs.empty()


async def test_a_start_that_waited_longer_than_cancels_are_heard_looks_before_it_begins(rig: Rig) -> None:
    begun = await rig.accept(start())
    await rig.cancel(begun.turn)
    assert (await rig.closing()).outcome == "cancelled"
    late = given(subjects.turn_start(begun.turn), codec.encode(begun))
    late.published_at_s = rig.clock.now_ms() / 1000 - 90.0  # type: ignore[misc]  it is the test's own
    assert await rig.engine.on_start(late) == Done()
    await rig.bus.barrier()
    assert rig.jobs.empty()


async def test_a_classic_start_that_waited_begins_without_a_look_at_the_store(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(rig.stores.live_turns), "get", _asked)
    begun = start(conversation=None)
    late = given(subjects.turn_start(begun.turn), codec.encode(begun))
    late.published_at_s = rig.clock.now_ms() / 1000 - 90.0  # type: ignore[misc]  it is the test's own
    assert await rig.engine.on_start(late) == Done()
    job = await rig.job()
    assert job.turn == begun.turn
    assert job.timings.start_queued_ms >= 90_000


async def test_a_start_that_was_given_up_though_its_turn_runs_fails_nothing(rig: Rig) -> None:
    begun = await rig.accept(start())
    await rig.start(begun)
    job = await rig.job()
    await rig.giving_up.on_dead("KM_TURN", subjects.turn_start(begun.turn), codec.encode(begun), "max deliveries")
    assert (await document(rig, begun.turn)).status == "queued"
    await rig.answer(job, "All the same.")
    assert (await rig.closing()).text == "All the same."


async def test_a_sweep_that_cannot_ask_the_bus_is_tried_again_at_once_when_it_answers(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = await rig.accept(start())
    rig.later(7.0)
    with monkeypatch.context() as patched:
        patched.setattr(type(rig.bus), "holds", _bus_down)
        with pytest.raises(Unavailable):
            await rig.sweeper.sweep()
    await rig.sweeper.sweep()
    assert (await rig.promote()).turn == begun.turn
    await sweep(rig)


async def _down(*_: object, **__: object) -> None:
    raise Unavailable(ErrorCode.STORE_DOWN, "down")


async def _bus_down(*_: object, **__: object) -> None:
    raise Unavailable(ErrorCode.BUS_DOWN, "down")


async def _asked(*_: object, **__: object) -> None:
    raise AssertionError("the store was asked")
