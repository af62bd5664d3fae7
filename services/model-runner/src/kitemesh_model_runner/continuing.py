"""With what an attempt begins: nothing, or what an earlier one of its step told, where its model can go on with that.

How frames are read again is not known here, nor how a provider continues.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog

from kitemesh_contracts.commands import Generate
from kitemesh_contracts.deltas import ReasoningDelta, TextDelta
from kitemesh_contracts.errors import Unavailable
from kitemesh_model_runner.earlier import Told, read_earlier
from kitemesh_model_runner.provider import Prefix
from kitemesh_model_runner.routing import Target
from kitemesh_runtime.bus import Bus

log: Final = structlog.get_logger()


class Beginning(NamedTuple):
    """What an attempt tells first, the same for its provider, and who can go on behind it."""

    told: Told
    prefix: Prefix | None
    targets: Sequence[Target]


async def find_beginning(
    bus: Bus, job: Generate, attempt: int, targets: Sequence[Target], *, now_s: float
) -> Beginning:
    """Return with what an attempt begins; asks nobody for a first attempt.

    Where nobody who can go on may be asked now, the answer is begun anew by those who may.

    Raises:
        Unavailable: The bus is away.

    """
    nothing = Beginning((), None, targets)
    continuing = [each for each in targets if each.continues]
    if attempt == 1 or job.mode == "classic" or not job.stream or not continuing:
        return nothing
    try:
        told = await read_earlier(bus, job, attempt)
    except Unavailable as exc:
        if not bus.connected:
            raise
        # The stream alone does not answer. An answer told anew is better than none: readers skip what is the same.
        log.warning("answer.begun_anew", turn=job.turn, step=job.step, attempt=attempt, reason=exc.message)
        return nothing
    prefix = Prefix(
        text="".join(delta.text for delta in told if isinstance(delta, TextDelta)),
        reasoning="".join(delta.text for delta in told if isinstance(delta, ReasoningDelta)),
    )
    if not told:
        return nothing
    able = [each for each in continuing if each.provider.can_continue(prefix)]
    free = [each for each in targets if each.circuit.obstacle(now_s) is None]
    if not able or (free and not any(each in free for each in able)):
        return nothing
    return Beginning(told, prefix, able)
