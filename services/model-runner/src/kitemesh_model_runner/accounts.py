"""What is counted and logged of attempts that ended and of the upstreams; never what was said."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import structlog

from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.events import StepCancelled, StepFailed, StepGenerated
from kitemesh_model_runner.attempt import Attempt, Result
from kitemesh_runtime.metrics import (
    HOP,
    MODEL_DURATION,
    MODEL_FIRST_TOKEN,
    MODEL_PER_TOKEN,
    MODEL_TOKENS,
    MODEL_USAGE,
    UPSTREAM_STATE,
)

_TOKENS_IN: Final = MODEL_TOKENS.labels("in")
_TOKENS_OUT: Final = MODEL_TOKENS.labels("out")
_QUEUE, _RUNNER, _PROVIDER = (HOP.labels(hop) for hop in ("model_queue", "runner", "provider"))
_MS: Final = 1000
_CHAT: Final = "chat"
"""The one operation of the semantic conventions that is done here."""

_Observe = Callable[[float], None]


class _Meters(NamedTuple):
    """What is measured of one kind of provider, its labels looked up once."""

    first_token: _Observe
    per_token: _Observe
    tokens_in: _Observe
    tokens_out: _Observe


_METERS: Final[dict[str, _Meters]] = {}
_DURATIONS: Final[dict[tuple[str, str], _Observe]] = {}

log: Final = structlog.get_logger()


def note(attempt: Attempt, result: Result, kind: str) -> None:
    """Count an attempt that ended, and log it; `kind` is the provider's."""
    match result:
        case StepGenerated():
            outcome, error = "generated", ""
        case StepCancelled():
            outcome, error = "cancelled", ErrorCode.TURN_CANCELLED.value
        case StepFailed():
            outcome = error = result.error.code.value
    _measure(attempt, result, kind, error)
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


def _measure(attempt: Attempt, result: Result, kind: str, error: str) -> None:
    meters, duration = _METERS.get(kind), _DURATIONS.get((kind, error))
    if meters is None:
        meters = _METERS[kind] = _Meters(
            MODEL_FIRST_TOKEN.labels(_CHAT, kind).observe,
            MODEL_PER_TOKEN.labels(_CHAT, kind).observe,
            MODEL_USAGE.labels(_CHAT, kind, "input").observe,
            MODEL_USAGE.labels(_CHAT, kind, "output").observe,
        )
    if duration is None:
        duration = _DURATIONS[kind, error] = MODEL_DURATION.labels(_CHAT, kind, error).observe
    duration(attempt.spent_s)
    if attempt.first_token_s is not None:
        meters.first_token(attempt.first_token_s)
        _PROVIDER.observe(attempt.first_token_s)
    usage = result.usage
    # Of a continued answer it is not known how long its beginning took.
    if not error and usage.output_tokens > 1 and attempt.after_first_s is not None and not attempt.continued:
        meters.per_token(attempt.after_first_s / (usage.output_tokens - 1))
    # None at all says that the provider was not asked, or did not come to answer.
    if usage.input_tokens:
        meters.tokens_in(usage.input_tokens)
        _TOKENS_IN.inc(usage.input_tokens)
    if usage.output_tokens:
        meters.tokens_out(usage.output_tokens)
        _TOKENS_OUT.inc(usage.output_tokens)
    _QUEUE.observe(result.timings.queued_ms / _MS)
    _RUNNER.observe(result.timings.runner_ms / _MS)


def show_states(states: Mapping[str, int]) -> None:
    """Show how each provider is, and no other any more."""
    UPSTREAM_STATE.clear()
    for name, state in states.items():
        UPSTREAM_STATE.labels(name).set(state)
