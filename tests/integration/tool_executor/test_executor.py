"""A tool job goes in on a real NATS and one event with every result comes out."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from contract.messages import CALL, TURN
from kitemesh_contracts import codec, subjects, topology
from kitemesh_contracts.commands import RunCalls
from kitemesh_contracts.content import ToolCall
from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.events import CallResult, CallsReturned, Event
from kitemesh_runtime import topology_nats
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.stores_memory import memory_stores
from kitemesh_runtime.worker import Worker
from kitemesh_tool_executor.app import TOOLS
from kitemesh_tool_executor.executor import Executor


class Slow:
    """A tool that never returns."""

    async def run(self, _: str) -> str:
        await asyncio.Event().wait()
        return ""


class Broken:
    """A tool with a bug."""

    async def run(self, _: str) -> str:
        raise RuntimeError("secret words of a bug")


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[NatsBus]:
    async with open_bus(nats_url, name="executor-test") as bus:
        pools = (topology.Pool("executor-test"),)
        wanted = {topology.TOOL, topology.EVENT}
        specs = [spec for spec in topology.topology(pools, pools) if spec.name in wanted]
        await topology_nats.apply(bus, specs, replicas=1)
        yield bus


@pytest.mark.requirement("classic:carry-is-untouched", "tool:every-call-has-a-result")
async def test_every_call_of_a_job_has_a_result_in_one_event(bus: NatsBus) -> None:
    executor = Executor(bus, Parcels(memory_stores().blobs), {**TOOLS, "slow": Slow(), "broken": Broken()})
    worker = Worker(
        bus, topology.TOOL, topology.lane_consumers("executor-test", 1), 4, executor.on_job, name="executor-test"
    )
    events: asyncio.Queue[Event] = asyncio.Queue()
    await bus.subscribe("km.v1.event.call.returned.*", lambda _, data: events.put_nowait(codec.EVENT.decode(data)))
    calls = {
        CALL: ("measure_text", '{"text":"a b"}'),
        "unfit": ("measure_text", '{"text":7}'),
        "unknown": ("rm", "{}"),
        "slow": ("slow", "{}"),
        "broken": ("broken", "{}"),
    }
    job = RunCalls(
        turn=TURN,
        tenant="acme",
        gateway="g",
        mode="classic",
        step=1,
        attempt=1,
        calls=tuple(ToolCall(id=i, name=name, arguments=arguments) for i, (name, arguments) in calls.items()),
        budget_s=0.5,
        carry=msgspec.Raw(b'{"kept":1}'),
    )
    running = asyncio.create_task(worker.run())
    subject = subjects.tool_job("executor-test", topology.PRIORITIES[0], 0, TURN)
    await bus.send(subject, codec.encode(job), msg_id="executor-test-1")
    async with asyncio.timeout(10):
        event = await events.get()
    await worker.drain(1.0)
    await running
    assert isinstance(event, CallsReturned)
    assert bytes(event.carry) == b'{"kept":1}'
    results = {result.call: result for result in event.results}
    assert list(results) == list(calls)
    assert results[CALL] == CallResult(call=CALL, text='{"characters":3,"words":2,"lines":1}')
    codes = {call: result.error.code for call, result in results.items() if result.error}
    assert codes == {
        "unfit": ErrorCode.TOOL_FAILED,
        "unknown": ErrorCode.TOOL_UNKNOWN,
        "slow": ErrorCode.TOOL_FAILED,
        "broken": ErrorCode.TOOL_FAILED,
    }
    assert b"secret" not in codec.encode(event)
