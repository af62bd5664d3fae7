"""When to ask an upstream again: what `Retry-After` says, else a jittered back-off. Pure."""

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Final

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 8.0
PATIENCE_S: Final = 30.0
"""An upstream that asks for more is not waited for: the client is told when to come back instead."""

_MS: Final = 1000.0


def retry_after_s(headers: Mapping[str, str], *, now_s: float) -> float | None:
    """Read `retry-after-ms`, else `Retry-After` in seconds or as a date.

    Args:
        headers: Of the response; looked up without regard to case.
        now_s: Epoch seconds.

    Returns:
        Seconds from now, never negative; `None` when there is nothing to read.

    """
    try:
        if "retry-after-ms" in headers:
            wait = float(headers["retry-after-ms"]) / _MS
        else:
            wait = _seconds(headers["retry-after"], now_s)
    except (KeyError, ValueError):
        return None
    return max(0.0, wait) if isfinite(wait) else None


def pause_s(number: int, asked_s: float | None, *, chance: float) -> float:
    """Return how long to wait before the next try.

    Args:
        number: How many tries have failed, from 1.
        asked_s: What the upstream asked for; the pause is never shorter.
        chance: Uniform in [0, 1); spreads those that failed together.

    """
    if asked_s is not None:
        return asked_s * (1 + chance / 10)
    full = min(FIRST_PAUSE_S * 2.0 ** (number - 1), LONGEST_PAUSE_S)
    return full * (1 + chance) / 2


def _seconds(text: str, now_s: float) -> float:
    try:
        return float(text)
    except ValueError:
        moment = parsedate_to_datetime(text)
        # A date without a zone is meant as GMT, the only zone that HTTP knows.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now_s
