"""How long a job has waited since it was published, by two clocks: the bus's and this machine's. Pure.

A clock that is behind makes waits shorter, one that is ahead makes them longer, by as much as it is wrong. What no job
can have waited is not believed at all, and nothing but a budget and a bound on waiting may be counted from it.
"""

from typing import Final

from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_contracts.topology import JOB_MAX_AGE_S

RETRY_LEAST_S: Final = 1.0
RETRY_MOST_S: Final = 60.0
_MS: Final = 1000.0


def queued_s(published_at_s: float, *, now_ms: float) -> float:
    """Return the seconds that a job has waited; 0 when the clocks cannot both be right.

    Args:
        published_at_s: Epoch seconds of the bus's clock.
        now_ms: Epoch milliseconds of this machine's.

    """
    waited_s = now_ms / _MS - published_at_s
    # The stream keeps no job for longer.
    return waited_s if 0 < waited_s <= JOB_MAX_AGE_S else 0.0


def waited_too_long(waited_s: float) -> ErrorInfo:
    """Refuse what waited longer than it was to wait, which is how long the next one may have to, too."""
    return ErrorInfo(
        code=ErrorCode.QUEUE_FULL,
        message="The request waited in a queue for as long as it may",
        retry_after_s=round(min(RETRY_MOST_S, max(RETRY_LEAST_S, waited_s)), 3),
    )
