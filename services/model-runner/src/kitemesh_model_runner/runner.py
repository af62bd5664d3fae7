"""Takes model calls from the queue and answers each with one event, acknowledged before the job is.

A result that the bus did not take is kept and sent again, never generated again. How a provider works and how frames
travel is not known here.
"""

import asyncio
from typing import Final

import structlog
from msgspec import Raw, Struct
from msgspec.json import Decoder

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.beats import GATEWAY_SILENCE_S
from kitemesh_contracts.commands import CancelTurn, Generate
from kitemesh_contracts.errors import Busy, ContractViolation, ErrorCode, ErrorInfo, KitemeshError, ProviderFailed
from kitemesh_contracts.events import StepCancelled, StepFailed, StepGenerated, StepReleased
from kitemesh_contracts.headers import classic_result_msg_id, released_msg_id
from kitemesh_model_runner.attempt import Attempt, Result
from kitemesh_model_runner.provider import ModelCall
from kitemesh_model_runner.routing import Routing, Target
from kitemesh_runtime.beats import Pulse
from kitemesh_runtime.bus import Bus, Delivery
from kitemesh_runtime.cancels import Cancels
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.failpoints import reach
from kitemesh_runtime.metrics import (
    MODEL_CALLS,
    MODEL_DURATION,
    MODEL_FIRST_TOKEN,
    MODEL_TOKENS,
)
from kitemesh_runtime.parcels import Parcels, pack_small
from kitemesh_runtime.worker import Done, Outcome, Retry

TICK_S: Final = 1.0
PAUSE_S: Final = GATEWAY_SILENCE_S / 2
UNSENT_MAX: Final = 1024
QUEUE_FULL_RETRY_S: Final = 1.0

UNKNOWN: Final = ErrorInfo(code=ErrorCode.MODEL_UNKNOWN, message="The requested model is no longer offered")
TIMED_OUT: Final = ErrorInfo(code=ErrorCode.TURN_TIMEOUT, message="The model did not finish within the turn's time")
BROKEN: Final = ErrorInfo(code=ErrorCode.INTERNAL, message="The model could not be called because of an internal error")
UNREADABLE: Final = ErrorInfo(code=ErrorCode.CONTRACT_VIOLATED, message="The model-runner cannot read the job")

_MS: Final = 1000.0
_TOKENS_IN: Final = MODEL_TOKENS.labels("in")
_TOKENS_OUT: Final = MODEL_TOKENS.labels("out")

log: Final = structlog.get_logger()


class _Bare(Struct, frozen=True, kw_only=True):
    """What a failure takes from its job."""

    turn: str
    tenant: str
    step: int
    attempt: int
    carry: Raw


_BARE: Final = Decoder(_Bare)


class Runner:
    """Handles the jobs of one pool."""

    def __init__(self, *, bus: Bus, parcels: Parcels, routing: Routing, clock: Clock) -> None:
        self._bus: Final = bus
        self._parcels: Final = parcels
        self._routing: Final = routing
        self._clock: Final = clock
        self._cancels: Final = Cancels(clock, self._on_cancel)
        self._gateways: Final = Pulse(clock)
        self._running: set[Attempt] = set()
        self._unsent: dict[tuple[str, int], Result] = {}
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
        now_s = self._clock.monotonic()
        if now_s - self._ticked_s > PAUSE_S:
            # It was this process that stood still: what the gateways said meanwhile is not read yet.
            self._gateways.forget()
        self._ticked_s = now_s
        for attempt in self._running:
            attempt.frames.tick()
            job = attempt.job
            if job.mode == "classic" and self._gateways.silent_s(job.gateway) > GATEWAY_SILENCE_S:
                attempt.stop("the gateway fell silent")

    async def on_job(self, delivery: Delivery) -> Outcome:
        """Call the model and publish what came of it."""
        key = (delivery.subject, delivery.sequence)
        result = self._unsent.get(key)
        try:
            if result is None:
                await reach("run.after_fetch")
                result = await self._generate(delivery)
            await reach("run.before_result")
            await self._send(result)
            await reach("run.before_ack")
        except Busy as exc:
            self._keep(key, result)
            return Retry(exc.retry_after_s or QUEUE_FULL_RETRY_S, exc.message)
        except BaseException:
            self._keep(key, result)
            raise
        self._unsent.pop(key, None)
        return Done()

    async def refuse(self, delivery: Delivery, reason: str) -> None:
        """Answer a job that no attempt can read with a failure, as far as it says whose it is."""
        try:
            job = codec.decode(_BARE, delivery.data)
        except ContractViolation as exc:
            log.error("job.unanswered", subject=delivery.subject, reason=f"{reason}; {exc.message}")  # noqa: TRY400  it is all
            return
        await self._send(
            StepFailed(
                turn=job.turn,
                tenant=job.tenant,
                step=job.step,
                attempt=job.attempt,
                error=UNREADABLE,
                carry=job.carry,
            )
        )

    async def release(self, delivery: Delivery) -> None:
        """Hand a job back, or send its result if there is one."""
        result = self._unsent.get((delivery.subject, delivery.sequence))
        if result is not None:
            await self._send(result)
            return
        job = await self._parcels.unpack(codec.GENERATE, delivery.data)
        attempt = _number(job, delivery)
        event = StepReleased(
            turn=job.turn,
            tenant=job.tenant,
            step=job.step,
            attempt=attempt,
            reason="the model-runner is stopping",
            job=Raw(delivery.data),
        )
        await self._publish(event, released_msg_id(job.turn, job.step, "model", 0, attempt))

    async def _generate(self, delivery: Delivery) -> Result:
        job = await self._parcels.unpack(codec.GENERATE, delivery.data)
        waited_ms = max(0.0, self._clock.now_ms() - delivery.published_at_s * _MS)
        attempt = Attempt(self._bus, self._clock, job, number=_number(job, delivery), queued_ms=round(waited_ms, 3))
        targets = self._routing.targets(job.models)
        kind = targets[0].provider.kind if targets else "none"
        result = await self._attempt(attempt, targets[0]) if targets else attempt.failed(UNKNOWN)
        self._note(attempt, result, kind)
        return result

    async def _attempt(self, attempt: Attempt, target: Target) -> Result:
        job = attempt.job
        call = ModelCall(job.turn, job.step, target.upstream, job.messages, job.sampling, job.budget_s)
        try:
            async with asyncio.timeout(job.budget_s) as scope:
                reason = self._cancels.reason(job.turn)
                if reason is not None:
                    return attempt.cancelled(reason)
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

    async def _send(self, result: Result) -> None:
        await self._publish(result, classic_result_msg_id(result.turn, result.step, "model", 0))

    async def _publish(self, event: Result | StepReleased, msg_id: str) -> None:
        payload = pack_small(event) or await self._parcels.pack(event.tenant, event)
        kind = type(event).__struct_config__.tag
        assert isinstance(kind, str)  # noqa: S101  every event has its kind as its tag
        await self._bus.send(subjects.event(kind, event.turn), payload, msg_id=msg_id)

    def _keep(self, key: tuple[str, int], result: Result | None) -> None:
        if result is None:
            return
        # One that nobody asks for again, because its job was redelivered elsewhere, is pushed out by others.
        while len(self._unsent) >= UNSENT_MAX:
            del self._unsent[next(iter(self._unsent))]
        self._unsent[key] = result

    def _on_cancel(self, cancel: CancelTurn) -> None:
        for attempt in self._running:
            if attempt.job.turn == cancel.turn:
                attempt.stop(cancel.reason)

    def _note(self, attempt: Attempt, result: Result, kind: str) -> None:
        match result:
            case StepGenerated():
                outcome = "generated"
            case StepCancelled():
                outcome = "cancelled"
            case StepFailed(error=error):
                outcome = error.code.value
        MODEL_CALLS.labels(kind, outcome).inc()
        MODEL_DURATION.labels(kind).observe(attempt.spent_s)
        if attempt.first_token_s is not None:
            MODEL_FIRST_TOKEN.labels(kind).observe(attempt.first_token_s)
        _TOKENS_IN.inc(result.usage.input_tokens)
        _TOKENS_OUT.inc(result.usage.output_tokens)
        log.info(
            "step.ended",
            turn=result.turn,
            step=result.step,
            attempt=result.attempt,
            model=result.model,
            outcome=outcome,
            frames=result.last,
            frames_lost=attempt.frames.lost,
            first_token_ms=result.timings.first_token_ms,
            total_ms=result.timings.total_ms,
        )


def _number(job: Generate, delivery: Delivery) -> int:
    """Number the attempt: a redelivery works under a number of its own."""
    return job.attempt + delivery.deliveries - 1
