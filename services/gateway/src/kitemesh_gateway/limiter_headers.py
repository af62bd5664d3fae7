"""What a client is told of its limits: OpenAI's `x-ratelimit-*` headers. Pure."""

from collections.abc import Iterable, Mapping
from typing import Final

from kitemesh_gateway.limiter_rates import Rate
from kitemesh_gateway.limiter_subjects import Subject

_PREFIX: Final = "x-ratelimit-"
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600


def rate_headers(subjects: Iterable[Subject], now_s: float) -> Mapping[str, str]:
    """Return the headers of the tighter of several limits of a kind; empty where there is none."""
    headers: dict[str, str] = {}
    requests = [subject.requests for subject in subjects if subject.requests is not None]
    tokens = [subject.tokens for subject in subjects if subject.tokens is not None]
    _add(headers, "requests", requests, now_s)
    _add(headers, "tokens", tokens, now_s)
    return headers


def duration(seconds: float) -> str:
    """Write a time as OpenAI does: `12ms`, `1.5s`, `6m0s`, `1h0m30s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), _MINUTE_S)
    if not minutes:
        return f"{rest:g}s"
    hours, minutes = divmod(int(minutes), _HOUR_S // _MINUTE_S)
    return f"{hours}h{minutes}m{round(rest)}s" if hours else f"{minutes}m{round(rest)}s"


def _add(headers: dict[str, str], kind: str, rates: list[Rate], now_s: float) -> None:
    if not rates:
        return
    rate = rates[0] if len(rates) == 1 else min(rates, key=lambda one: one.left(now_s))
    left = max(0, int(min(rate.left(now_s), rate.capacity)))
    headers[f"{_PREFIX}limit-{kind}"] = str(rate.per_minute)
    headers[f"{_PREFIX}remaining-{kind}"] = str(left)
    headers[f"{_PREFIX}reset-{kind}"] = duration(rate.full_in_s(now_s))
