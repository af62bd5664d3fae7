"""What is counted and logged of attempts that ended and of the upstreams; never what was said."""

from collections.abc import Mapping
from typing import Final

import structlog

from kitemesh_contracts.events import StepCancelled, StepFailed, StepGenerated
from kitemesh_model_runner.attempt import Attempt, Result
from kitemesh_runtime.metrics import (
    HOP,
    MODEL_CALLS,
    MODEL_DURATION,
    MODEL_FIRST_TOKEN,
    MODEL_TOKENS,
    UPSTREAM_STATE,
)

_TOKENS_IN: Final = MODEL_TOKENS.labels("in")
_TOKENS_OUT: Final = MODEL_TOKENS.labels("out")
_QUEUE, _RUNNER, _PROVIDER = (HOP.labels(hop) for hop in ("model_queue", "runner", "provider"))
_MS: Final = 1000

log: Final = structlog.get_logger()


def note(attempt: Attempt, result: Result, kind: str) -> None:
    """Count an attempt that ended, and log it; `kind` is the provider's."""
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
        _PROVIDER.observe(attempt.first_token_s)
    _QUEUE.observe(result.timings.queued_ms / _MS)
    _RUNNER.observe(result.timings.runner_ms / _MS)
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
        continued=attempt.continued,
        frames_lost=attempt.frames.lost,
        first_token_ms=result.timings.first_token_ms,
        total_ms=result.timings.total_ms,
    )


def show_states(states: Mapping[str, int]) -> None:
    """Show how each provider is, and no other any more."""
    UPSTREAM_STATE.clear()
    for name, state in states.items():
        UPSTREAM_STATE.labels(name).set(state)
