"""Takes model calls from the queue and answers each with one event, acknowledged before the job is.

A result that the bus did not take is kept and sent again, never generated again. How a provider works and how frames
travel is not known here, nor who decides the number of an attempt.
"""

import asyncio
import math
from collections.abc import Sequence
from functools import partial
from typing import Final

import structlog
from msgspec import Raw

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.beats import GATEWAY_SILENCE_S
from kitemesh_contracts.commands import CancelTurn, Generate
from kitemesh_contracts.errors import (
    Busy,
    ErrorCode,
    ErrorInfo,
    KitemeshError,
    ProviderFailed,
    Unavailable,
)
from kitemesh_contracts.events import StepReleased
from kitemesh_contracts.headers import released_msg_id
from kitemesh_model_runner.accounts import note, show_states
from kitemesh_model_runner.answers import Answer, Unsent, result_id
from kitemesh_model_runner.asking import ask
from kitemesh_model_runner.attempt import Attempt, Result
from kitemesh_model_runner.calling import prepare
from kitemesh_model_runner.candidates import able
from kitemesh_model_runner.continuing import find_beginning
from kitemesh_model_runner.fence import Fence, Lost
from kitemesh_model_runner.files import Files
from kitemesh_model_runner.lease import Lease, Outdated, Standstill
from kitemesh_model_runner.refusal import refusal
from kitemesh_model_runner.routing import Routing, Target, kind_of
from kitemesh_runtime.beats import Pulse
from kitemesh_runtime.bus import Bus, Delivery
from kitemesh_runtime.cancels import Cancels
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.failpoints import reach
from kitemesh_runtime.parcels import Parcels, pack_small
from kitemesh_runtime.queueing import queued_s, waited_too_long
from kitemesh_runtime.worker import Done, Leave, Outcome, Retry

TICK_S: Final = 1.0
PAUSE_S: Final = GATEWAY_SILENCE_S / 2
POSTED_S: Final = 1.0
"""How long a hand-back waits for frames that are not yet captured."""
QUEUE_FULL_RETRY_S: Final = 1.0
STORE_RETRY_S: Final = 1.0

UNKNOWN: Final = ErrorInfo(code=ErrorCode.MODEL_UNKNOWN, message="The requested model is no longer offered")
SILENT: Final = "the gateway fell silent"
TIMED_OUT: Final = ErrorInfo(code=ErrorCode.TURN_TIMEOUT, message="The model did not finish within the turn's time")
BROKEN: Final = ErrorInfo(code=ErrorCode.INTERNAL, message="The model could not be called because of an internal error")

_MS: Final = 1000.0

log: Final = structlog.get_logger()


class Runner:
    """Handles the jobs of one pool."""

    def __init__(
        self, *, bus: Bus, parcels: Parcels, routing: Routing, clock: Clock, fence: Fence, files: Files
    ) -> None:
        self._bus: Final = bus
        self._parcels: Final = parcels
        self._routing: Final = routing
        self._clock: Final = clock
        self._fence: Final = fence
        self._files: Final = files
        self._cancels: Final = Cancels(clock, self._on_cancel)
        self._gateways: Final = Pulse(clock)
        self._running: set[Attempt] = set()
        self._unsent: Final = Unsent()
        self._standstill: Final = Standstill(clock)
        self._ticked_s = clock.monotonic()

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
        now_s = self._standstill.look()
        if now_s - self._ticked_s > PAUSE_S:
            # It was this process that stood still: what the gateways said meanwhile is not read yet.
            self._gateways.forget()
        self._ticked_s = now_s
        show_states(self._routing.states(now_s))
        for attempt in self._running:
            attempt.frames.tick()
            job = attempt.job
            if job.mode == "classic" and self._gateways.silent_s(job.gateway) > GATEWAY_SILENCE_S:
                attempt.stop(SILENT)

    async def on_job(self, delivery: Delivery) -> Outcome:
        """Call the model and publish what came of it."""
        taken_s = self._clock.monotonic()
        answer = self._unsent.find(delivery)
        try:
            if answer is None:
                await reach("run.after_fetch")
                job = await self._parcels.unpack(codec.GENERATE, delivery.data)
                standing = await self._fence.attempt(job, delivery)
                if isinstance(standing, str):
                    return self._left(delivery, standing)
                lease = self._lease(job, standing, delivery, taken_s)
                answer = await self._generate(job, standing, delivery, lease)
            await reach("run.before_result")
            await self._publish(answer.result, answer.msg_id)
            await reach("run.before_ack")
        except Outdated as exc:
            return self._left(delivery, exc.standing)
        except Busy as exc:
            self._unsent.keep(delivery, answer)
            return Retry(exc.retry_after_s or QUEUE_FULL_RETRY_S, exc.message)
        except Unavailable as exc:
            self._unsent.keep(delivery, answer)
            if exc.code != ErrorCode.STORE_DOWN:
                raise
            # Only this job needs the store: the others go on.
            return Retry(STORE_RETRY_S, exc.message)
        except BaseException:
            self._unsent.keep(delivery, answer)
            raise
        self._unsent.drop(delivery)
        self._fence.forget(delivery)
        return Leave() if await self._is_anothers(delivery, answer, taken_s) else Done()

    async def refuse(self, delivery: Delivery, reason: str) -> None:
        """Answer a job that no attempt can read with a failure, as far as it says whose it is."""
        answer = refusal(delivery, reason)
        if answer is not None:
            await self._publish(*answer)

    async def release(self, delivery: Delivery) -> Leave | None:
        """Hand a job back, or send its result if there is one.

        Raises:
            Unavailable: A stored job's attempt must be claimed first, or may be another's after this process stood
                still, and the store does not answer.

        """
        answer = self._unsent.find(delivery)
        if answer is not None:
            await self._publish(answer.result, answer.msg_id)
            return None
        # The next attempt reads the frames of this one.
        await self._bus.posted(timeout_s=POSTED_S)
        job = await self._parcels.unpack(codec.GENERATE, delivery.data)
        standing = await self._fence.attempt(job, delivery)
        if isinstance(standing, int) and job.stored and self._standstill.since(-math.inf):
            standing = await self._fence.lost(job.tenant, job.turn, job.step, standing, delivery) or standing
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

    async def _generate(self, job: Generate, number: int, delivery: Delivery, lease: Lease | None) -> Answer:
        waited_s = queued_s(delivery.published_at_s, now_ms=self._clock.now_ms())
        attempt = Attempt(self._bus, self._clock, job, number=number, queued_ms=round(waited_s * _MS, 3), lease=lease)
        targets = self._routing.targets(job.models)
        left_s = job.budget_s - waited_s
        result = self._dropped(attempt, waited_s) if targets else attempt.failed(UNKNOWN)
        try:
            result = result or await self._attempt(attempt, targets, left_s)
        except KitemeshError:
            if job.stored and attempt.frames.last:
                self._fence.spend(delivery, number)
            raise
        note(attempt, result, kind_of(targets, attempt.model))
        return Answer(
            result,
            result_id(job.turn, job.step, number, stored=job.stored),
            delivery.deliveries + 1 if job.stored else math.inf,
        )

    def _dropped(self, attempt: Attempt, waited_s: float) -> Result | None:
        """End a job for which nobody waits any more before it costs a model call; `None` when somebody does."""
        job = attempt.job
        reason = self._cancels.reason(job.turn, durable=job.mode != "classic")
        if reason is not None:
            return attempt.cancelled(reason)
        if job.mode == "classic" and self._fell_silent(job.gateway):
            return attempt.cancelled(SILENT)
        # A further attempt's predecessor may have begun, and its client may have seen that.
        is_first = attempt.number == job.attempt
        if is_first and job.max_wait_s is not None and waited_s > job.max_wait_s:
            return attempt.failed(waited_too_long(waited_s))
        return attempt.failed(TIMED_OUT) if waited_s >= job.budget_s else None

    def _fell_silent(self, gateway: str) -> bool:
        # After a standstill of this process, what the gateways said meanwhile is not read yet.
        is_awake = self._clock.monotonic() - self._ticked_s <= PAUSE_S
        return is_awake and self._gateways.silent_s(gateway) > GATEWAY_SILENCE_S

    async def _attempt(self, attempt: Attempt, targets: Sequence[Target], left_s: float) -> Result:
        job = attempt.job
        try:
            async with asyncio.timeout(left_s) as scope:
                attempt.begin(targets[0].model, scope)
                self._running.add(attempt)
                await attempt.tell_results()
                told, prefix, going = await find_beginning(
                    self._bus, job, attempt.number, able(job, targets), now_s=self._clock.monotonic()
                )
                if told:
                    await attempt.go_on(told)
                put_together = partial(prepare, self._files, attempt, scope, prefix)
                return attempt.generated(await ask(attempt, going, put_together, self._clock))
        except ProviderFailed as exc:
            return attempt.failed(exc.info())
        except TimeoutError:
            return attempt.failed(TIMED_OUT) if attempt.reason is None else attempt.cancelled(attempt.reason)
        except (KitemeshError, Outdated):
            raise
        except Exception:
            # A broken adapter would break again: the client is told now instead of after the last redelivery.
            log.exception("provider.broke", model=attempt.model, turn=job.turn)
            return attempt.failed(BROKEN)
        finally:
            self._running.discard(attempt)

    async def _publish(self, event: Result | StepReleased, msg_id: str) -> None:
        payload = pack_small(event) or await self._parcels.pack(event.tenant, event)
        kind = type(event).__struct_config__.tag
        assert isinstance(kind, str)  # noqa: S101  every event has its kind as its tag
        await self._bus.send(subjects.event(kind, event.turn), payload, msg_id=msg_id)

    async def _is_anothers(self, delivery: Delivery, answer: Answer, taken_s: float) -> bool:
        """Tell whether a stored job's message is another's by now; asked only if this process stood still with it."""
        if answer.is_anyones or not self._standstill.since(taken_s):
            return False
        result = answer.result
        try:
            lost = await self._fence.lost(result.tenant, result.turn, result.step, result.attempt, delivery)
        except Unavailable as exc:
            # A message that is lost to its worker is found by the sweep.
            log.info("delivery.unchecked", turn=result.turn, reason=exc.message)
            return False
        return lost == "elsewhere"

    def _lease(self, job: Generate, number: int, delivery: Delivery, taken_s: float) -> Lease | None:
        if not job.stored or job.mode == "classic":
            # The first attempt that told anything is shown, whatever another tells.
            return None
        return Lease(self._standstill, self._fence, job, number, delivery, sure_s=taken_s)

    def _left(self, delivery: Delivery, standing: Lost) -> Outcome:
        self._fence.forget(delivery)
        log.info("delivery.outdated", subject=delivery.subject, deliveries=delivery.deliveries, standing=standing)
        return Leave() if standing == "elsewhere" else Done()

    def _on_cancel(self, cancel: CancelTurn) -> None:
        for attempt in self._running:
            job = attempt.job
            if job.turn == cancel.turn and (job.mode == "classic" or not cancel.disconnect):
                attempt.stop(cancel.reason)
