"""When a call that failed is run again in this process: twice at the most, jittered, within its time. Pure."""

from typing import Final

from kitemesh_tool_executor.tool import CallFailed

TRIES_MAX: Final = 3
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 5.0


def pause_s(number: int, failed: CallFailed, *, left_s: float, chance: float) -> float | None:
    """Return how long to wait before the next try; `None` when there is none.

    Args:
        number: How many tries have failed, from 1.
        failed: How the last one did.
        left_s: Until the call's time is up.
        chance: Uniform in [0, 1); spreads those that failed together.

    """
    if number >= TRIES_MAX or not failed.again:
        return None
    pause = min(FIRST_PAUSE_S * 2.0 ** (number - 1), LONGEST_PAUSE_S) * (1 + chance) / 2
    if failed.retry_after_s is not None:
        # What the tool asked for is never undercut.
        pause = failed.retry_after_s * (1 + chance / 10)
    return pause if pause < left_s else None
