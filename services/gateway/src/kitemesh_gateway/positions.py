"""Positions of durable streams: what an event's id says, and what a `Last-Event-ID` asks for. Pure.

Step, attempt, frame and event tell where an event stands while the frames are kept; the measures tell what the client
has been shown of the step, which holds good afterwards too. Clients only give back what they were sent, or make it up.
"""

import re
from typing import Final, NamedTuple

from kitemesh_contracts.errors import BadRequest, ErrorCode

MAX_CHARS: Final = 200
"""More than the longest position has."""

_NUMBER: Final = r"(\d{1,9})"
_MEASURE: Final = r"(\d{1,9})-([0-9a-f]{8})"
_POSITION: Final = re.compile(
    rf"\A([A-Za-z0-9_-]{{1,64}}):{_NUMBER}\.{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:\.{_MEASURE}(?:\.{_MEASURE})?)?\Z",
    re.ASCII,
)


class Measure(NamedTuple):
    """How much of a text there is.

    Attributes:
        length: In characters.
        crc: CRC-32 of its UTF-8.

    """

    length: int = 0
    crc: int = 0


NOTHING: Final = Measure()


class Position(NamedTuple):
    """An event of a stream, and what the client has been shown of its step, that event included.

    Attributes:
        n: Number of the event's frame; 0 for an event that no frame has; behind the last frame what closes a stream.
        k: The event's number within the frame, from 0.
        text: `None` in the ids of classic streams.

    """

    step: int
    attempt: int
    n: int
    k: int
    text: Measure | None = None
    reasoning: Measure = NOTHING

    @property
    def is_start(self) -> bool:
        """Whether it is the event that opened a stream, which began behind `step`."""
        return not (self.attempt or self.n)


def parse(header: str) -> tuple[str, Position]:
    """Read a `Last-Event-ID`: whose event it is, and where it stands.

    Raises:
        BadRequest: It is none that this server gives out (`request.invalid`).

    """
    match = _POSITION.match(header) if len(header) <= MAX_CHARS else None
    if match is None:
        raise BadRequest(ErrorCode.REQUEST_INVALID, "Last-Event-ID is not the id of an event of this server")
    turn, *numbers = match.groups()
    step, attempt, n, k, length, crc, reasoning, reasoning_crc = numbers
    return turn, Position(
        int(step),
        int(attempt),
        int(n),
        int(k),
        None if length is None else Measure(int(length), int(crc, 16)),
        NOTHING if reasoning is None else Measure(int(reasoning), int(reasoning_crc, 16)),
    )


def write(turn: str, position: Position) -> str:
    """Return the id of an event: what `parse` reads."""
    step, attempt, n, k, text, reasoning = position
    measures = "" if text is None else f".{text.length}-{text.crc:08x}"
    if text is not None and reasoning.length:
        measures += f".{reasoning.length}-{reasoning.crc:08x}"
    return f"{turn}:{step}.{attempt}.{n}.{k}{measures}"
