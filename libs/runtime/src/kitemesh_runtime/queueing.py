"""How long a job has waited since it was published, by two clocks: the bus's and this machine's. Pure.

A clock that is behind makes waits shorter, one that is ahead makes them longer, by as much as it is wrong. What no job
can have waited is not believed at all, and nothing but a budget may be counted from it.
"""

from typing import Final

from kitemesh_contracts.topology import JOB_MAX_AGE_S

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
