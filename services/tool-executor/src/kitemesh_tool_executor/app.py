"""The tool-executor's composition root: the only place here that names adapters and tools."""

from contextlib import AsyncExitStack
from typing import Final

from kitemesh_contracts.topology import PRIORITIES, TOOL, lane_consumer
from kitemesh_runtime.foundation import open_foundation
from kitemesh_runtime.lifecycle import Life
from kitemesh_runtime.metrics import SLOTS
from kitemesh_runtime.worker import Worker
from kitemesh_runtime.working import observer, work_until_stopped
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
        pool = base.catalog.current.pools.tool[settings.pool]
        consumers = [
            lane_consumer(settings.pool, priority, lane) for priority in PRIORITIES for lane in range(pool.lanes)
        ]
        workers.append(
            Worker(
                base.bus,
                TOOL,
                consumers,
                settings.slots,
                executor.on_job,
                name=f"tool-{settings.pool}",
                gate=base.bus_state,
                observe=observer(TOOL),
            ),
        )
        SLOTS.set(settings.slots)
        await work_until_stopped(life, workers, drain_s=settings.drain_s)
