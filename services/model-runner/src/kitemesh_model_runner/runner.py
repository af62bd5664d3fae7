"""Takes model calls from the queue and answers each with one event, acknowledged before the job is.

A result that the bus did not take is kept and sent again, never generated again. How a provider works and how frames
travel is not known here, nor who decides the number of an attempt.
"""

import asyncio
import math
from typing import Final, NamedTuple

import structlog
from msgspec import Raw, Struct
from msgspec.json import Decoder

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.beats import GATEWAY_SILENCE_S
from kitemesh_contracts.commands import CancelTurn, Generate
from kitemesh_contracts.errors import (
    Busy,
    ContractViolation,
    ErrorCode,
    ErrorInfo,
    KitemeshError,
    ProviderFailed,
    Unavailable,
)
from kitemesh_contracts.events import StepFailed, StepReleased
from kitemesh_contracts.headers import classic_result_msg_id, job_msg_id, released_msg_id
from kitemesh_model_runner.accounts import note
from kitemesh_model_runner.attempt import Attempt, Result
from kitemesh_model_runner.fence import Fence
from kitemesh_model_runner.provider import ModelCall
from kitemesh_model_runner.routing import Routing, Target
from kitemesh_runtime.beats import Pulse
from kitemesh_runtime.bus import Bus, Delivery
from kitemesh_runtime.cancels import Cancels
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.failpoints import reach
from kitemesh_runtime.parcels import Parcels, pack_small
from kitemesh_runtime.queueing import queued_s
from kitemesh_runtime.worker import Done, Leave, Outcome, Retry

TICK_S: Final = 1.0
PAUSE_S: Final = GATEWAY_SILENCE_S / 2
UNSENT_MAX: Final = 1024
QUEUE_FULL_RETRY_S: Final = 1.0
STORE_RETRY_S: Final = 1.0

UNKNOWN: Final = ErrorInfo(code=ErrorCode.MODEL_UNKNOWN, message="The requested model is no longer offered")
TIMED_OUT: Final = ErrorInfo(code=ErrorCode.TURN_TIMEOUT, message="The model did not finish within the turn's time")
BROKEN: Final = ErrorInfo(code=ErrorCode.INTERNAL, message="The model could not be called because of an internal error")
UNREADABLE: Final = ErrorInfo(code=ErrorCode.CONTRACT_VIOLATED, message="The model-runner cannot read the job")

_MS: Final = 1000.0
_NO_CARRY: Final = Raw(b"null")

log: Final = structlog.get_logger()


class _Bare(Struct, frozen=True, kw_only=True):
    """What a failure takes from its job."""

    turn: str
    tenant: str
    step: int
    attempt: int
    stored: bool = False
    carry: Raw = _NO_CARRY


_BARE: Final = Decoder(_Bare)


class _Answer(NamedTuple):
    """A result, and how it is sent.

    Attributes:
        deliveries_max: The newest delivery that may send it: behind it another worker may have claimed the job.

    """

    result: Result
    msg_id: str
    deliveries_max: float


class Runner:
    """Handles the jobs of one pool."""

    def __init__(self, *, bus: Bus, parcels: Parcels, routing: Routing, clock: Clock, fence: Fence) -> None:
        self._bus: Final = bus
        self._parcels: Final = parcels
        self._routing: Final = routing
        self._clock: Final = clock
        self._fence: Final = fence
        self._cancels: Final = Cancels(clock, self._on_cancel)
        self._gateways: Final = Pulse(clock)
        self._running: set[Attempt] = set()
        self._unsent: dict[tuple[str, int], _Answer] = {}
        self._ticked_s = clock.monotonic()
        self._thawed_s = -math.inf

    async def listen(self) -> None:
        """Follow the broadcasts that stop jobs."""
        await self._cancels.listen(self._bus)
        await self._gateways.listen(self._bus, "gateway")

    async def watch(self) -> None:
        """Look after the running jobs for ever: one timer for all of them."""
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()

    def tick(self) -> None:
        """Keep the gateways informed, and stop the jobs of those that fell silent; called every second."""
        now_s = self._clock.monotonic()
        if now_s - self._ticked_s > PAUSE_S:
            # It was this process that stood still: what the gateways said meanwhile is not read yet.
            self._gateways.forget()
            self._thawed_s = now_s
        self._ticked_s = now_s
        for attempt in self._running:
            attempt.frames.tick()
            job = attempt.job
            if job.mode == "classic" and self._gateways.silent_s(job.gateway) > GATEWAY_SILENCE_S:
                attempt.stop("the gateway fell silent")

    async def on_job(self, delivery: Delivery) -> Outcome:
        """Call the model and publish what came of it."""
        taken_s = self._clock.monotonic()
        answer = self._kept(delivery)
        try:
            if answer is None:
                await reach("run.after_fetch")
                job = await self._parcels.unpack(codec.GENERATE, delivery.data)
                standing = await self._fence.attempt(job, delivery)
                if isinstance(standing, str):
                    log.info("delivery.outdated", turn=job.turn, step=job.step, deliveries=delivery.deliveries)
                    return Leave() if standing == "elsewhere" else Done()
                answer = await self._generate(job, standing, delivery)
            await reach("run.before_result")
            await self._publish(answer.result, answer.msg_id)
            await reach("run.before_ack")
        except Busy as exc:
            self._keep(delivery, answer)
            return Retry(exc.retry_after_s or QUEUE_FULL_RETRY_S, exc.message)
        except Unavailable as exc:
            self._keep(delivery, answer)
            if exc.code != ErrorCode.STORE_DOWN:
                raise
            # Only this job needs the store: the others go on.
            return Retry(STORE_RETRY_S, exc.message)
        except BaseException:
            self._keep(delivery, answer)
            raise
        self._unsent.pop((delivery.subject, delivery.sequence), None)
        self._fence.forget(delivery)
        return Leave() if await self._is_anothers(delivery, answer, taken_s) else Done()

    async def refuse(self, delivery: Delivery, reason: str) -> None:
        """Answer a job that no attempt can read with a failure, as far as it says whose it is."""
        try:
            job = codec.decode(_BARE, delivery.data)
        except ContractViolation as exc:
            log.error("job.unanswered", subject=delivery.subject, reason=f"{reason}; {exc.message}")  # noqa: TRY400  it is all
            return
        if job.carry is _NO_CARRY and not job.stored:
            log.error("job.unanswered", subject=delivery.subject, reason=f"{reason}; it carries no state")
            return
        failed = StepFailed(
            turn=job.turn,
            tenant=job.tenant,
            step=job.step,
            attempt=job.attempt,
            error=UNREADABLE,
            carry=job.carry,
        )
        await self._publish(failed, _result_id(job, job.attempt))

    async def release(self, delivery: Delivery) -> Leave | None:
        """Hand a job back, or send its result if there is one.

        Raises:
            Unavailable: A stored job's attempt must be claimed first, and the store does not answer.

        """
        answer = self._kept(delivery)
        if answer is not None:
            await self._publish(answer.result, answer.msg_id)
            return None
        job = await self._parcels.unpack(codec.GENERATE, delivery.data)
        standing = await self._fence.attempt(job, delivery)
        if isinstance(standing, str):
            return Leave() if standing == "elsewhere" else None
        event = StepReleased(
            turn=job.turn,
            tenant=job.tenant,
            step=job.step,
            attempt=standing,
            reason="the model-runner is stopping",
            job=Raw(delivery.data),
        )
        await self._publish(event, released_msg_id(job.turn, job.step, "model", 0, standing))
        return None

    async def _generate(self, job: Generate, number: int, delivery: Delivery) -> _Answer:
        waited_s = queued_s(delivery.published_at_s, now_ms=self._clock.now_ms())
        attempt = Attempt(self._bus, self._clock, job, number=number, queued_ms=round(waited_s * _MS, 3))
        targets = self._routing.targets(job.models)
        kind = targets[0].provider.kind if targets else "none"
        left_s = job.budget_s - waited_s
        result = await self._attempt(attempt, targets[0], left_s) if targets else attempt.failed(UNKNOWN)
        note(attempt, result, kind)
        return _Answer(result, _result_id(job, number), delivery.deliveries + 1 if job.stored else math.inf)

    async def _attempt(self, attempt: Attempt, target: Target, left_s: float) -> Result:
        job = attempt.job
        call = ModelCall(
            job.turn,
            job.step,
            target.upstream,
            job.messages,
            job.sampling,
            left_s,
            job.tools,
            job.tool_choice,
            job.parallel_calls,
        )
        try:
            reason = self._cancels.reason(job.turn, durable=job.mode != "classic")
            if reason is not None:
                return attempt.cancelled(reason)
            if left_s <= 0:
                return attempt.failed(TIMED_OUT)
            async with asyncio.timeout(left_s) as scope:
                attempt.begin(target.model, scope)
                self._running.add(attempt)
                await reach("run.before_upstream")
                return attempt.generated(await target.provider.generate(call, attempt.take))
        except ProviderFailed as exc:
            return attempt.failed(exc.info())
        except TimeoutError:
            return attempt.failed(TIMED_OUT) if attempt.reason is None else attempt.cancelled(attempt.reason)
        except KitemeshError:
            raise
        except Exception:
            # A broken adapter would break again: the client is told now instead of after the last redelivery.
            log.exception("provider.broke", provider=target.provider.kind, turn=job.turn)
            return attempt.failed(BROKEN)
        finally:
            self._running.discard(attempt)

    async def _publish(self, event: Result | StepReleased, msg_id: str) -> None:
        payload = pack_small(event) or await self._parcels.pack(event.tenant, event)
        kind = type(event).__struct_config__.tag
        assert isinstance(kind, str)  # noqa: S101  every event has its kind as its tag
        await self._bus.send(subjects.event(kind, event.turn), payload, msg_id=msg_id)

    async def _is_anothers(self, delivery: Delivery, answer: _Answer, taken_s: float) -> bool:
        """Tell whether a stored job's message is another's by now; asked only if this process stood still with it."""
        now_s = self._clock.monotonic()
        if answer.deliveries_max == math.inf or (now_s - self._ticked_s <= PAUSE_S and taken_s > self._thawed_s):
            return False
        result = answer.result
        try:
            return await self._fence.is_behind(result.tenant, result.turn, result.step, result.attempt, delivery)
        except Unavailable as exc:
            # A message that is lost to its worker is found by the sweep.
            log.info("delivery.unchecked", turn=result.turn, reason=exc.message)
            return False

    def _kept(self, delivery: Delivery) -> _Answer | None:
        answer = self._unsent.get((delivery.subject, delivery.sequence))
        return answer if answer is not None and delivery.deliveries <= answer.deliveries_max else None

    def _keep(self, delivery: Delivery, answer: _Answer | None) -> None:
        if answer is None:
            return
        # One that nobody asks for again, because its job was redelivered elsewhere, is pushed out by others.
        while len(self._unsent) >= UNSENT_MAX:
            del self._unsent[next(iter(self._unsent))]
        self._unsent[delivery.subject, delivery.sequence] = answer

    def _on_cancel(self, cancel: CancelTurn) -> None:
        for attempt in self._running:
            job = attempt.job
            if job.turn == cancel.turn and (job.mode == "classic" or not cancel.disconnect):
                attempt.stop(cancel.reason)


def _result_id(job: Generate | _Bare, attempt: int) -> str:
    """Name a job's result: of a stored job each attempt has one of its own, of a classic one the first wins."""
    if job.stored:
        return job_msg_id(job.turn, job.step, "model", 0, attempt)
    return classic_result_msg_id(job.turn, job.step, "model", 0)
