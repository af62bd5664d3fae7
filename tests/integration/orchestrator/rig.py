"""The engine on a real NATS and the stores' twins; the test plays gateway and model-runner."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

from contract.messages import START
from kitemesh_contracts import codec, subjects, topology
from kitemesh_contracts.commands import ApplyHold, CancelTurn, Generate, RunCalls, StartTurn
from kitemesh_contracts.content import CallResult, TextPart, ToolCall, UserMessage
from kitemesh_contracts.deltas import TurnEnded
from kitemesh_contracts.events import CallsReturned, Event, StepGenerated
from kitemesh_contracts.ids import call_id
from kitemesh_orchestrator.app import assemble
from kitemesh_orchestrator.endings import Endings
from kitemesh_orchestrator.engine import Engine
from kitemesh_orchestrator.giving_up import GivingUp
from kitemesh_orchestrator.sweeper import Sweeper
from kitemesh_runtime import topology_nats
from kitemesh_runtime.bus import Delivery
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.cancels import Cancels
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.live_turns import Job, LiveTurn
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_memory import memory_stores
from kitemesh_runtime.worker import Done

_turns = (f"turn-{n}" for n in itertools.count(1))
CATALOG = Catalog.model_validate(
    {
        "providers": {"p": {"kind": "scripted"}},
        "models": {"a": {"provider": "p"}},
        "agents": {
            "helper": {"model": "a", "prompt": "Be kind."},
            "brisk": {"model": "a", "on_busy": "reject"},
            "doer": {"model": "a", "tools": ["look", "wipe", "post"], "limits": {"steps": 3}},
            "strict": {"model": "a", "tools": ["look", "wipe"], "on_held": "reject"},
            "patient": {"model": "a", "tools": ["look", "wipe"], "on_held": "queue"},
            "hasty": {"model": "a", "on_busy": "cancel_previous"},
        },
        "pools": {"tool": {"default": {}, "other": {}}},
        "tools": {
            "look": {"kind": "python", "entry_point": "look", "effect": "safe"},
            "wipe": {"kind": "python", "entry_point": "wipe", "effect": "once"},
            "post": {"kind": "python", "entry_point": "post", "effect": "keyed", "pool": "other"},
        },
        "policies": [{"tools": ["wipe"], "then": "hold"}],
        "webhooks": {
            "desk": {
                "url": "https://desk.example/hook",
                "events": ["approval.requested"],
                "secret": {"env": "DESK_SECRET"},
                "tenants": ["hooked"],
                "pool": "other",
            }
        },
    }
)


STREAMS = {
    topology.TURN,
    topology.MODEL,
    topology.CONTROL,
    topology.TOOL,
    topology.EVENT,
    topology.TIMER,
    topology.FEED,
}


class FixedCatalog:
    """A catalog that never changes."""

    current = CATALOG


class ShiftedClock(SystemClock):
    """The machine's clock, wrong by as much as a test wants."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now_ms(self) -> int:
        return super().now_ms() + round(self.ahead_s * 1000)


class Given:
    """A delivery that the test hands in."""

    def __init__(self, subject: str, data: bytes, deliveries: int = 1) -> None:
        self.subject = subject
        self.data = data
        self.deliveries = deliveries
        self.sequence = 1
        self.published_at_s = 0.0


class Rig(NamedTuple):
    """An engine with both ends of its bus in the test's hands.

    Attributes:
        clock: The engine's own.
        store_clock: The stores'.

    """

    bus: NatsBus
    engine: Engine
    giving_up: GivingUp
    endings: Endings
    sweeper: Sweeper
    stores: Stores
    store_state: Dependency
    cancels: Cancels
    jobs: asyncio.Queue[Generate]
    tools: asyncio.Queue[RunCalls]
    closings: asyncio.Queue[TurnEnded]
    promoted: asyncio.Queue[StartTurn]
    decisions: asyncio.Queue[bytes]
    clock: ShiftedClock
    store_clock: ShiftedClock

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.ahead_s += seconds
        self.store_clock.ahead_s += seconds

    async def hear(self, turn: str, *, disconnect: bool = False) -> None:
        """Have a cancel broadcast and heard."""
        await self.cancels.listen(self.bus)
        cancel = CancelTurn(turn=turn, tenant="acme", reason="enough", disconnect=disconnect)
        self.bus.publish(subjects.cancel(turn), codec.encode(cancel))
        await self.bus.barrier()
        assert self.cancels.reason(turn) == "enough"

    async def cancel(self, turn: str) -> None:
        """Cancel a stored turn, as a gateway does."""
        await self.stores.live_turns.cancel("acme", turn, "enough")
        cancel = CancelTurn(turn=turn, tenant="acme", reason="enough")
        assert await self.engine.on_control(given(subjects.control_cancel(turn), codec.encode(cancel))) == Done()

    async def accept(self, start: StartTurn) -> StartTurn:
        """Store a turn as a gateway does that accepts it as durable; return its start."""
        durable = msgspec.structs.replace(start, mode="durable")
        assert await self.stores.live_turns.insert("acme", accepted(durable))
        return durable

    async def start(self, start: StartTurn, deliveries: int = 1) -> None:
        delivery = given(subjects.turn_start(start.turn), codec.encode(start), deliveries)
        assert await self.engine.on_start(delivery) == Done()

    async def promote(self) -> StartTurn:
        """Take up the next promotion."""
        async with asyncio.timeout(5):
            start = await self.promoted.get()
        await self.take_up(start)
        return start

    async def take_up(self, start: StartTurn) -> None:
        assert await self.engine.on_control(given(subjects.control_start(start.turn), codec.encode(start))) == Done()

    async def holder(self, conversation: str) -> str | None:
        """Return who holds a conversation's lock."""
        found = await self.stores.conversations.get("acme", conversation)
        assert found is not None
        return found.active

    async def event(self, event: Event) -> None:
        kind = type(event).__struct_config__.tag
        assert await self.engine.on_event(given(subjects.event(str(kind), event.turn), codec.encode(event))) == Done()

    async def job(self) -> Generate:
        async with asyncio.timeout(5):
            job = await self.jobs.get()
            return await Parcels(self.stores.blobs).unpack(codec.GENERATE, codec.encode(job))

    async def closing(self) -> TurnEnded:
        async with asyncio.timeout(5):
            return await self.closings.get()

    async def tool_job(self) -> RunCalls:
        async with asyncio.timeout(5):
            return await self.tools.get()

    async def call(self, job: Generate, *calls: tuple[str, str], text: str = "") -> tuple[str, ...]:
        """Have the model ask for calls, each a name and its arguments; return their ids."""
        event = generated(job, *calls, text=text)
        await self.event(event)
        return tuple(each.id for each in event.calls)

    async def returned(self, job: RunCalls, *texts: str) -> None:
        """Have a tool job's calls return texts."""
        results = tuple(CallResult(call=call.id, text=text) for call, text in zip(job.calls, texts, strict=True))
        await self.event(
            CallsReturned(
                turn=job.turn,
                tenant=job.tenant,
                step=job.step,
                attempt=job.attempt,
                results=results,
                job=job.job,
                carry=job.carry,
            )
        )

    async def apply(self, turn: str, hold: str, **more: object) -> None:
        """Have a hold applied."""
        message = ApplyHold(turn=turn, tenant="acme", hold=hold, **more)  # type: ignore[arg-type]
        delivery = given(subjects.control_decide(turn), codec.encode(message))
        assert await self.engine.on_control(delivery) == Done()

    async def take_decision(self) -> None:
        """Take the next hold that the engine itself asks to have applied."""
        async with asyncio.timeout(5):
            message = await self.decisions.get()
        assert await self.engine.on_control(given("km.v1.control.decide.x", message)) == Done()

    async def answer(self, job: Generate, text: str) -> None:
        await self.event(generated(job, text=text))


def accepted(start: StartTurn) -> LiveTurn:
    """Return the document of a durable turn that a gateway accepted."""
    return LiveTurn(
        id=start.turn,
        tenant=start.tenant,
        version=1,
        status="queued",
        mode="durable",
        model=start.route.requested,
        state=codec.encode(start),
        jobs=(Job(kind="model", step=1, pool=start.route.pool),),
        conversation=start.conversation,
        ordinal=1 if start.fresh else 0,
        agent=start.route.agent,
        gateway=start.gateway,
        accepted_at_ms=start.accepted_at_ms,
    )


def given(subject: str, data: bytes, deliveries: int = 1) -> Delivery:
    return Given(subject, data, deliveries)  # type: ignore[return-value]  the engine never answers a delivery


def generated(job: Generate, *calls: tuple[str, str], text: str = "", attempt: int | None = None) -> StepGenerated:
    """Return what a model said to a job; each call is a name and its arguments."""
    return StepGenerated(
        turn=job.turn,
        tenant=job.tenant,
        step=job.step,
        attempt=job.attempt if attempt is None else attempt,
        model="a",
        finish="tool_calls" if calls else "stop",
        text=text,
        calls=tuple(
            ToolCall(id=call_id(job.turn, job.step, index), name=name, arguments=arguments)
            for index, (name, arguments) in enumerate(calls)
        ),
        carry=job.carry,
    )


def start(text: str = "Hi", **more: object) -> StartTurn:
    fields = {
        "turn": next(_turns),
        "gateway": "engine-test",
        "conversation": None,
        "fresh": False,
        "route": msgspec.structs.replace(START.route, models=("a",), pool="engine", agent="helper"),
        "input": (UserMessage(parts=(TextPart(text=text),)),),
    }
    return msgspec.structs.replace(START, **{**fields, **more})


@asynccontextmanager
async def running(nats_url: str) -> AsyncIterator[Rig]:
    """Run an engine while inside."""
    clock, store_clock = ShiftedClock(), ShiftedClock()
    stores = memory_stores(store_clock)
    jobs: asyncio.Queue[Generate] = asyncio.Queue()
    tools: asyncio.Queue[RunCalls] = asyncio.Queue()
    closings: asyncio.Queue[TurnEnded] = asyncio.Queue()
    promoted: asyncio.Queue[StartTurn] = asyncio.Queue()
    decisions: asyncio.Queue[bytes] = asyncio.Queue()
    async with open_bus(nats_url, name="engine-test") as bus:
        specs = [spec for spec in topology.topology() if spec.name in STREAMS]
        await topology_nats.apply(bus, specs, replicas=1)
        await bus.subscribe("km.v1.model.engine.>", lambda _, data: jobs.put_nowait(codec.GENERATE.decode(data)))
        await bus.subscribe("km.v1.tool.*.>", lambda _, data: tools.put_nowait(codec.RUN_CALLS.decode(data)))
        await bus.subscribe(
            subjects.live_of("engine-test"), lambda _, data: closings.put_nowait(codec.RELAYED.decode(data))
        )
        await bus.subscribe("km.v1.control.decide.*", lambda _, data: decisions.put_nowait(data))
        await bus.subscribe("km.v1.control.start.*", lambda _, data: promoted.put_nowait(codec.START.decode(data)))
        await bus.barrier()
        state = Dependency("mongodb")
        state.mark_up()
        parcels = Parcels(stores.blobs)
        cancels = Cancels(clock)
        core = assemble(
            bus=bus,
            stores=stores,
            parcels=parcels,
            catalog=FixedCatalog(),  # type: ignore[arg-type]  only `current` is read
            clock=clock,
            store_state=state,
            cancels=cancels,
            max_waiting=2,
        )
        yield Rig(
            bus,
            core.engine,
            core.giving_up,
            core.endings,
            core.sweeper,
            stores,
            state,
            cancels,
            jobs,
            tools,
            closings,
            promoted,
            decisions,
            clock,
            store_clock,
        )
