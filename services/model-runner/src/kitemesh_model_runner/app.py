"""The model-runner's composition root: the only place here that names adapters and providers."""

import random
from contextlib import AsyncExitStack
from typing import Final, assert_never

import structlog

from kitemesh_contracts.topology import MODEL, lane_consumers
from kitemesh_model_runner.fence import Fence
from kitemesh_model_runner.files import Files
from kitemesh_model_runner.provider import Provider
from kitemesh_model_runner.provider_fixed import FixedAnswer
from kitemesh_model_runner.provider_openai import OpenAIEndpoint, open_session
from kitemesh_model_runner.provider_scripted import ScriptedModel
from kitemesh_model_runner.routing import Routing
from kitemesh_model_runner.runner import POSTED_S, Runner
from kitemesh_model_runner.settings import RunnerSettings
from kitemesh_runtime import catalog
from kitemesh_runtime.beats import Signs
from kitemesh_runtime.catalog import CatalogError, FixedProvider, OpenAIProvider, ScriptedProvider
from kitemesh_runtime.foundation import open_foundation
from kitemesh_runtime.lifecycle import Life
from kitemesh_runtime.metrics import SLOTS
from kitemesh_runtime.worker import Worker
from kitemesh_runtime.working import observer, signs_of, taker, work_until_stopped

log: Final = structlog.get_logger()


async def serve(settings: RunnerSettings, life: Life) -> None:
    """Call models until told to stop."""
    workers: list[Worker] = []

    def signs() -> Signs:
        said = signs_of(workers)
        # The first sign of life comes before there is anything to be well.
        return said._replace(health=routing.health(base.clock.monotonic())) if workers else said

    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(open_foundation("model-runner", settings, life, signs=signs))
        session = await stack.enter_async_context(open_session())

        def build(name: str, config: catalog.Provider) -> Provider:
            match config:
                case OpenAIProvider():
                    return OpenAIEndpoint(name, config, session, clock=base.clock, chance=random.random)
                case ScriptedProvider():
                    return ScriptedModel(config)
                case FixedProvider():
                    return FixedAnswer(config)
                case _:
                    assert_never(config)

        pool = base.catalog.current.pools.model.get(settings.pool)
        if pool is None:
            raise CatalogError([f"pools.model: no pool {settings.pool!r}"])
        routing = Routing(base.catalog, build)
        runner = Runner(
            bus=base.bus,
            parcels=base.parcels,
            routing=routing,
            clock=base.clock,
            fence=Fence(base.stores.live_turns, pool=settings.pool),
            files=Files(base.stores.blobs),
        )
        await runner.listen()
        workers.append(
            Worker(
                base.bus,
                MODEL,
                lane_consumers(settings.pool, pool.lanes),
                settings.slots,
                runner.on_job,
                name=f"model-{settings.pool}",
                pool=settings.pool,
                gate=base.bus_state,
                on_release=runner.release,
                on_reject=runner.refuse,
                on_taken=taker(MODEL, base.clock),
                observe=observer(MODEL),
            ),
        )
        SLOTS.set(settings.slots)
        await stack.enter_async_context(life.background(watch_jobs=runner.watch()))
        await work_until_stopped(life, workers, drain_s=settings.drain_s)
        if not await base.bus.posted(timeout_s=POSTED_S):
            log.warning("frames.lost", reason="they were not acknowledged before the connection closed")
