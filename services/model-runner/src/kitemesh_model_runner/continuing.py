"""With what an attempt begins: nothing, or what an earlier one of its step told, where its model can go on with that.

How frames are read again is not known here, nor how a provider continues.
"""

from typing import Final

import structlog

from kitemesh_contracts.commands import Generate
from kitemesh_contracts.deltas import ReasoningDelta, TextDelta
from kitemesh_contracts.errors import Unavailable
from kitemesh_model_runner.earlier import Told, read_earlier
from kitemesh_model_runner.provider import Prefix
from kitemesh_model_runner.routing import Target
from kitemesh_runtime.bus import Bus

log: Final = structlog.get_logger()

Beginning = tuple[Told, Prefix | None]

_NOTHING: Final[Beginning] = ((), None)


async def find_beginning(bus: Bus, job: Generate, attempt: int, target: Target) -> Beginning:
    """Return what an attempt tells first, and the same for its provider; asks nobody for a first attempt.

    Raises:
        Unavailable: The bus is away.

    """
    if attempt == 1 or job.mode == "classic" or not job.stream or not target.continues:
        return _NOTHING
    try:
        told = await read_earlier(bus, job, attempt)
    except Unavailable as exc:
        if not bus.connected:
            raise
        # The stream alone does not answer. An answer told anew is better than none: readers skip what is the same.
        log.warning("answer.begun_anew", turn=job.turn, step=job.step, attempt=attempt, reason=exc.message)
        return _NOTHING
    prefix = Prefix(
        text="".join(delta.text for delta in told if isinstance(delta, TextDelta)),
        reasoning="".join(delta.text for delta in told if isinstance(delta, ReasoningDelta)),
    )
    return (told, prefix) if told and target.provider.can_continue(prefix) else _NOTHING
