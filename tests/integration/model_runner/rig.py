"""A runner between a real NATS and the stub upstream; the test plays orchestrator and gateway."""

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec

from kitemesh_contracts import codec, subjects, topology
from kitemesh_contracts.beats import Beat
from kitemesh_contracts.commands import CancelTurn, Generate
from kitemesh_contracts.content import TextPart, UserMessage
from kitemesh_contracts.deltas import Frame, TextDelta
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_contracts.events import Event
from kitemesh_contracts.headers import MSG_ID, job_msg_id
from kitemesh_model_runner.fence import Fence
from kitemesh_model_runner.files import Files
from kitemesh_model_runner.provider import Provider
from kitemesh_model_runner.provider_openai import OpenAIEndpoint
from kitemesh_model_runner.provider_scripted import ScriptedModel
from kitemesh_model_runner.routing import Routing
from kitemesh_model_runner.runner import Runner
from kitemesh_runtime import catalog, topology_nats
from kitemesh_runtime.blobs import Blobs
from kitemesh_runtime.bus import Delivery
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.live_turns import Job, LiveTurn
from kitemesh_runtime.live_turns_memory import MemoryLiveTurns
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.stores_memory import memory_stores
from kitemesh_runtime.worker import Worker
from upstream import Upstream

TENANT = "acme"
GATEWAY = "gateway-1"
WAIT_S = 10.0
_GET_EVENT: Final = "$JS.API.STREAM.MSG.GET.KM_EVENT"
SLOTS = 8
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
                    "anew": {"provider": "script", "continues": False},
                    **{
                        name: {"provider": "stub", "upstream": plan, "continues": name.startswith("continuing")}
                        for name, plan in models.items()
                    },
                },
            }
        )

    def on_change(self, _: Any) -> None:
        """Never call back."""


class LiveTurns(MemoryLiveTurns):
    """The twin, which the test can take away.

    Attributes:
        refusals: Answered with `Unavailable` so many times more.

    """

    def __init__(self) -> None:
        super().__init__(SystemClock(), {}, lambda _: None)
        self.refusals = 0

    async def claim(self, tenant: str, turn: str, job: Job) -> bool:
        if self.refusals:
            self.refusals -= 1
            raise Unavailable(ErrorCode.STORE_DOWN, "the test took it away")
        return await super().claim(tenant, turn, job)

    async def published_again(self, job: Generate) -> None:
        """Have the orchestrator say that the turn's job was published under this job's attempt."""
        found = await self.get(job.tenant, job.turn)
        assert isinstance(found, LiveTurn)
        work = Job(kind="model", step=job.step, attempt=job.attempt, pool="p")
        await self.save(job.tenant, msgspec.structs.replace(found, version=found.version + 1, jobs=(work,)))

    async def begin(self, job: Generate, *, attempt: int | None = None, claimed: tuple[int, int] = (0, 0)) -> None:
        """Store a turn for which this job is outstanding, `claimed` by that delivery of that message."""
        message, deliveries = claimed
        work = Job(
            kind="model",
            step=job.step,
            attempt=attempt or job.attempt,
            pool="p",
            message=message,
            deliveries=deliveries,
        )
        turn = LiveTurn(
            id=job.turn,
            tenant=job.tenant,
            version=1,
            status="running",
            mode=job.mode,
            model="m",
            state=b"{}",
            jobs=(work,),
        )
        assert await self.insert(job.tenant, turn)

    async def attempt(self, job: Generate) -> int:
        """Return the attempt that counts."""
        turn = await self.get(job.tenant, job.turn)
        assert isinstance(turn, LiveTurn)
        return turn.jobs[0].attempt


class Rig(NamedTuple):
    """A runner and what comes out of it."""

    bus: NatsBus
    runner: Runner
    worker: Worker
    blobs: Blobs
    live_turns: LiveTurns
    clock: MovableClock
    pool: str
    events: asyncio.Queue[Event]
    frames: asyncio.Queue[Frame]
    outcomes: asyncio.Queue[str]
    start: Callable[[], None]

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

    def cancel(self, job: Generate, reason: str = "the client left", *, disconnect: bool = False) -> None:
        cancel = CancelTurn(turn=job.turn, tenant=job.tenant, reason=reason, disconnect=disconnect)
        self.bus.publish(subjects.cancel(job.turn), codec.encode(cancel))

    async def take(self) -> Delivery:
        """Be the worker that gets the next job, and leave its message alone from then on."""
        taken: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        pull = await self.bus.pull(
            topology.MODEL, topology.lane_consumer(self.pool, "interactive", 0), taken.set_result
        )
        pull.add_credit(1)
        async with asyncio.timeout(WAIT_S):
            delivery = await taken
        await pull.stop()
        return delivery

    async def message_id(self, event: Event) -> str:
        """Return the id under which the stream keeps the newest event of a kind and turn."""
        kind = event.__struct_config__.tag
        assert isinstance(kind, str)
        question = msgspec.json.encode({"last_by_subj": subjects.event(kind, event.turn)})
        found: dict[str, Any] = {}
        async with asyncio.timeout(5):
            # Who listens hears it a moment before the stream has it.
            while "message" not in found:
                found = msgspec.json.decode(await self.bus.request(_GET_EVENT, question, timeout_s=5))
        kept = base64.b64decode(found["message"]["hdrs"]).decode()
        return next(line.split(": ", 1)[1] for line in kept.splitlines() if line.startswith(MSG_ID))

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
    url: str, upstream: Upstream, session: aiohttp.ClientSession, models: dict[str, str], *, at_once: bool = True
) -> AsyncIterator[Rig]:
    """Run a worker in a pool of its own while inside; not `at_once`, then when the test starts it."""
    events: asyncio.Queue[Event] = asyncio.Queue()
    frames: asyncio.Queue[Frame] = asyncio.Queue()
    outcomes: asyncio.Queue[str] = asyncio.Queue()
    clock = MovableClock()
    blobs = memory_stores(clock).blobs
    live_turns = LiveTurns()
    parcels = Parcels(blobs)
    pool = f"pool-{next(_numbers)}"
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(open_bus(url, name="runner-test", reconnect_wait_s=0.02))
        wanted = {topology.MODEL, topology.EVENT, topology.OUT}
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
        fence = Fence(live_turns, pool=pool)
        runner = Runner(bus=bus, parcels=parcels, routing=routing, clock=clock, fence=fence, files=Files(blobs))
        worker = Worker(
            bus,
            topology.MODEL,
            [topology.lane_consumer(pool, "interactive", 0)],
            SLOTS,
            runner.on_job,
            name="runner-test",
            on_release=runner.release,
            on_reject=runner.refuse,
            observe=lambda outcome, _: outcomes.put_nowait(outcome),
        )
        await runner.listen()
        await bus.subscribe("km.v1.event.step.*.*", on_event)
        for relayed in (subjects.live_of(GATEWAY), subjects.out_of(GATEWAY)):
            await bus.subscribe(
                relayed,
                lambda _, data: frames.put_nowait(codec.RELAYED.decode(data)),  # type: ignore[arg-type]  # only frames
            )
        await bus.barrier()
        work: list[asyncio.Task[None]] = []

        def start() -> None:
            work.append(asyncio.create_task(worker.run()))

        if at_once:
            start()
        try:
            yield Rig(bus, runner, worker, blobs, live_turns, clock, pool, events, frames, outcomes, start)
        finally:
            await worker.drain(0.0)
            await asyncio.gather(*work)
