"""One call from order to result: judged, dispatched by its effect class, and run as often as that class allows.

The ledger's row is the dispatch of a call with an effect. Nothing is sent before the row is this delivery's, and a
result counts once the row has it. How a job travels and how a tool works is not known here.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from kitemesh_contracts import canonical
from kitemesh_contracts.commands import CallOrder
from kitemesh_contracts.content import CallResult
from kitemesh_contracts.errors import Conflict, ErrorCode, ErrorInfo, Unavailable
from kitemesh_contracts.topology import WORKER_ACK_WAIT_S
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.failpoints import reach
from kitemesh_runtime.ledger import Ledger, LedgerRow
from kitemesh_runtime.live_turns import LiveTurn, LiveTurns
from kitemesh_runtime.metrics import TOOL_CALLS, TOOL_DURATION, TOOL_OUTCOME_UNKNOWN
from kitemesh_tool_executor.registry import Entry, Registry
from kitemesh_tool_executor.results import BACKOFF_MAX_S, BACKOFF_S, Results
from kitemesh_tool_executor.retries import pause_s
from kitemesh_tool_executor.tool import Call, CallFailed
from kitemesh_tool_executor.work import Answer, Then, Work

GRACE_S: Final = 0.5
"""A tool gives up by itself before it is given up, since it alone knows what was sent."""
STANDSTILL_S: Final = WORKER_ACK_WAIT_S / 2
"""Having taken longer to dispatch, a call is dispatched again before anything is sent: its job may be redelivered."""

UNKNOWN: Final = ErrorInfo(code=ErrorCode.TOOL_UNKNOWN, message="There is no such tool")
CHANGED: Final = ErrorInfo(
    code=ErrorCode.TOOL_CHANGED, message="The call was not run: the tool or its arguments have changed meanwhile"
)
CANCELLED: Final = ErrorInfo(code=ErrorCode.TOOL_CANCELLED, message="The call was cancelled before it ran")
TOO_LATE: Final = ErrorInfo(code=ErrorCode.TOOL_TIMEOUT, message="The call was not run: the turn's time is up")
TIMED_OUT: Final = ErrorInfo(code=ErrorCode.TOOL_TIMEOUT, message="The tool did not answer in time")
UNCERTAIN: Final = ErrorInfo(
    code=ErrorCode.TOOL_UNCERTAIN, message="It is not known whether the call took effect; it is not repeated"
)

_MS: Final = 1000.0

log: Final = structlog.get_logger()


class Dispatcher:
    """Runs calls.

    Args:
        chance: Uniform in [0, 1).

    """

    def __init__(
        self,
        *,
        registry: Registry,
        ledger: Ledger,
        live_turns: LiveTurns,
        results: Results,
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        self._registry: Final = registry
        self._ledger: Final = ledger
        self._live_turns: Final = live_turns
        self._results: Final = results
        self._clock: Final = clock
        self._chance: Final = chance

    async def run(self, order: CallOrder, work: Work) -> CallResult:
        """Return the call's result.

        Raises:
            Unavailable: The store is down and nothing was sent: to be called again with the same work.

        """
        began_s = self._clock.monotonic()
        entry = work.begun.get(order.id) or self._registry.find(order.name)
        result = await self._run(order, work, entry)
        spent_s = self._clock.monotonic() - began_s
        kind = entry.kind if entry else "none"
        outcome = result.error.code.value if result.error else "returned"
        TOOL_CALLS.labels(kind, outcome).inc()
        TOOL_DURATION.labels(kind).observe(spent_s)
        log.info(
            "call.ended",
            turn=work.job.turn,
            call=order.id,
            tool=order.name if entry else "",
            effect=entry.effect if entry else "",
            outcome=outcome,
            ms=round(spent_s * _MS, 3),
        )
        return result

    async def _run(self, order: CallOrder, work: Work, entry: Entry | None) -> CallResult:
        refusal = None if order.id in work.begun else self._refusal(order, work, entry)
        if entry is None or refusal is not None:
            return await self._refuse(order, work, refusal or UNKNOWN)
        if entry.effect == "safe":
            return await self._run_safe(order, work, entry)
        asked_s = self._clock.monotonic()
        found = await self._dispatch(order, work, entry)
        await reach("tool.after_dispatched")
        if self._clock.monotonic() - asked_s > STANDSTILL_S:
            # This process stood still, and others may have taken it for dead.
            found = await self._dispatch(order, work, entry)
        if isinstance(found, CallResult):
            return found
        work.dispatched = True
        answer = work.answers.get(order.id)
        if answer is None:
            answer = work.answers[order.id] = await self._run_dispatched(order, work, entry)
        await reach("tool.after_response")
        return await self._store(work, found, answer)

    # Before anything is sent

    def _refusal(self, order: CallOrder, work: Work, entry: Entry | None) -> ErrorInfo | None:
        """Say why the call may not run, or `None`."""
        if work.reason is not None:
            return CANCELLED
        if entry is None:
            return UNKNOWN
        if entry.version is not None and entry.version != order.version:
            return CHANGED
        if canonical.sha256(order.arguments) != order.sha256:
            return CHANGED
        try:
            arguments = msgspec.json.decode(order.arguments)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            return ErrorInfo(code=ErrorCode.TOOL_ARGUMENTS, message="The arguments are not a JSON object")
        problems = entry.schema.problems(arguments)
        if problems:
            message = "The arguments do not fit: " + "; ".join(problems)
            return ErrorInfo(code=ErrorCode.TOOL_ARGUMENTS, message=message)
        return TOO_LATE if self._left_s(work, entry) <= 0 else None

    async def _refuse(self, order: CallOrder, work: Work, refusal: ErrorInfo) -> CallResult:
        result = CallResult(call=order.id, error=refusal)
        if work.repeated:
            # What an earlier delivery sent is sent, whatever has changed since.
            return await self._settle(order, work) or result
        if order.id in work.asked:
            # The row may be there all the same; nobody needs it.
            with suppress(Unavailable):
                return await self._settle(order, work, result) or result
        return result

    async def _settle(self, order: CallOrder, work: Work, own: CallResult | None = None) -> CallResult | None:
        """Return what the ledger says of a call that is not to run; end this delivery's own row with a result."""
        tenant = work.job.tenant
        row = await self._ledger.get(tenant, order.id)
        if row is not None and row.state == "dispatched":
            if row.by != work.by:
                row = await self._give_up(work, row)
            elif own is not None:
                row = await self._ledger.finish(tenant, row.id, work.by, own)
        return None if row is None else _settled(row)

    async def _dispatch(self, order: CallOrder, work: Work, entry: Entry) -> LedgerRow | CallResult:
        """Make the call's row this delivery's and return it, or the result that the row has already."""
        tenant = work.job.tenant
        wanted = LedgerRow(
            id=order.id,
            tenant=tenant,
            turn=work.job.turn,
            tool=order.name,
            effect=entry.effect,
            state="dispatched",
            by=work.by,
            args_sha256=order.sha256,
        )
        work.asked.add(order.id)
        try:
            row = await self._ledger.dispatch(tenant, wanted)
        except Conflict:
            return CallResult(call=order.id, error=CHANGED)
        while True:
            settled = _settled(row)
            if settled is not None:
                return settled
            if row.by == work.by:
                return row
            # A crash, or a twin that was frozen: which of the two cannot be told.
            if entry.effect == "keyed":
                row = await self._ledger.take_over(tenant, row, work.by)
                if row.by == work.by and not entry.persistent and await self._is_over(work):
                    # Nothing of a cancelled turn starts again; what the first try came to is not known.
                    row = await self._give_up(work, row)
            else:
                row = await self._give_up(work, row)

    async def _is_over(self, work: Work) -> bool:
        """Tell whether a stored turn has ended, or is being cancelled."""
        if not work.job.stored:
            return False
        found = await self._live_turns.get(work.job.tenant, work.job.turn)
        return not isinstance(found, LiveTurn) or found.status == "cancelling"

    # Running

    async def _run_safe(self, order: CallOrder, work: Work, entry: Entry) -> CallResult:
        limit_s = min(entry.timeout_s, self._left_s(work, entry))
        try:
            async with asyncio.timeout(limit_s + GRACE_S) as scope:
                with work.stoppable(scope):
                    text = await self._try(order, work, entry, limit_s)
        except CallFailed as exc:
            return CallResult(call=order.id, error=exc.info())
        except TimeoutError:
            return CallResult(call=order.id, error=TIMED_OUT if work.reason is None else CANCELLED)
        return await self._results.make(
            work.job.tenant, order.id, text, max_bytes=entry.max_result_bytes, patient=False
        )

    async def _run_dispatched(self, order: CallOrder, work: Work, entry: Entry) -> Answer:
        """Run a call whose row is this delivery's."""
        once = entry.effect == "once"
        if order.id in work.begun:
            if once:
                return _answer(order, UNCERTAIN, "give_up")
        elif work.reason is not None:
            return _answer(order, CANCELLED)
        limit_s = min(entry.timeout_s, self._left_s(work, entry))
        if limit_s <= 0:
            return _answer(order, TIMED_OUT if order.id in work.begun else TOO_LATE)
        work.begun[order.id] = entry
        try:
            async with asyncio.timeout(limit_s + GRACE_S):
                text = await self._try(order, work, entry, limit_s)
        except CallFailed as exc:
            if once and exc.sent and not exc.answered:
                return _answer(order, UNCERTAIN, "give_up")
            return _answer(order, exc.info(), "leave" if entry.persistent and exc.again else "finish")
        except TimeoutError:
            if once:
                return _answer(order, UNCERTAIN, "give_up")
            return _answer(order, TIMED_OUT, "leave" if entry.persistent else "finish")
        most = entry.max_result_bytes
        return Answer(await self._results.make(work.job.tenant, order.id, text, max_bytes=most, patient=True), "finish")

    async def _try(self, order: CallOrder, work: Work, entry: Entry, limit_s: float) -> str:
        """Run the tool, again where its class allows.

        Raises:
            CallFailed: The last try's.

        """
        job = work.job
        end_s = self._clock.monotonic() + limit_s
        number = 0
        while True:
            number += 1
            left_s = max(0.0, end_s - self._clock.monotonic())
            call = Call(order.id, job.turn, job.tenant, order.arguments, entry.effect, left_s)
            try:
                return await entry.tool.run(call)
            except CallFailed as exc:
                failed = exc
            except Exception as exc:
                # A broken tool is a result; its words stay in the log.
                log.exception("call.broke", turn=job.turn, call=order.id, tool=order.name)
                raise CallFailed(ErrorCode.TOOL_FAILED, "The tool broke", sent=True) from exc
            left_s = end_s - self._clock.monotonic()
            pause = pause_s(number, failed, left_s=left_s, chance=self._chance())
            if pause is None or work.reason is not None or (entry.effect == "once" and failed.sent):
                raise failed
            await asyncio.sleep(pause)

    # After it ran

    async def _store(self, work: Work, row: LedgerRow, answer: Answer) -> CallResult:
        """Put the result into the ledger, however long that takes, and return what counts."""
        pause = BACKOFF_S
        while answer.then != "leave":
            try:
                if answer.then == "give_up":
                    stored = await self._give_up(work, row)
                else:
                    stored = await self._ledger.finish(work.job.tenant, row.id, work.by, answer.result)
            except Unavailable as exc:
                log.warning("result.unstored", call=row.id, reason=exc.message, after_s=pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, BACKOFF_MAX_S)
            else:
                # Another delivery may have been faster with the same call.
                return (stored.result if stored.state == "finished" else None) or answer.result
        return answer.result

    async def _give_up(self, work: Work, row: LedgerRow) -> LedgerRow:
        stored = await self._ledger.give_up(work.job.tenant, row)
        if stored.state == "unknown":
            TOOL_OUTCOME_UNKNOWN.inc()
            log.error("call.outcome_unknown", turn=row.turn, call=row.id, tool=row.tool)
        return stored

    def _left_s(self, work: Work, entry: Entry) -> float:
        """Count from when the job was published; for one that is ordered again until it succeeds, from when it came."""
        queued_s = 0.0 if entry.persistent else work.queued_s
        return work.job.budget_s - queued_s - (self._clock.monotonic() - work.began_s)


def _answer(order: CallOrder, error: ErrorInfo, then: Then = "finish") -> Answer:
    return Answer(CallResult(call=order.id, error=error), then)


def _settled(row: LedgerRow) -> CallResult | None:
    """Return the result that a row stands for, or `None` while it is dispatched."""
    match row.state:
        case "dispatched":
            return None
        case "cancelled":
            return CallResult(call=row.id, error=CANCELLED)
        case "finished" | "unknown":
            # One that came too late is true all the same.
            return row.result or CallResult(call=row.id, error=UNCERTAIN)
