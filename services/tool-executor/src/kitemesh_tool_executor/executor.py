"""Takes jobs of tool calls from the queue and answers each with one event, acknowledged before the job is.

A result that the bus did not take is kept and sent again, its calls never run again. How often a call may run is
`dispatch`'s business.
"""

import asyncio
import secrets
from typing import Final

import structlog
from msgspec import Raw, Struct
from msgspec.json import Decoder

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.beats import GATEWAY_SILENCE_S
from kitemesh_contracts.commands import CancelTurn, RunCalls
from kitemesh_contracts.deltas import Frame
from kitemesh_contracts.errors import Busy, ContractViolation, ErrorCode, Unavailable
from kitemesh_contracts.events import CallsReturned, StepReleased
from kitemesh_contracts.headers import classic_result_msg_id, job_msg_id, released_msg_id
from kitemesh_contracts.ids import is_id
from kitemesh_runtime.beats import Pulse
from kitemesh_runtime.bus import Bus, Delivery
from kitemesh_runtime.cancels import Cancels
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.failpoints import reach
from kitemesh_runtime.parcels import Parcels, pack_small
from kitemesh_runtime.queueing import queued_s
from kitemesh_runtime.worker import CRASHES_MAX, Done, Outcome, Retry
from kitemesh_tool_executor.dispatch import Dispatcher
from kitemesh_tool_executor.results import refused
from kitemesh_tool_executor.work import Work

TICK_S: Final = 1.0
KEEPALIVE_TICKS: Final = 5
PAUSE_S: Final = GATEWAY_SILENCE_S / 2
QUEUE_FULL_RETRY_S: Final = 1.0
STORE_DOWN_RETRY_S: Final = 0.25
STORE_DOWN_RETRY_MAX_S: Final = 2.0

_MS: Final = 1000.0
_SIGN_OF_LIFE: Final = codec.encode(Frame(n=0, offset=0, items=()))

log: Final = structlog.get_logger()

Key = tuple[str, int]


class _BareCall(Struct, frozen=True, kw_only=True):
    """What a failure takes from its call."""

    id: str


class _Bare(Struct, frozen=True, kw_only=True):
    """What a failure takes from its job."""

    turn: str
    tenant: str
    step: int
    attempt: int
    calls: tuple[_BareCall, ...]
    job: int = 0
    stored: bool = False
    carry: Raw = Raw(b"null")


_BARE: Final = Decoder(_Bare)


class Executor:
    """Handles the jobs of one pool."""

    def __init__(self, *, bus: Bus, parcels: Parcels, dispatcher: Dispatcher, clock: Clock) -> None:
        self._bus: Final = bus
        self._parcels: Final = parcels
        self._dispatcher: Final = dispatcher
        self._clock: Final = clock
        self._cancels: Final = Cancels(clock, self._on_cancel)
        self._gateways: Final = Pulse(clock)
        self._held: dict[Key, Work] = {}
        self._ticks = 0
        self._ticked_s = clock.monotonic()

    async def listen(self) -> None:
        """Follow the broadcasts that stop jobs."""
        await self._cancels.listen(self._bus)
        await self._gateways.listen(self._bus, "gateway")

    async def watch(self) -> None:
        """Look after the jobs in hand for ever: one timer for all of them."""
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()

    def tick(self) -> None:
        """Keep the gateways informed, and stop the jobs of those that fell silent; called every second."""
        now_s = self._clock.monotonic()
        if now_s - self._ticked_s > PAUSE_S:
            # It was this process that stood still: what the gateways said meanwhile is not read yet.
            self._gateways.forget()
        self._ticked_s = now_s
        self._ticks += 1
        for work in self._held.values():
            job = work.job
            if self._ticks % KEEPALIVE_TICKS == 0 and is_id(job.gateway):
                self._say_alive(job)
            if job.mode == "classic" and self._gateways.silent_s(job.gateway) > GATEWAY_SILENCE_S:
                work.stop("the gateway fell silent")

    async def on_job(self, delivery: Delivery) -> Outcome:
        """Run a job's calls and publish their results."""
        key = (delivery.subject, delivery.sequence)
        work = self._held.get(key)
        if work is None:
            await reach("tool.after_fetch")
            try:
                job = await self._parcels.unpack(codec.RUN_CALLS, delivery.data)
            except Unavailable as exc:
                return Retry(STORE_DOWN_RETRY_MAX_S, exc.message)
            # The job may have been delivered again while it was fetched.
            work = self._held.setdefault(key, self._take(job, delivery))
        try:
            # A redelivery that comes while the calls run, because the bus was away, waits for their results.
            async with work.lock:
                outcome = await self._handle(work)
        except ContractViolation:
            self._held.pop(key, None)
            raise
        except Unavailable:
            raise
        except Exception:
            work.crashes += 1
            if work.crashes > CRASHES_MAX:
                self._held.pop(key, None)
            raise
        if isinstance(outcome, Done):
            self._held.pop(key, None)
        return outcome

    async def refuse(self, delivery: Delivery, reason: str) -> None:
        """Answer a job that no attempt can read: each of its calls failed, as far as it says which they are."""
        try:
            job = codec.decode(_BARE, delivery.data)
            subjects.event("call.returned", job.turn)
        except ContractViolation as exc:
            log.error("job.unanswered", subject=delivery.subject, reason=f"{reason}; {exc.message}")  # noqa: TRY400  it is all
            return
        message = "The tool-executor cannot read the job"
        event = CallsReturned(
            turn=job.turn,
            tenant=job.tenant,
            step=job.step,
            attempt=job.attempt,
            job=job.job,
            results=tuple(refused(call.id, ErrorCode.TOOL_FAILED, message) for call in job.calls),
            carry=job.carry,
        )
        await self._publish(event, stored=job.stored, payload=await self._pack(event))

    async def release(self, delivery: Delivery) -> None:
        """Hand a job back, or send its results if they are there; one with an effect under way is left as it is."""
        work = self._held.get((delivery.subject, delivery.sequence))
        if work is not None and work.event is not None:
            await self._publish(work.event, stored=work.job.stored, payload=await self._pack(work.event))
            return
        if work is not None and work.dispatched:
            # The ledger makes the redelivery safe; a new attempt would only come sooner to the same.
            delivery.nak()
            log.warning("job.left", subject=delivery.subject, deliveries=delivery.deliveries)
            return
        job = work.job if work is not None else await self._parcels.unpack(codec.RUN_CALLS, delivery.data)
        event = StepReleased(
            turn=job.turn,
            tenant=job.tenant,
            step=job.step,
            attempt=job.attempt,
            reason="the tool-executor is stopping",
            job=Raw(delivery.data),
        )
        msg_id = released_msg_id(job.turn, job.step, "tool", job.job, job.attempt)
        await self._bus.send(subjects.event("step.released", job.turn), await self._pack(event), msg_id=msg_id)

    # One job

    def _take(self, job: RunCalls, delivery: Delivery) -> Work:
        return Work(
            job,
            by=secrets.token_hex(16),
            repeated=delivery.deliveries > 1 or job.attempt > 1,
            reason=self._cancels.reason(job.turn, durable=job.mode == "durable"),
            queued_s=queued_s(delivery.published_at_s, now_ms=self._clock.now_ms()),
            began_s=self._clock.monotonic(),
        )

    async def _handle(self, work: Work) -> Outcome:
        if work.event is None:
            waits_for = await self._run(work)
            if waits_for is not None:
                return _wait(work, waits_for)
            work.event = self._returned(work)
        try:
            payload = await self._pack(work.event)
        except Unavailable as exc:
            return _wait(work, exc.message)
        try:
            await self._publish(work.event, stored=work.job.stored, payload=payload)
        except Busy as exc:
            return Retry(exc.retry_after_s or QUEUE_FULL_RETRY_S, exc.message)
        await reach("tool.before_ack")
        return Done()

    async def _run(self, work: Work) -> str | None:
        """Run what has no result yet; return what the rest waits for, or `None` when there is no rest."""
        orders = [order for order in work.job.calls if order.id not in work.results]
        runs = (self._dispatcher.run(order, work) for order in orders)
        found = await asyncio.gather(*runs, return_exceptions=True)
        failures: list[BaseException] = []
        for order, result in zip(orders, found, strict=True):
            if isinstance(result, BaseException):
                failures.append(result)
            else:
                work.results[order.id] = result
        waits_for = None
        for failure in failures:
            if not isinstance(failure, Unavailable) or failure.code != ErrorCode.STORE_DOWN:
                raise failure
            waits_for = failure.message
        return waits_for

    def _returned(self, work: Work) -> CallsReturned:
        job = work.job
        spent_s = work.queued_s + self._clock.monotonic() - work.began_s
        return CallsReturned(
            turn=job.turn,
            tenant=job.tenant,
            step=job.step,
            attempt=job.attempt,
            job=job.job,
            results=tuple(work.results[order.id] for order in job.calls),
            total_ms=round(spent_s * _MS, 3),
            cancelled=work.reason,
            carry=job.carry,
        )

    async def _pack(self, event: CallsReturned | StepReleased) -> bytes:
        return pack_small(event) or await self._parcels.pack(event.tenant, event)

    async def _publish(self, event: CallsReturned, *, stored: bool, payload: bytes) -> None:
        place = (event.turn, event.step, "tool", event.job)
        msg_id = job_msg_id(*place, event.attempt) if stored else classic_result_msg_id(*place)
        await self._bus.send(subjects.event("call.returned", event.turn), payload, msg_id=msg_id)

    def _say_alive(self, job: RunCalls) -> None:
        try:
            self._bus.publish(subjects.live(job.gateway, job.turn, job.step, job.attempt), _SIGN_OF_LIFE)
        except Unavailable:
            log.debug("frame.lost", turn=job.turn)

    def _on_cancel(self, cancel: CancelTurn) -> None:
        for work in self._held.values():
            job = work.job
            if job.turn == cancel.turn and not (cancel.disconnect and job.mode == "durable"):
                work.stop(cancel.reason)


def _wait(work: Work, reason: str) -> Retry:
    """Try again a little later each time; only the first wait is told in the log."""
    pause_s = min(STORE_DOWN_RETRY_S * 2.0**work.waits, STORE_DOWN_RETRY_MAX_S)
    work.waits += 1
    return Retry(pause_s, reason if work.waits == 1 else "")
