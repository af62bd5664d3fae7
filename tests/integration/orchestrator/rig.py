"""The engine on a real NATS and the stores' twins; the test plays gateway and model-runner."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

from contract.messages import START
from kitemesh_contracts import codec, subjects, topology
from kitemesh_contracts.commands import Generate, StartTurn
from kitemesh_contracts.content import TextPart, UserMessage
from kitemesh_contracts.deltas import TurnEnded
from kitemesh_contracts.events import Event, StepGenerated
from kitemesh_orchestrator.endings import Endings
from kitemesh_orchestrator.engine import Engine
from kitemesh_orchestrator.seating import Seating
from kitemesh_runtime import topology_nats
from kitemesh_runtime.bus import Delivery
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.cancels import Cancels
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_memory import memory_stores
from kitemesh_runtime.worker import Done

_turns = (f"turn-{n}" for n in itertools.count(1))
CATALOG = Catalog.model_validate(
    {
        "providers": {"p": {"kind": "scripted"}},
        "models": {"a": {"provider": "p"}},
        "agents": {"helper": {"model": "a", "prompt": "Be kind."}, "brisk": {"model": "a", "on_busy": "reject"}},
    }
)


class FixedCatalog:
    """A catalog that never changes."""

    current = CATALOG


class Given:
    """A delivery that the test hands in."""

    def __init__(self, subject: str, data: bytes, deliveries: int = 1) -> None:
        self.subject = subject
        self.data = data
        self.deliveries = deliveries
        self.sequence = 1
        self.published_at_s = 0.0


class Rig(NamedTuple):
    """An engine with both ends of its bus in the test's hands."""

    bus: NatsBus
    engine: Engine
    endings: Endings
    stores: Stores
    store_state: Dependency
    cancels: Cancels
    jobs: asyncio.Queue[Generate]
    closings: asyncio.Queue[TurnEnded]
    promoted: asyncio.Queue[StartTurn]

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
        assert await self.engine.on_start(given(subjects.control_start(start.turn), codec.encode(start))) == Done()

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
            return await self.jobs.get()

    async def closing(self) -> TurnEnded:
        async with asyncio.timeout(5):
            return await self.closings.get()

    async def answer(self, job: Generate, text: str) -> None:
        await self.event(
            StepGenerated(
                turn=job.turn,
                tenant=job.tenant,
                step=job.step,
                attempt=job.attempt,
                model="a",
                finish="stop",
                text=text,
                carry=job.carry,
            )
        )


def given(subject: str, data: bytes, deliveries: int = 1) -> Delivery:
    return Given(subject, data, deliveries)  # type: ignore[return-value]  the engine never answers a delivery


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
    clock = SystemClock()
    stores = memory_stores(clock)
    jobs: asyncio.Queue[Generate] = asyncio.Queue()
    closings: asyncio.Queue[TurnEnded] = asyncio.Queue()
    promoted: asyncio.Queue[StartTurn] = asyncio.Queue()
    async with open_bus(nats_url, name="engine-test") as bus:
        specs = [spec for spec in topology.topology() if spec.name in {topology.MODEL, topology.CONTROL}]
        await topology_nats.apply(bus, specs, replicas=1)
        await bus.subscribe("km.v1.model.engine.>", lambda _, data: jobs.put_nowait(codec.GENERATE.decode(data)))
        await bus.subscribe(
            subjects.live_of("engine-test"), lambda _, data: closings.put_nowait(codec.RELAYED.decode(data))
        )
        await bus.subscribe("km.v1.control.start.*", lambda _, data: promoted.put_nowait(codec.START.decode(data)))
        await bus.barrier()
        state = Dependency("mongodb")
        state.mark_up()
        parcels = Parcels(stores.blobs)
        endings = Endings(bus=bus, stores=stores, parcels=parcels, clock=clock, store_state=state)
        cancels = Cancels(clock)
        engine = Engine(
            bus=bus,
            parcels=parcels,
            catalog=FixedCatalog(),  # type: ignore[arg-type]  only `current` is read
            seating=Seating(stores, max_waiting=2),
            endings=endings,
            cancels=cancels,
        )
        yield Rig(bus, engine, endings, stores, state, cancels, jobs, closings, promoted)
