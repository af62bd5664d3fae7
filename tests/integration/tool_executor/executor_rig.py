"""An executor between a real NATS and stores in memory; the test plays orchestrator and gateway."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import msgspec

from kitemesh_contracts import canonical, codec, subjects, topology
from kitemesh_contracts.beats import Beat
from kitemesh_contracts.commands import CallOrder, CancelTurn, RunCalls
from kitemesh_contracts.deltas import Frame
from kitemesh_contracts.events import Event
from kitemesh_contracts.headers import job_msg_id
from kitemesh_runtime import topology_nats
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.worker import Worker
from kitemesh_tool_executor.executor import Executor
from unit.tool_executor.doubles import TENANT, Outage, Source, ToldTool, rig

GATEWAY = "gateway-1"
WAIT_S = 15.0
CARRY = b'{"of": [ "the orchestrator" ]}'
_numbers = itertools.count(1)


class MovableClock(SystemClock):
    """The machine's clock, put forward by the test."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


class ExecutorRig(NamedTuple):
    """An executor and what comes out of it."""

    bus: NatsBus
    executor: Executor
    worker: Worker
    tool: ToldTool
    stores: Stores
    ledger: Outage
    source: Source
    clock: MovableClock
    pool: str
    events: "asyncio.Queue[Event]"
    frames: "asyncio.Queue[Frame]"
    outcomes: "asyncio.Queue[str]"

    def job(self, *calls: CallOrder, **more: Any) -> RunCalls:
        """Return a job with a turn of its own."""
        fields: dict[str, Any] = {
            "turn": f"turn-{next(_numbers)}",
            "tenant": TENANT,
            "gateway": GATEWAY,
            "mode": "classic",
            "step": 1,
            "attempt": 1,
            "calls": calls,
            "budget_s": 30.0,
            "carry": msgspec.Raw(CARRY),
        }
        return RunCalls(**{**fields, **more})

    async def send(self, job: RunCalls, data: bytes = b"") -> RunCalls:
        """Put a job into the queue, in other bytes than its own if given."""
        await self.bus.send(
            subjects.tool_job(self.pool, "interactive", 0, job.turn),
            data or codec.encode(job),
            msg_id=job_msg_id(job.turn, job.step, "tool", job.job, job.attempt),
        )
        return job

    async def event(self) -> Event:
        async with asyncio.timeout(WAIT_S):
            return await self.events.get()

    def cancel(self, job: RunCalls, *, disconnect: bool = False) -> None:
        cancel = CancelTurn(turn=job.turn, tenant=job.tenant, reason="enough", disconnect=disconnect)
        self.bus.publish(subjects.cancel(job.turn), codec.encode(cancel))

    def beat(self) -> None:
        """Be the gateway that lives."""
        beat = Beat(service="gateway", replica=GATEWAY, version="0", load=0)
        self.bus.publish(subjects.beat("gateway", GATEWAY), codec.encode(beat))

    async def queued(self) -> int:
        """Return how many jobs the stream holds."""
        answer = await self.bus.request("$JS.API.STREAM.INFO.KM_TOOL", b"", timeout_s=5)
        return int(msgspec.json.decode(answer)["state"]["messages"])

    async def emptied(self) -> None:
        """Return once every job was acknowledged."""
        async with asyncio.timeout(WAIT_S):
            while await self.queued():
                pass


@asynccontextmanager
async def running(url: str, *, slots: int = 8, **tool: Any) -> AsyncIterator[ExecutorRig]:
    """Run a worker in a pool of its own while inside."""
    events: asyncio.Queue[Event] = asyncio.Queue()
    frames: asyncio.Queue[Frame] = asyncio.Queue()
    outcomes: asyncio.Queue[str] = asyncio.Queue()
    clock = MovableClock()
    told = rig(clock, **tool)
    parcels = Parcels(told.stores.blobs)
    pool = f"pool-{next(_numbers)}"
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(open_bus(url, name="executor-test", reconnect_wait_s=0.02))
        wanted = {topology.TOOL, topology.EVENT}
        specs = topology.topology(tool_pools=[topology.Pool(pool)])
        await topology_nats.apply(bus, [spec for spec in specs if spec.name in wanted], replicas=1)
        unpacking: set[asyncio.Task[None]] = set()

        def on_event(_: str, data: bytes) -> None:
            async def unpack() -> None:
                events.put_nowait(await parcels.unpack(codec.EVENT, data))

            unpacking.add(asyncio.ensure_future(unpack()))

        executor = Executor(bus=bus, parcels=parcels, dispatcher=told.dispatcher, clock=clock)
        worker = Worker(
            bus,
            topology.TOOL,
            [topology.lane_consumer(pool, "interactive", 0)],
            slots,
            executor.on_job,
            name="executor-test",
            on_release=executor.release,
            on_reject=executor.refuse,
            observe=lambda outcome, _: outcomes.put_nowait(outcome),
        )
        await executor.listen()
        await bus.subscribe("km.v1.event.*.*.*", on_event)
        await bus.subscribe(
            subjects.live_of(GATEWAY),
            lambda _, data: frames.put_nowait(codec.RELAYED.decode(data)),  # type: ignore[arg-type]  # only frames come
        )
        await bus.barrier()
        work = asyncio.create_task(worker.run())
        try:
            yield ExecutorRig(
                bus,
                executor,
                worker,
                told.tool,
                told.stores,
                told.ledger,
                told.source,
                clock,
                pool,
                events,
                frames,
                outcomes,
            )
        finally:
            await worker.drain(0.0)
            await work


def order_of(source: Source, name: str, call: str, arguments: str = '{"n":1}') -> CallOrder:
    """Return an order as the orchestrator makes it."""
    definition = source.current.tools.get(name)
    version = definition.version() if definition else ""
    return CallOrder(id=call, name=name, arguments=arguments, sha256=canonical.sha256(arguments), version=version)
