"""One attempt at a model call: what was said so far, how it is stopped, the event it ends in.

It knows neither deliveries nor providers.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from kitemesh_contracts.commands import Generate
from kitemesh_contracts.content import Alternative, Logprob, Usage
from kitemesh_contracts.deltas import CallDelta, Delta, ReasoningDelta, TextDelta, result_delta
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_contracts.events import StepCancelled, StepFailed, StepGenerated, StepTimings
from kitemesh_model_runner.coalesce import Frames
from kitemesh_model_runner.earlier import Told
from kitemesh_model_runner.lease import Lease
from kitemesh_model_runner.provider import Generated, failure
from kitemesh_model_runner.usage import estimate
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.failpoints import reach

MAX_CHARACTERS: Final = 4 * 1024 * 1024
"""No model says this much; an upstream that does is broken."""

MAX_LOGPROBS: Final = 500_000
"""Of all tokens and of what could have stood in their places."""

Result = StepGenerated | StepFailed | StepCancelled

_MS: Final = 1000.0


class Attempt:
    """The attempt.

    Attributes:
        number: Of the attempt.
        model: Catalog id of the model, once one is chosen.
        reason: Why it was stopped; `None` unless it was.
        continued: Characters that an earlier attempt had said.

    Args:
        lease: Looked at before each frame; `None` for frames that nobody reads beside another attempt's.

    """

    def __init__(
        self, bus: Bus, clock: Clock, job: Generate, *, number: int, queued_ms: float, lease: Lease | None = None
    ) -> None:
        self.job: Final = job
        self.number: Final = number
        self.model = ""
        self.reason: str | None = None
        self.continued = 0
        self.frames: Final = Frames(bus, job, number)
        self._lease: Final = lease
        self._clock: Final = clock
        self._queued_ms: Final = queued_ms
        self._taken_s: Final = clock.monotonic()
        self._asked_s: float | None = None
        self._first_s: float | None = None
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._characters = 0
        self._logprobs: list[Logprob] = []
        self._logprobs_told = 0
        self._scope: asyncio.Timeout | None = None

    @property
    def first_token_s(self) -> float | None:
        """Seconds from the request to the first delta; `None` before it."""
        return None if self._first_s is None or self._asked_s is None else self._first_s - self._asked_s

    @property
    def after_first_s(self) -> float | None:
        """Seconds since the first delta; `None` before it."""
        return None if self._first_s is None else self._clock.monotonic() - self._first_s

    @property
    def spent_s(self) -> float:
        """Seconds since the delivery."""
        return self._clock.monotonic() - self._taken_s

    def begin(self, model: str, scope: asyncio.Timeout) -> None:
        """Note what is to answer first, and the scope in which it does."""
        self.model = model
        self._scope = scope

    def ask(self) -> None:
        """Note that a provider is asked now; the first one counts, whichever answers."""
        if self._asked_s is None:
            self._asked_s = self._clock.monotonic()

    async def tell_results(self) -> None:
        """Tell what came of the calls of the step before, as soon as anybody can; raises as `take` does."""
        results = self.job.results
        if results:
            await self._check()
            self.frames.put([result_delta(result) for result in results])

    async def go_on(self, told: Told) -> None:
        """Tell what an earlier attempt told, as this one's beginning; raises as `take` does."""
        await self._check()
        self._note(told)
        self.continued = self._characters
        self.frames.put(told)

    def stop(self, reason: str) -> None:
        """Make the scope end now; nothing happens to an attempt that ends already."""
        if self._scope is not None and self.reason is None and not self._scope.expired():
            self.reason = reason
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def take(self, deltas: Sequence[Delta]) -> None:
        """Be the provider's sink.

        Raises:
            Outdated: The job is another's by now.
            Unavailable: Whether it is cannot be told.

        """
        if self._lease is not None:
            await self._check()
        if self._first_s is None:
            self._first_s = self._clock.monotonic()
        self._note(deltas)
        if self._characters > MAX_CHARACTERS or self._logprobs_told > MAX_LOGPROBS:
            raise failure(ErrorCode.UPSTREAM_FAILED)
        self.frames.put(deltas)
        await reach("run.mid_stream")

    async def _check(self) -> None:
        if self._lease is not None and self._lease.is_doubtful():
            await self._lease.renew()

    def _note(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            if type(delta) is TextDelta:
                self._text.append(delta.text)
                self._characters += len(delta.text)
                if delta.logprobs:
                    self._logprobs += delta.logprobs
                    self._logprobs_told += sum(1 + len(each.top) for each in delta.logprobs)
            elif type(delta) is ReasoningDelta:
                self._reasoning.append(delta.text)
                self._characters += len(delta.text)
            elif type(delta) is CallDelta:
                self._characters += len(delta.arguments)

    def generated(self, end: Generated) -> StepGenerated:
        """Say that the model answered."""
        return StepGenerated(
            finish=end.finish,
            reasoning="".join(self._reasoning),
            calls=end.calls,
            alternatives=end.alternatives,
            logprobs=tuple(self._logprobs),
            **self._facts(end.usage or self._estimate(end.alternatives)),
        )

    def failed(self, error: ErrorInfo) -> StepFailed:
        """Say that there is no whole answer."""
        return StepFailed(error=error, **self._facts(self._partial()))

    def cancelled(self, reason: str) -> StepCancelled:
        """Say that it was stopped."""
        return StepCancelled(reason=reason, **self._facts(self._partial()))

    def _facts(self, usage: Usage) -> dict[str, Any]:
        job, first_s = self.job, self.first_token_s
        now_s = self._clock.monotonic()
        total_s = now_s - self._taken_s
        asked_s = now_s if self._asked_s is None else self._asked_s
        return {
            "turn": job.turn,
            "tenant": job.tenant,
            "step": job.step,
            "attempt": self.number,
            "model": self.model,
            "text": "".join(self._text),
            "usage": usage,
            "last": self.frames.last,
            "timings": StepTimings(
                queued_ms=self._queued_ms,
                first_token_ms=None if first_s is None else round(first_s * _MS, 3),
                total_ms=round(total_s * _MS, 3),
                start_queued_ms=job.timings.start_queued_ms,
                orchestrator_ms=job.timings.orchestrator_ms,
                runner_ms=round((asked_s - self._taken_s) * _MS, 3),
            ),
            "carry": job.carry,
        }

    def _partial(self) -> Usage:
        return Usage() if self._first_s is None and not self.continued else self._estimate()

    def _estimate(self, others: Sequence[Alternative] = ()) -> Usage:
        return estimate(
            self.job.messages,
            text_characters=sum(map(len, self._text)) + sum(len(each.text) for each in others),
            reasoning_characters=sum(map(len, self._reasoning)) + sum(len(each.reasoning) for each in others),
        )
