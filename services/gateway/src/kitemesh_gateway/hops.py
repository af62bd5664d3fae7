"""Where a turn's time went, hop by hop: for `Server-Timing`, and for the last event of a stream. Pure."""

from collections.abc import Mapping
from typing import Final

from kitemesh_contracts.deltas import TurnEnded

DIGITS: Final = 2


def hops_of(ended: TurnEnded, *, again: bool = False) -> dict[str, float]:
    """Return the milliseconds of each hop that a closing event knows of, without those that took none.

    Args:
        ended: The closing event.
        again: Only what is the same when the event is made once more of what is stored.

    """
    if again and ended.outcome == "held":
        return {}
    timings = ended.timings
    return _shown(
        {
            "start_queue": timings.start_queued_ms,
            "orchestrator": timings.orchestrator_ms,
            "model_queue": timings.queued_ms,
            "runner": timings.runner_ms,
            "provider": timings.first_token_ms or 0.0,
            "store": 0.0 if again else ended.store_ms,
        }
    )


def server_timing(hops: Mapping[str, float]) -> str:
    """Return the header for milliseconds by hop."""
    return ", ".join(f"{hop};dur={ms}" for hop, ms in _shown(hops).items())


def _shown(hops: Mapping[str, float]) -> dict[str, float]:
    return {hop: rounded for hop, ms in hops.items() if (rounded := round(ms, DIGITS)) > 0}
