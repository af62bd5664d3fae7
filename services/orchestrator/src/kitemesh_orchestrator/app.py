"""The orchestrator's composition root: the only place here that names adapters."""

import asyncio
from contextlib import AsyncExitStack
from typing import Final

import structlog

from kitemesh_contracts.commands import CancelTurn
from kitemesh_contracts.errors import Unavailable
from kitemesh_contracts.topology import CONTROL, EVENT, ORCHESTRATOR_ACK_WAIT_S, TURN
from kitemesh_orchestrator.endings import Endings
from kitemesh_orchestrator.engine import Engine
from kitemesh_orchestrator.seating import Seating
from kitemesh_orchestrator.settings import OrchestratorSettings
from kitemesh_orchestrator.sweeper import sweep_forever
from kitemesh_runtime.cancels import Cancels
from kitemesh_runtime.dead_nats import dead_letter_workers
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.foundation import open_foundation
from kitemesh_runtime.lifecycle import Life
from kitemesh_runtime.metrics import SLOTS
from kitemesh_runtime.worker import Handler, Worker
from kitemesh_runtime.working import observer, taker, work_until_stopped

_HEARTBEAT_S: Final = ORCHESTRATOR_ACK_WAIT_S / 3
_CANCEL_AGAIN_S: Final = 1.0

log: Final = structlog.get_logger()


async def serve(settings: OrchestratorSettings, life: Life) -> None:
    """Drive turns until told to stop."""
    workers: list[Worker] = []
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(
            open_foundation("orchestrator", settings, life, load=lambda: sum(each.in_flight for each in workers)),
        )
        waiting_cancels: asyncio.Queue[CancelTurn] = asyncio.Queue()
        cancels = Cancels(base.clock, waiting_cancels.put_nowait)
        seating = Seating(base.stores, max_waiting=settings.max_waiting)
        endings = Endings(
            bus=base.bus,
            stores=base.stores,
            parcels=base.parcels,
            clock=base.clock,
            store_state=base.store_state,
        )
        engine = Engine(
            bus=base.bus,
            parcels=base.parcels,
            catalog=base.catalog,
            seating=seating,
            endings=endings,
            cancels=cancels,
        )
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
                on_reject=engine.on_reject(stream),
                on_taken=taker(stream, base.clock),
                observe=observer(stream),
            )

        workers += [
            worker(TURN, "orchestrator-turn", engine.on_start),
            worker(CONTROL, "orchestrator-control", engine.on_start),
            worker(EVENT, "orchestrator-event", engine.on_event),
            *dead_letter_workers(base.bus, engine.on_dead),
        ]
        SLOTS.set(settings.slots)
        await stack.enter_async_context(
            life.background(
                sweep=sweep_forever(base.stores.conversations, endings, base.store_state, every_s=settings.sweep_s),
                retry_unstored=endings.retry_unstored(),
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
