"""Frames: what arrived together goes out together, numbered, as soon as it is there. No timer delays a delta.

The first delta is a frame by itself unless others came with it. A durable job's are captured as they go out. An empty
frame after every 5 s without one tells the gateway that the job is alive, for a caller that does not stream too.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

import msgspec

from kitemesh_contracts import subjects
from kitemesh_contracts.codec import encode
from kitemesh_contracts.commands import Generate
from kitemesh_contracts.content import Logprob, TopLogprob
from kitemesh_contracts.deltas import CallDelta, Delta, Frame, ResultDelta, TextDelta
from kitemesh_contracts.errors import Unavailable
from kitemesh_runtime.bus import Bus

KEEPALIVE_TICKS: Final = 5

FRAME_MAX_CHARACTERS: Final = 64 * 1024
"""Bound of one frame: escaped in the worst way it still travels."""

_ITEM_COST: Final = 64
_LOGPROB_COST: Final = 64


class Frames:
    """One attempt's frames.

    Attributes:
        last: Number of the last frame published; 0 before the first.
        lost: Frames that the bus did not take. The closing event makes good for them.

    """

    def __init__(self, bus: Bus, job: Generate, attempt: int) -> None:
        self.last = 0
        self.lost = 0
        self._publish: Final = bus.publish
        self._post: Final = bus.post
        self._live: Final = subjects.live(job.gateway, job.turn, job.step, attempt)
        self._out: Final = None if job.mode == "classic" else subjects.out(job.gateway, job.turn, job.step, attempt)
        self._stream: Final = job.stream
        self._after = job.after
        self._offset = 0
        self._quiet_ticks = 0

    def put(self, deltas: Sequence[Delta]) -> None:
        """Publish what arrived together."""
        if not self._stream:
            return
        size = characters = 0
        for delta in deltas:
            if type(delta) is TextDelta:
                characters += len(delta.text)
            size += _size(delta)
        if size > FRAME_MAX_CHARACTERS:
            for part in _parts(deltas):
                self._send(part, sum(len(delta.text) for delta in part if isinstance(delta, TextDelta)))
        else:
            self._send(tuple(deltas), characters)

    def tick(self) -> None:
        """Count a second; publish an empty frame when it was the fifth without one."""
        self._quiet_ticks += 1
        if self._quiet_ticks >= KEEPALIVE_TICKS:
            self._quiet_ticks = 0
            try:
                self._publish(self._live, encode(Frame(n=self.last, offset=self._offset, items=())))
            except Unavailable:
                self.lost += 1

    def _send(self, items: tuple[Delta, ...], characters: int) -> None:
        self.last += 1
        self._quiet_ticks = 0
        payload = encode(Frame(n=self.last, offset=self._offset, items=items, after=self._after))
        self._after = None
        self._offset += characters
        try:
            if self._out is None:
                self._publish(self._live, payload)
            else:
                self._post(subjects.out_frame(self._out, self.last), payload)
        except Unavailable:
            self.lost += 1


def _size(delta: Delta) -> int:
    if isinstance(delta, CallDelta):
        return _ITEM_COST + len(delta.arguments)
    size = _ITEM_COST + len(delta.text)
    if type(delta) is TextDelta and delta.logprobs:
        size += sum(map(_logprob_size, delta.logprobs))
    elif isinstance(delta, ResultDelta) and delta.error is not None:
        size += len(delta.error.message)
    return size


def _logprob_size(logprob: Logprob) -> int:
    """Return about as many characters as it is encoded in."""
    tokens: tuple[Logprob | TopLogprob, ...] = (logprob, *logprob.top)
    return sum(_LOGPROB_COST + len(each.token) + 4 * len(each.bytes or ()) for each in tokens)


def _parts(deltas: Sequence[Delta]) -> Iterator[tuple[Delta, ...]]:
    """Share deltas out over frames that travel."""
    part: list[Delta] = []
    room = FRAME_MAX_CHARACTERS
    for delta in chain.from_iterable(map(_pieces, deltas)):
        size = _size(delta)
        if part and size > room:
            yield tuple(part)
            part, room = [], FRAME_MAX_CHARACTERS
        part.append(delta)
        room -= size
    yield tuple(part)


def _pieces(delta: Delta) -> Iterator[Delta]:
    """Cut a delta that no frame has room for."""
    step = FRAME_MAX_CHARACTERS - _ITEM_COST
    # What came of a call was cut to what a frame has room for.
    if isinstance(delta, ResultDelta) or _size(delta) <= FRAME_MAX_CHARACTERS:
        yield delta
    elif isinstance(delta, CallDelta):
        yield msgspec.structs.replace(delta, arguments=delta.arguments[:step])
        for start in range(step, len(delta.arguments), step):
            yield CallDelta(index=delta.index, arguments=delta.arguments[start : start + step])
    else:
        for start in range(0, len(delta.text), step):
            yield type(delta)(text=delta.text[start : start + step])
        if isinstance(delta, TextDelta):
            # Behind the text: which tokens a piece of it is made of is not known.
            yield from (TextDelta(text="", logprobs=(each,)) for each in delta.logprobs)
