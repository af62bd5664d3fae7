"""Runs the calls of one job concurrently and answers with one event, acknowledged before the job is.

Every call gets a result: an unknown tool, unfit arguments and a time-out are results that the model sees.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import RunCalls
from kitemesh_contracts.content import ToolCall
from kitemesh_contracts.errors import ErrorCode, ErrorInfo, ToolFailed
from kitemesh_contracts.events import CallResult, CallsReturned
from kitemesh_contracts.headers import classic_result_msg_id
from kitemesh_runtime.bus import Bus, Delivery
from kitemesh_runtime.failpoints import reach
from kitemesh_runtime.parcels import Parcels, pack_small
from kitemesh_runtime.worker import Done, Outcome
from kitemesh_tool_executor.tool import Tool

log: Final = structlog.get_logger()


class Executor:
    """Handles the jobs of one pool."""

    def __init__(self, bus: Bus, parcels: Parcels, tools: Mapping[str, Tool]) -> None:
        self._bus: Final = bus
        self._parcels: Final = parcels
        self._tools: Final = tools

    async def on_job(self, delivery: Delivery) -> Outcome:
        """Run a job's calls and publish their results."""
        await reach("tool.after_fetch")
        job = await self._parcels.unpack(codec.RUN_CALLS, delivery.data)
        results = await asyncio.gather(*(self._run(call, job) for call in job.calls))
        event = CallsReturned(
            turn=job.turn,
            tenant=job.tenant,
            step=job.step,
            attempt=job.attempt,
            results=tuple(results),
            carry=job.carry,
        )
        payload = pack_small(event) or await self._parcels.pack(job.tenant, event)
        subject = subjects.event("call.returned", job.turn)
        await self._bus.send(subject, payload, msg_id=classic_result_msg_id(job.turn, job.step, "tool", 0))
        await reach("tool.before_ack")
        return Done()

    async def _run(self, call: ToolCall, job: RunCalls) -> CallResult:
        tool = self._tools.get(call.name)
        if tool is None:
            return _refused(call, ErrorCode.TOOL_UNKNOWN, "There is no such tool")
        try:
            async with asyncio.timeout(job.budget_s):
                return CallResult(call=call.id, text=await tool.run(call.arguments))
        except ToolFailed as exc:
            return CallResult(call=call.id, error=exc.info())
        except TimeoutError:
            return _refused(call, ErrorCode.TOOL_FAILED, "The tool took too long")
        except Exception:
            # A broken tool is a result; its words stay in the log.
            log.exception("call.broke", turn=job.turn, call=call.id)
            return _refused(call, ErrorCode.TOOL_FAILED, "The tool broke")


def _refused(call: ToolCall, code: ErrorCode, message: str) -> CallResult:
    return CallResult(call=call.id, error=ErrorInfo(code=code, message=message))
