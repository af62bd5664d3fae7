"""One model call over several upstreams: the first that answers is the answer, and after its first delta no other is.

Each is asked once. Only the last one left may be asked again, by its provider's rules: any other upstream answers
sooner than a pause is over. How a call is put together and what a provider does is not known here.
"""

from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Final

import structlog

from kitemesh_contracts.errors import ErrorCode, ProviderFailed
from kitemesh_model_runner.attempt import Attempt
from kitemesh_model_runner.circuit import FAILURES, Circuit, Obstacle
from kitemesh_model_runner.provider import SENTENCES, Generated, ModelCall, ModelMissing
from kitemesh_model_runner.routing import Target
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.metrics import UPSTREAM_FALLBACKS

Prepare = Callable[[Target], Awaitable[ModelCall]]
"""Puts the call together; awaited right before it is made."""

ELSEWHERE: Final = FAILURES | {ErrorCode.UPSTREAM_LIMITED, ErrorCode.UPSTREAM_CONTEXT}
"""Failures that another upstream may not have. One that found fault with the request would find it there, too."""

OPEN_WORDS: Final = "The model's provider failed several times and is left alone for a while; try again later"

log: Final = structlog.get_logger()


async def ask(attempt: Attempt, targets: Sequence[Target], prepare: Prepare, clock: Clock) -> Generated:
    """Return the first whole answer.

    Args:
        attempt: Takes the deltas, and the name of whatever is asked.
        targets: In the order to ask them, at least one.
        prepare: Puts their calls together.
        clock: Of the circuits.

    Raises:
        ProviderFailed: There is none. What the attempt took before is all there will be.

    """
    failed: ProviderFailed | None = None
    obstacles: list[Obstacle] = []
    passed: list[str] = []
    soonest_s = inf
    for place, target in enumerate(targets):
        obstacle = target.circuit.obstacle(clock.monotonic())
        if obstacle is not None:
            obstacles.append(obstacle)
            passed.append(obstacle.reason)
            soonest_s = min(soonest_s, obstacle.wait_s)
            continue
        for reason in passed:
            UPSTREAM_FALLBACKS.labels(reason).inc()
        if passed:
            log.info("upstream.changed", turn=attempt.job.turn, model=target.model, reasons=passed)
        attempt.model = target.model
        visit = _Visit(target.circuit, clock, targets[place + 1 :])
        try:
            call = await prepare(target)
            return visit.succeeded(await target.provider.generate(call._replace(again=visit.again), attempt.take))
        except ProviderFailed as exc:
            visit.failed(exc)
            if attempt.first_token_s is not None or not (exc.code in ELSEWHERE or isinstance(exc, ModelMissing)):
                raise
            failed = exc
            passed = [exc.code.value]
            soonest_s = min(soonest_s, inf if exc.retry_after_s is None else exc.retry_after_s)
        finally:
            visit.leave()
    if failed is None:
        raise _unavailable(obstacles)
    if failed.retry_after_s is None or failed.retry_after_s <= soonest_s:
        raise failed
    raise ProviderFailed(failed.code, failed.message, retry_after_s=soonest_s)


class _Visit:
    """The tries at one upstream, each told to its circuit once.

    Args:
        others: Those that are asked after it.

    """

    def __init__(self, circuit: Circuit, clock: Clock, others: Sequence[Target]) -> None:
        self._circuit: Final = circuit
        self._clock: Final = clock
        self._others: Final = others
        self._ticket = circuit.enter(clock.monotonic())

    def again(self, failure: ProviderFailed) -> bool:
        """Take the failure of a try, and tell whether there may be another, after the pause that was asked for."""
        self.failed(failure)
        now_s = self._clock.monotonic()
        if any(other.circuit.obstacle(now_s) is None for other in self._others):
            return False
        self._ticket = self._circuit.enter(now_s, rested=True)
        return self._ticket is not None

    def succeeded(self, answer: Generated) -> Generated:
        """Take an answer."""
        self._end(None)
        return answer

    def failed(self, failure: ProviderFailed) -> None:
        """Take a failure, unless it is the one that was told already."""
        self._end(failure)

    def leave(self) -> None:
        """Forget a try that was stopped."""
        if self._ticket is not None:
            self._circuit.drop(self._ticket)

    def _end(self, failure: ProviderFailed | None) -> None:
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            return
        circuit, now_s = self._circuit, self._clock.monotonic()
        before = circuit.state(now_s)
        circuit.leave(ticket, now_s, failure)
        after = circuit.state(now_s)
        if after != before:
            log.warning("upstream.judged", provider=circuit.provider, model=circuit.model, state=after)


def _unavailable(obstacles: Sequence[Obstacle]) -> ProviderFailed:
    """Say what the upstream that is soonest back is kept back by."""
    nearest = min(obstacles, key=lambda each: each.wait_s)
    words = SENTENCES[nearest.code] if nearest.code == ErrorCode.UPSTREAM_LIMITED else OPEN_WORDS
    return ProviderFailed(nearest.code, words, retry_after_s=nearest.wait_s)
