"""The orchestrator's composition root: the only place here that names adapters."""

import asyncio
from contextlib import AsyncExitStack
from typing import Final, NamedTuple

import structlog

from kitemesh_contracts.commands import CancelTurn
from kitemesh_contracts.errors import Unavailable
from kitemesh_contracts.topology import CONTROL, EVENT, ORCHESTRATOR_ACK_WAIT_S, TIMER, TURN
from kitemesh_orchestrator.beginnings import Beginnings
from kitemesh_orchestrator.driving import Drive
from kitemesh_orchestrator.endings import Endings
from kitemesh_orchestrator.engine import Engine
from kitemesh_orchestrator.giving_up import GivingUp
from kitemesh_orchestrator.holding import Holding
from kitemesh_orchestrator.housekeeping import Housekeeping
from kitemesh_orchestrator.jobs import Jobs
from kitemesh_orchestrator.making_way import MakingWay
from kitemesh_orchestrator.notices import Notices
from kitemesh_orchestrator.noting import Noting
from kitemesh_orchestrator.seating import Seating
from kitemesh_orchestrator.settings import OrchestratorSettings
from kitemesh_orchestrator.sweeper import Sweeper, sweep_forever
from kitemesh_orchestrator.whereabouts import Whereabouts
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.cancels import Cancels
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.clearing import Clearing
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.dead_nats import dead_letter_workers
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.foundation import open_foundation
from kitemesh_runtime.lifecycle import Life
from kitemesh_runtime.memory_streams import restore_forever
from kitemesh_runtime.metrics import SLOTS
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.queue_gauges import QueueGauges
from kitemesh_runtime.slow_consumers import SlowConsumers
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.worker import Handler, Worker
from kitemesh_runtime.working import observer, signs_of, taker, work_until_stopped

_HEARTBEAT_S: Final = ORCHESTRATOR_ACK_WAIT_S / 3
_CANCEL_AGAIN_S: Final = 1.0

log: Final = structlog.get_logger()


class Core(NamedTuple):
    """What drives turns."""

    engine: Engine
    giving_up: GivingUp
    endings: Endings
    sweeper: Sweeper


def assemble(
    *,
    bus: Bus,
    stores: Stores,
    parcels: Parcels,
    catalog: CatalogHandle,
    clock: Clock,
    store_state: Dependency,
    cancels: Cancels,
    max_waiting: int,
) -> Core:
    """Put together what drives turns, on whatever bus and stores."""
    notices = Notices(bus, catalog, clock)
    jobs = Jobs(bus, stores, parcels, catalog)
    holding = Holding(bus, stores, notices, clock)
    endings = Endings(bus=bus, stores=stores, parcels=parcels, clock=clock, store_state=store_state, notices=notices)
    drive = Drive(stores, jobs, endings, holding)
    seating = Seating(stores, MakingWay(bus, stores, drive, catalog), max_waiting=max_waiting)
    whereabouts, noting = Whereabouts(bus, stores.conversations), Noting(stores.live_turns)
    beginnings = Beginnings(
        live_turns=stores.live_turns,
        noting=noting,
        whereabouts=whereabouts,
        catalog=catalog,
        seating=seating,
        endings=endings,
        cancels=cancels,
        drive=drive,
        clock=clock,
    )
    engine = Engine(
        parcels=parcels,
        catalog=catalog,
        beginnings=beginnings,
        noting=noting,
        seating=seating,
        endings=endings,
        cancels=cancels,
        drive=drive,
        jobs=jobs,
        holding=holding,
        notices=notices,
    )
    return Core(
        engine,
        GivingUp(bus, parcels, drive, endings, whereabouts),
        endings,
        Sweeper(
            bus=bus,
            stores=stores,
            parcels=parcels,
            whereabouts=whereabouts,
            engine=engine,
            endings=endings,
            clearing=Clearing(stores, bus, catalog),
            clock=clock,
        ),
    )


async def serve(settings: OrchestratorSettings, life: Life) -> None:
    """Drive turns until told to stop."""
    workers: list[Worker] = []
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(
            open_foundation("orchestrator", settings, life, signs=lambda: signs_of(workers)),
        )
        waiting_cancels: asyncio.Queue[CancelTurn] = asyncio.Queue()
        cancels = Cancels(base.clock, waiting_cancels.put_nowait)
        core = assemble(
            bus=base.bus,
            stores=base.stores,
            parcels=base.parcels,
            catalog=base.catalog,
            clock=base.clock,
            store_state=base.store_state,
            cancels=cancels,
            max_waiting=settings.max_waiting,
        )
        engine, endings = core.engine, core.endings
        await cancels.listen(base.bus)

        def worker(stream: str, consumer: str, handler: Handler) -> Worker:
            return Worker(
                base.bus,
                stream,
                [consumer],
                settings.slots,
                handler,
                name=consumer,
                heartbeat_s=_HEARTBEAT_S,
                gate=base.bus_state,
                on_reject=core.giving_up.on_reject(stream),
                on_taken=taker(stream, base.clock),
                observe=observer(stream),
            )

        workers += [
            worker(TURN, "orchestrator-turn", engine.on_start),
            worker(CONTROL, "orchestrator-control", engine.on_control),
            worker(EVENT, "orchestrator-event", engine.on_event),
            worker(TIMER, "timers", engine.on_due),
            *dead_letter_workers(base.bus, core.giving_up.on_dead),
        ]
        SLOTS.set(settings.slots)
        await stack.enter_async_context(
            life.background(
                sweep=sweep_forever(core.sweeper.sweep, base.store_state, every_s=settings.sweep_s),
                keep_house=sweep_forever(
                    Housekeeping(base.stores.usage, base.stores.retention, base.clock).keep,
                    base.store_state,
                    every_s=settings.sweep_s,
                ),
                retry_unstored=endings.retry_unstored(),
                restore_streams=restore_forever(base.bus, settings.out_max_bytes),
                queue_gauges=QueueGauges(base.bus, base.clock).run(),
                slow_consumers=SlowConsumers(base.bus).run(),
                leave_queues=follow_cancels(waiting_cancels, engine, base.store_state),
            ),
        )
        await work_until_stopped(life, workers, drain_s=settings.drain_s)
        await endings.flush()


async def follow_cancels(queue: asyncio.Queue[CancelTurn], engine: Engine, store_state: Dependency) -> None:
    """Take cancelled turns out of their conversations' queues, one after the other."""
    while True:
        cancel = await queue.get()
        while True:
            try:
                await engine.on_cancel(cancel)
                break
            except Unavailable as exc:
                # A broadcast is heard once: forgotten now, the turn would run for nobody when its place comes up.
                log.warning("cancel.delayed", turn=cancel.turn, code=exc.code)
                await asyncio.sleep(_CANCEL_AGAIN_S)
                await store_state.wait_up()
