"""Jobs go in on a real NATS and one event with every result comes out, whatever happens in between."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from integration.bus.rig import OwnServer
from integration.tool_executor.executor_rig import CARRY, ExecutorRig, order_of, running
from kitemesh_contracts import codec, subjects
from kitemesh_contracts.content import CallResult
from kitemesh_contracts.deltas import Frame
from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.events import CallsReturned, StepReleased
from kitemesh_contracts.headers import classic_result_msg_id, job_msg_id
from kitemesh_runtime.worker import Done
from kitemesh_tool_executor.dispatch import TOO_LATE
from unit.tool_executor.doubles import TENANT, code


@pytest.fixture
async def rig(nats: OwnServer) -> AsyncIterator[ExecutorRig]:
    async with running(nats.url) as rig:
        yield rig


async def returned(rig: ExecutorRig) -> CallsReturned:
    event = await rig.event()
    assert isinstance(event, CallsReturned)
    return event


@pytest.mark.requirement("classic:carry-is-untouched", "tool:every-call-has-a-result")
async def test_every_call_of_a_job_has_a_result_in_one_event(rig: ExecutorRig) -> None:
    names = {"a": "safe", "b": "keyed", "c": "once", "unknown": "rm"}
    orders = [order_of(rig.source, name, call) for call, name in names.items()]
    unfit = order_of(rig.source, "once", "unfit", '{"n":"x"}')
    job = await rig.send(rig.job(*orders, unfit, job=3))
    event = await returned(rig)
    assert (event.turn, event.tenant, event.step, event.attempt, event.job) == (job.turn, TENANT, 1, 1, 3)
    assert bytes(event.carry) == CARRY
    assert event.total_ms > 0
    assert event.cancelled is None
    assert [result.call for result in event.results] == [*names, "unfit"]
    assert event.results[:3] == tuple(CallResult(call=call, text="done") for call in "abc")
    assert [code(each) for each in event.results[3:]] == [ErrorCode.TOOL_UNKNOWN, ErrorCode.TOOL_ARGUMENTS]
    await rig.emptied()


async def test_the_calls_of_a_job_run_at_once(rig: ExecutorRig) -> None:
    together = asyncio.Barrier(3)

    async def run(_: object) -> str:
        await together.wait()
        return "met"

    rig.tool.run = run  # type: ignore[method-assign, assignment]  # this test's own tool
    await rig.send(rig.job(*(order_of(rig.source, name, name) for name in ("safe", "keyed", "once"))))
    assert {result.text for result in (await returned(rig)).results} == {"met"}


@pytest.mark.parametrize("stored", [False, True])
async def test_a_result_is_named_by_its_job_and_a_stored_one_by_its_attempt_too(
    rig: ExecutorRig, *, stored: bool
) -> None:
    order = order_of(rig.source, "safe", "a")
    job = await rig.send(rig.job(order, job=2, attempt=4, stored=stored, mode="durable" if stored else "classic"))
    await returned(rig)
    place = (job.turn, 1, "tool", 2)
    wanted = job_msg_id(*place, 4) if stored else classic_result_msg_id(*place)
    receipt = await rig.bus.send(subjects.event("call.returned", job.turn), b"{}", msg_id=wanted)
    assert receipt.duplicate


async def test_a_job_too_large_to_travel_is_fetched_and_its_result_travels_the_same_way(rig: ExecutorRig) -> None:
    rig.tool.script = ["x" * 60_000] * 6
    arguments = '{"n":1,"t":"' + "y" * 60_000 + '"}'
    orders = [order_of(rig.source, "safe", f"call-{i}", arguments) for i in range(6)]
    job = rig.job(*orders)
    parcel = await rig.executor._parcels.pack(TENANT, job)
    await rig.send(job, parcel)
    assert len(parcel) < 1000
    assert [len(result.text) for result in (await returned(rig)).results] == [60_000] * 6


async def test_a_job_whose_time_is_up_before_it_begins_runs_nothing(rig: ExecutorRig) -> None:
    job = rig.job(order_of(rig.source, "once", "late-once"), order_of(rig.source, "safe", "late-safe"))

    class Late:
        data = codec.encode(job)
        subject = subjects.tool_job(rig.pool, "interactive", 0, job.turn)
        sequence = 1
        deliveries = 1
        published_at_s = rig.clock.now_ms() / 1000 - 31.0

    assert await rig.executor.on_job(Late()) == Done()  # type: ignore[arg-type]  # no answer is needed
    event = await returned(rig)
    assert [result.error for result in event.results] == [TOO_LATE, TOO_LATE]
    assert event.total_ms == pytest.approx(31_000, abs=2_000)
    assert rig.tool.calls == []


async def test_while_the_ledger_is_away_the_job_waits_and_others_go_on(rig: ExecutorRig) -> None:
    rig.ledger.away = {"dispatch": 1}
    waiting = await rig.send(
        rig.job(order_of(rig.source, "once", "effect"), order_of(rig.source, "safe", "safe")),
    )
    other = await rig.send(rig.job(order_of(rig.source, "safe", "other")))
    first, second = await returned(rig), await returned(rig)
    assert (first.turn, second.turn) == (other.turn, waiting.turn)
    assert [result.text for result in second.results] == ["done", "done"]
    # What had its result did not run again.
    assert sorted(call.id for call in rig.tool.calls) == ["effect", "other", "safe"]


async def test_a_running_job_gives_a_sign_of_life_every_five_seconds(rig: ExecutorRig) -> None:
    rig.tool.hangs = True
    job = await rig.send(rig.job(order_of(rig.source, "safe", "a")))
    await rig.tool.asked.wait()
    for _ in range(5):
        rig.executor.tick()
    async with asyncio.timeout(5):
        assert await rig.frames.get() == Frame(n=0, offset=0, items=())
    assert rig.frames.empty()
    rig.cancel(job)
    await returned(rig)


async def test_a_job_for_nobody_gives_none(rig: ExecutorRig) -> None:
    rig.tool.hangs = True
    job = await rig.send(rig.job(order_of(rig.source, "safe", "a"), gateway="", mode="durable"))
    await rig.tool.asked.wait()
    for _ in range(5):
        rig.executor.tick()
    rig.cancel(job)
    assert (await returned(rig)).cancelled == "enough"


async def test_a_cancel_stops_what_has_no_effect_and_lets_the_rest_tell_the_truth(rig: ExecutorRig) -> None:
    go_on, asked = asyncio.Event(), asyncio.Event()
    seen: list[str] = []

    async def run(call: object) -> str:
        seen.append(call.id)  # type: ignore[attr-defined]  # it is a call
        if len(seen) == 2:
            asked.set()
        await go_on.wait()
        return "true"

    rig.tool.run = run  # type: ignore[method-assign, assignment]  # this test's own tool
    job = await rig.send(rig.job(order_of(rig.source, "safe", "safe"), order_of(rig.source, "once", "once")))
    async with asyncio.timeout(5):
        await asked.wait()
    rig.cancel(job)
    await rig.bus.barrier()
    go_on.set()
    event = await returned(rig)
    assert event.cancelled == "enough"
    assert [code(result) for result in event.results] == [ErrorCode.TOOL_CANCELLED, None]
    assert event.results[1].text == "true"


@pytest.mark.parametrize(("mode", "runs"), [("classic", 0), ("durable", 1)])
async def test_a_lost_client_stops_classic_jobs_only(rig: ExecutorRig, mode: str, runs: int) -> None:
    job = rig.job(order_of(rig.source, "once", f"a-{mode}"), mode=mode)
    rig.cancel(job, disconnect=True)
    await rig.bus.barrier()
    await rig.send(job)
    event = await returned(rig)
    assert event.cancelled == (None if runs else "enough")
    assert len(rig.tool.calls) == runs


async def test_a_cancel_behind_a_disconnect_stops_a_durable_job_too(rig: ExecutorRig) -> None:
    rig.tool.hangs = True
    job = await rig.send(rig.job(order_of(rig.source, "safe", "a"), mode="durable"))
    await rig.tool.asked.wait()
    rig.cancel(job, disconnect=True)
    rig.cancel(job)
    rig.cancel(job, disconnect=True)
    assert (await returned(rig)).cancelled == "enough"


@pytest.mark.parametrize("mode", ["classic", "durable"])
async def test_only_a_classic_job_ends_with_its_gateway(rig: ExecutorRig, mode: str) -> None:
    rig.tool.hangs = True
    job = await rig.send(rig.job(order_of(rig.source, "safe", "a"), mode=mode))
    await rig.tool.asked.wait()
    rig.executor.tick()
    for _ in range(3):
        rig.clock.ahead_s += 4.0
        rig.executor.tick()
    if mode == "durable":
        assert rig.events.empty()
        rig.cancel(job)
    assert (await returned(rig)).cancelled == ("enough" if mode == "durable" else "the gateway fell silent")


async def test_a_job_that_nobody_can_read_fails_each_of_its_calls(rig: ExecutorRig) -> None:
    job = rig.job(order_of(rig.source, "once", "a"), order_of(rig.source, "safe", "b"))
    unreadable = msgspec.json.decode(codec.encode(job))
    unreadable["budget_s"] = "soon"
    await rig.send(job, msgspec.json.encode(unreadable))
    event = await returned(rig)
    assert [(result.call, code(result)) for result in event.results] == [
        ("a", ErrorCode.TOOL_FAILED),
        ("b", ErrorCode.TOOL_FAILED),
    ]
    assert msgspec.json.decode(bytes(event.carry)) == msgspec.json.decode(CARRY)
    assert rig.tool.calls == []
    await rig.emptied()


@pytest.mark.parametrize("data", [b"\x00", b"{}", b'{"type":"calls.run"}'])
async def test_what_is_no_job_at_all_is_given_up(rig: ExecutorRig, data: bytes) -> None:
    await rig.send(rig.job(), data)
    async with asyncio.timeout(10):
        assert await rig.outcomes.get() == "rejected"
    await rig.emptied()
    assert rig.events.empty()


async def test_a_job_without_an_effect_under_way_is_handed_back(nats: OwnServer) -> None:
    async with running(nats.url) as rig:
        rig.tool.hangs = True
        job = await rig.send(rig.job(order_of(rig.source, "safe", "a")))
        await rig.tool.asked.wait()
        await rig.worker.drain(0.0)
        released = await rig.event()
        assert isinstance(released, StepReleased)
        assert bytes(released.job) == codec.encode(job)
        assert (released.turn, released.step, released.attempt) == (job.turn, 1, 1)
        await rig.emptied()


async def test_a_job_with_an_effect_under_way_is_let_finish(nats: OwnServer) -> None:
    async with running(nats.url) as rig:
        go_on = asyncio.Event()

        async def run(_: object) -> str:
            rig.tool.asked.set()
            await go_on.wait()
            return "true"

        rig.tool.run = run  # type: ignore[method-assign, assignment]  # this test's own tool
        await rig.send(rig.job(order_of(rig.source, "once", "a")))
        await rig.tool.asked.wait()
        drain = asyncio.create_task(rig.worker.drain(20.0))
        await rig.worker._stopping.wait()
        go_on.set()
        assert (await returned(rig)).results[0].text == "true"
        await drain
        await rig.emptied()


async def test_one_whose_effect_does_not_end_in_time_is_left_to_redelivery(nats: OwnServer) -> None:
    async with running(nats.url) as rig:
        rig.tool.hangs = True
        await rig.send(rig.job(order_of(rig.source, "once", "a")))
        await rig.tool.asked.wait()
        await rig.worker.drain(0.0)
        assert rig.events.empty()
        assert await rig.queued() == 1
        row = await rig.stores.ledger.get(TENANT, "a")
        assert row is not None
        assert row.state == "dispatched"
        await rig.bus.request("$JS.API.STREAM.PURGE.KM_TOOL", b"", timeout_s=5)


@pytest.mark.parametrize("effect", ["safe", "once"])
async def test_a_bus_that_goes_and_comes_back_costs_neither_a_result_nor_a_second_effect(
    nats: OwnServer, effect: str
) -> None:
    async with running(nats.url) as rig:
        go_on = asyncio.Event()
        seen: list[object] = []

        async def run(call: object) -> str:
            seen.append(call)
            rig.tool.asked.set()
            await go_on.wait()
            return "true"

        rig.tool.run = run  # type: ignore[method-assign, assignment]  # this test's own tool
        job = await rig.send(rig.job(order_of(rig.source, effect, f"bus-{effect}")))
        await rig.tool.asked.wait()
        nats.kill()
        go_on.set()
        nats.start()
        event = await returned(rig)
        assert (event.turn, event.results[0].text) == (job.turn, "true")
        await rig.emptied()
        # A killed server may forget one delivery, and then delivers again at once: what is safe may run once more.
        assert len(seen) <= (2 if effect == "safe" else 1)


async def test_a_redelivery_to_the_same_process_joins_the_calls_that_run(rig: ExecutorRig) -> None:
    go_on = asyncio.Event()

    async def run(call: object) -> str:
        rig.tool.calls.append(call)  # type: ignore[arg-type]  # it is a call
        rig.tool.asked.set()
        await go_on.wait()
        return "true"

    rig.tool.run = run  # type: ignore[method-assign, assignment]  # this test's own tool
    job = await rig.send(rig.job(order_of(rig.source, "once", "joined")))
    await rig.tool.asked.wait()
    (held,) = rig.worker._held
    again = asyncio.create_task(rig.executor.on_job(held.delivery))
    go_on.set()
    async with asyncio.timeout(10):
        await again
    assert (await returned(rig)).turn == job.turn
    assert len(rig.tool.calls) == 1
