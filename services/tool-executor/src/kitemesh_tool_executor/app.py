"""The tool-executor's composition root: the only place here that names adapters and tools."""

from contextlib import AsyncExitStack
from typing import Final

from kitemesh_contracts.topology import TOOL, lane_consumers
from kitemesh_runtime.catalog import CatalogError
from kitemesh_runtime.foundation import open_foundation
from kitemesh_runtime.lifecycle import Life
from kitemesh_runtime.metrics import SLOTS
from kitemesh_runtime.worker import Worker
from kitemesh_runtime.working import observer, taker, work_until_stopped
from kitemesh_tool_executor.executor import Executor
from kitemesh_tool_executor.settings import ExecutorSettings
from kitemesh_tool_executor.tool import Tool
from kitemesh_tool_executor.tool_python import PythonTool, TextToMeasure, measure_text

TOOLS: Final[dict[str, Tool]] = {"measure_text": PythonTool(TextToMeasure, measure_text)}


async def serve(settings: ExecutorSettings, life: Life) -> None:
    """Run tools until told to stop."""
    workers: list[Worker] = []
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(
            open_foundation("tool-executor", settings, life, load=lambda: sum(each.in_flight for each in workers)),
        )
        executor = Executor(base.bus, base.parcels, TOOLS)
        pool = base.catalog.current.pools.tool.get(settings.pool)
        if pool is None:
            raise CatalogError([f"pools.tool: no pool {settings.pool!r}"])
        workers.append(
            Worker(
                base.bus,
                TOOL,
                lane_consumers(settings.pool, pool.lanes),
                settings.slots,
                executor.on_job,
                name=f"tool-{settings.pool}",
                gate=base.bus_state,
                on_taken=taker(TOOL, base.clock),
                observe=observer(TOOL),
            ),
        )
        SLOTS.set(settings.slots)
        await work_until_stopped(life, workers, drain_s=settings.drain_s)
