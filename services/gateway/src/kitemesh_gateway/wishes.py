"""What a request of any dialect may wish for in a header: its priority, and how long it may wait. Pure."""

from collections.abc import Mapping
from math import isfinite
from typing import Final, cast

from msgspec.structs import replace

from kitemesh_contracts.commands import Priority
from kitemesh_contracts.headers import MAX_WAIT, PRIORITY
from kitemesh_contracts.topology import PRIORITIES
from kitemesh_gateway.dialects.base import Mistake, Mistakes, TurnRequest

MAX_WAIT_S: Final = 3600.0


def wished(headers: Mapping[str, str], asked: TurnRequest) -> TurnRequest:
    """Return a request with what its headers wish for; what the body says wins.

    Raises:
        Mistakes: A header does not say what it may.

    """
    priority, wait = headers.get(PRIORITY), headers.get(MAX_WAIT)
    if priority is None and wait is None:
        return asked
    mistakes = []
    max_wait_s = None if wait is None else _seconds(wait)
    if wait is not None and max_wait_s is None:
        mistakes.append(Mistake(MAX_WAIT, f"must be seconds, above 0 and at most {MAX_WAIT_S:.0f}"))
    if priority is not None and priority not in PRIORITIES:
        mistakes.append(Mistake(PRIORITY, f"must be {' or '.join(PRIORITIES)}"))
    if mistakes:
        raise Mistakes(mistakes)
    return replace(
        asked,
        priority=asked.priority or cast("Priority | None", priority),
        max_wait_s=asked.max_wait_s or max_wait_s,
    )


def allowed(wanted: Priority | None, given: Priority | None) -> Priority:
    """Return the priority of a turn: whoever is given the lower one cannot have the higher one."""
    return "batch" if "batch" in (wanted, given) else "interactive"


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if isfinite(seconds) and 0 < seconds <= MAX_WAIT_S else None
