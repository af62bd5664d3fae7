"""The tool-executor's composition root: the only place here that names adapters and kinds of tools."""

import random
from contextlib import AsyncExitStack

from kitemesh_contracts.topology import TOOL, lane_consumers
from kitemesh_runtime.catalog import CatalogError
from kitemesh_runtime.foundation import open_foundation
from kitemesh_runtime.lifecycle import Life
from kitemesh_runtime.metrics import SLOTS
from kitemesh_runtime.worker import Worker
from kitemesh_runtime.working import observer, signs_of, taker, work_until_stopped
from kitemesh_tool_executor.dispatch import Dispatcher
from kitemesh_tool_executor.executor import Executor
from kitemesh_tool_executor.registry import Registry
from kitemesh_tool_executor.results import Results
from kitemesh_tool_executor.settings import ExecutorSettings
from kitemesh_tool_executor.tool import Kind
from kitemesh_tool_executor.tool_http import HttpKind
from kitemesh_tool_executor.tool_mcp import McpKind
from kitemesh_tool_executor.tool_python import PythonKind
from kitemesh_tool_executor.tool_webhook import WebhookKind, webhook_definition


async def serve(settings: ExecutorSettings, life: Life) -> None:
    """Run tools until told to stop."""
    workers: list[Worker] = []
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(
            open_foundation("tool-executor", settings, life, signs=lambda: signs_of(workers)),
        )
        pool = base.catalog.current.pools.tool.get(settings.pool)
        if pool is None:
            raise CatalogError([f"pools.tool: no pool {settings.pool!r}"])
        kinds: dict[str, Kind] = {
            "http": await stack.enter_async_context(HttpKind()),
            "mcp": await stack.enter_async_context(McpKind()),
            "python": await stack.enter_async_context(PythonKind()),
            "webhook": await stack.enter_async_context(WebhookKind(base.clock)),
        }
        registry = Registry(base.catalog, kinds, webhook_definition)
        results = Results(base.stores.blobs)
        dispatcher = Dispatcher(
            registry=registry,
            ledger=base.stores.ledger,
            live_turns=base.stores.live_turns,
            results=results,
            clock=base.clock,
            chance=random.random,
        )
        executor = Executor(bus=base.bus, parcels=base.parcels, dispatcher=dispatcher, clock=base.clock)
        await executor.listen()
        workers.append(
            Worker(
                base.bus,
                TOOL,
                lane_consumers(settings.pool, pool.lanes),
                settings.slots,
                executor.on_job,
                name=f"tool-{settings.pool}",
                pool=settings.pool,
                gate=base.bus_state,
                on_release=executor.release,
                on_reject=executor.refuse,
                on_taken=taker(TOOL, base.clock),
                observe=observer(TOOL),
            ),
        )
        SLOTS.set(settings.slots)
        await stack.enter_async_context(life.background(watch_jobs=executor.watch()))
        await work_until_stopped(life, workers, drain_s=settings.drain_s)
