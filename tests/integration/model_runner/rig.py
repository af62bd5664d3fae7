"""A runner between a real NATS and the stub upstream; the test plays orchestrator and gateway."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import msgspec

from kitemesh_contracts import codec, subjects, topology
from kitemesh_contracts.beats import Beat
from kitemesh_contracts.commands import CancelTurn, Generate
from kitemesh_contracts.content import TextPart, UserMessage
from kitemesh_contracts.deltas import Frame, TextDelta
from kitemesh_contracts.events import Event
from kitemesh_contracts.headers import job_msg_id
from kitemesh_model_runner.provider import Provider
from kitemesh_model_runner.provider_openai import OpenAIEndpoint
from kitemesh_model_runner.provider_scripted import ScriptedModel
from kitemesh_model_runner.routing import Routing
from kitemesh_model_runner.runner import Runner
from kitemesh_runtime import catalog, topology_nats
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.stores import Blobs
from kitemesh_runtime.stores_memory import memory_stores
from kitemesh_runtime.worker import Worker
from upstream import Upstream

TENANT = "acme"
GATEWAY = "gateway-1"
WAIT_S = 10.0
_numbers = itertools.count(1)


class MovableClock(SystemClock):
    """The machine's clock, put forward by the test."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


class FixedCatalog:
    """A catalog that never changes."""

    def __init__(self, upstream: Upstream, models: dict[str, str]) -> None:
        self.current = catalog.Catalog.model_validate(
            {
                "providers": {
                    "stub": {"kind": "openai", "base_url": upstream.url, "retries": 0},
                    "script": {"kind": "scripted"},
                },
                "models": {
                    "scripted": {"provider": "script"},
                    **{name: {"provider": "stub", "upstream": plan} for name, plan in models.items()},
                },
            }
        )

    def on_change(self, _: Any) -> None:
        """Never call back."""


class Rig(NamedTuple):
    """A runner and what comes out of it."""

    bus: NatsBus
    runner: Runner
    worker: Worker
    blobs: Blobs
    clock: MovableClock
    pool: str
    events: asyncio.Queue[Event]
    frames: asyncio.Queue[Frame]
    outcomes: asyncio.Queue[str]

    async def send(self, job: Generate, data: bytes = b"") -> Generate:
        """Put a job into the queue, in other bytes than its own if given."""
        await self.bus.send(
            subjects.model_job(self.pool, "interactive", 0, job.turn),
            data or codec.encode(job),
            msg_id=job_msg_id(job.turn, job.step, "model", 0, job.attempt),
        )
        return job

    async def event(self) -> Event:
        async with asyncio.timeout(WAIT_S):
            return await self.events.get()

    async def frame(self) -> Frame:
        async with asyncio.timeout(WAIT_S):
            return await self.frames.get()

    async def text(self, words: int) -> str:
        """Return the text of so many frames' worth of words."""
        text = ""
        while len(text.split()) < words:
            text += "".join(item.text for item in (await self.frame()).items if isinstance(item, TextDelta))
        return text

    def cancel(self, job: Generate, reason: str = "the client left") -> None:
        self.bus.publish(
            subjects.cancel(job.turn), codec.encode(CancelTurn(turn=job.turn, tenant=job.tenant, reason=reason))
        )

    def beat(self) -> None:
        """Be the gateway that lives."""
        beat = Beat(service="gateway", replica=GATEWAY, version="0", load=0)
        self.bus.publish(subjects.beat("gateway", GATEWAY), codec.encode(beat))

    async def queued(self) -> int:
        """Return how many jobs the stream holds."""
        answer = await self.bus.request("$JS.API.STREAM.INFO.KM_MODEL", b"", timeout_s=5)
        return int(msgspec.json.decode(answer)["state"]["messages"])

    async def emptied(self) -> None:
        """Return once every job was acknowledged."""
        async with asyncio.timeout(WAIT_S):
            while await self.queued():
                pass


def job_of(text: str = "hello", **more: Any) -> Generate:
    """Return a job with a turn of its own."""
    fields: dict[str, Any] = {
        "turn": f"turn-{next(_numbers)}",
        "tenant": TENANT,
        "gateway": GATEWAY,
        "mode": "classic",
        "step": 0,
        "attempt": 1,
        "models": ("scripted",),
        "messages": (UserMessage(parts=(TextPart(text=text),)),),
        "budget_s": 30.0,
        "stream": True,
        "carry": msgspec.Raw(b'{"of": [ "the orchestrator" ]}'),
    }
    return Generate(**{**fields, **more})


@asynccontextmanager
async def running(
    url: str, upstream: Upstream, session: aiohttp.ClientSession, models: dict[str, str], slots: int = 8
) -> AsyncIterator[Rig]:
    """Run a worker in a pool of its own while inside."""
    events: asyncio.Queue[Event] = asyncio.Queue()
    frames: asyncio.Queue[Frame] = asyncio.Queue()
    outcomes: asyncio.Queue[str] = asyncio.Queue()
    clock = MovableClock()
    blobs = memory_stores(clock).blobs
    parcels = Parcels(blobs)
    pool = f"pool-{next(_numbers)}"
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(open_bus(url, name="runner-test", reconnect_wait_s=0.02))
        wanted = {topology.MODEL, topology.EVENT}
        specs = topology.topology(model_pools=[topology.Pool(pool)])
        await topology_nats.apply(bus, [spec for spec in specs if spec.name in wanted], replicas=1)

        def build(name: str, config: catalog.Provider) -> Provider:
            if isinstance(config, catalog.ScriptedProvider):
                return ScriptedModel(config)
            return OpenAIEndpoint(name, config, session, clock=clock, chance=lambda: 0.0)

        unpacking: set[asyncio.Task[None]] = set()

        def on_event(_: str, data: bytes) -> None:
            async def unpack() -> None:
                events.put_nowait(await parcels.unpack(codec.EVENT, data))

            unpacking.add(asyncio.ensure_future(unpack()))

        routing = Routing(FixedCatalog(upstream, models), build)  # type: ignore[arg-type]  # only read and listened to
        runner = Runner(bus=bus, parcels=parcels, routing=routing, clock=clock)
        worker = Worker(
            bus,
            topology.MODEL,
            [topology.lane_consumer(pool, "interactive", 0)],
            slots,
            runner.on_job,
            name="runner-test",
            on_release=runner.release,
            on_reject=runner.refuse,
            observe=lambda outcome, _: outcomes.put_nowait(outcome),
        )
        await runner.listen()
        await bus.subscribe("km.v1.event.step.*.*", on_event)
        await bus.subscribe(
            subjects.live_of(GATEWAY),
            lambda _, data: frames.put_nowait(codec.RELAYED.decode(data)),  # type: ignore[arg-type]  # only frames come
        )
        await bus.barrier()
        work = asyncio.create_task(worker.run())
        try:
            yield Rig(bus, runner, worker, blobs, clock, pool, events, frames, outcomes)
        finally:
            await worker.drain(0.0)
            await work
