"""What earlier attempts of a step have told, read again from where their frames are captured.

Each attempt tells its step from the beginning, so the newest one that has told anything is enough. Nothing is known
here of how an answer is continued.
"""

from collections.abc import Sequence
from itertools import groupby

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import Generate
from kitemesh_contracts.deltas import CallDelta, Frame, ReasoningDelta, ResultDelta, TextDelta
from kitemesh_contracts.errors import ContractViolation
from kitemesh_contracts.topology import OUT
from kitemesh_runtime.bus import Bus, Stored

Told = tuple[TextDelta | ReasoningDelta, ...]

_Said = TextDelta | ReasoningDelta | CallDelta


async def read_earlier(bus: Bus, job: Generate, attempt: int) -> Told:
    """Return what was told before an attempt, each run of text or reasoning in one piece.

    Nothing, where no frame is kept, or where calls were begun: half a call cannot be continued. What came of the calls
    of the step before is not part of it: each attempt is given that and tells it.

    Raises:
        Unavailable: The stream does not answer.

    """
    for number in range(attempt - 1, 0, -1):
        told = await _told(bus, job, number)
        if told:
            return _joined(told)
    return ()


async def _told(bus: Bus, job: Generate, attempt: int) -> list[_Said]:
    """Return what the frames of an attempt hold up to the first one that is missing."""
    told: list[_Said] = []
    known = 0
    while known % subjects.OUT_BLOCK == 0:
        block = known // subjects.OUT_BLOCK
        kept = await bus.last_of(OUT, subjects.out_block(job.turn, job.step, attempt, block))
        frames = _frames(kept)
        before = known
        while (frame := frames.get(known + 1)) is not None:
            told.extend(item for item in frame.items if not isinstance(item, ResultDelta))
            known += 1
        if known == before:
            break
    return told


def _frames(kept: Sequence[Stored]) -> dict[int, Frame]:
    frames: dict[int, Frame] = {}
    for each in kept:
        try:
            message = codec.decode(codec.RELAYED, each.payload)
        except ContractViolation:
            # A newer version's, which this one cannot continue from: the same to it as a frame that is missing.
            continue
        if isinstance(message, Frame):
            frames[message.n] = message
    return frames


def _joined(told: Sequence[_Said]) -> Told:
    joined: list[TextDelta | ReasoningDelta] = []
    pieces: list[TextDelta | ReasoningDelta] = []
    for delta in told:
        if isinstance(delta, CallDelta):
            return ()
        pieces.append(delta)
    for kind, run in groupby(pieces, type):
        joined.append(kind(text="".join(piece.text for piece in run)))
    return tuple(joined)
