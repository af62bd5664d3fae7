"""Positions of durable streams: what an event's id says, and what a `Last-Event-ID` asks for. Pure.

Step, attempt, frame and event tell where an event stands while the frames are kept; the measures tell what the client
has been shown of the step, which holds good afterwards too. Behind a `~` stands which stream it is an event of. Clients
only give back what they were sent, or make it up.
"""

import re
from typing import Final, NamedTuple

from kitemesh_contracts.errors import BadRequest, ErrorCode

MAX_CHARS: Final = 200
"""More than the longest position has."""

_NUMBER: Final = r"(\d{1,9})"
_MEASURE: Final = r"(\d{1,9})-([0-9a-f]{8})"
_STREAM: Final = rf"~{_NUMBER}(?:([anor]){_NUMBER}([ENTGstg])?)?(u)?"
_POSITION: Final = re.compile(
    rf"\A([A-Za-z0-9_-]{{1,64}}):{_NUMBER}\.{_NUMBER}\.{_NUMBER}\.{_NUMBER}"
    rf"(?:\.{_MEASURE}(?:\.{_MEASURE})?(?:{_STREAM})?)?\Z",
    re.ASCII,
)
_NO_ATTEMPT: Final = -1

PATTERN: Final = f"^{_POSITION.pattern[2:-2]}$".replace(r"\d", "[0-9]")
"""What `parse` takes, as JSON Schema writes it."""


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
        after_step: The stream began behind this step: it told what followed a hold.
        calls: How many calls of the step were told; `None` where the stream's dialect tells them at its end.
        usage: A stream that began behind a step ends with the token counts.
        words: Whose events they are, where that tells calls: see `Tally`. Each dialect numbers them in its own way.
        parts: Which parts of the message the event left open, where a dialect has parts; see `RunChatEncoder`.

    """

    step: int
    attempt: int
    n: int
    k: int
    text: Measure | None = None
    reasoning: Measure = NOTHING
    after_step: int = 0
    calls: int | None = None
    usage: bool = False
    words: str = ""
    parts: str = ""

    @property
    def is_start(self) -> bool:
        """Whether it is the event that opened a stream, which began behind `step`."""
        return not (self.attempt or self.n)

    def by_content(self) -> "Position":
        """Return it for a stream that numbers its events otherwise: only what was shown says where it goes on."""
        return self if self.is_start else self._replace(attempt=_NO_ATTEMPT)


def parse(header: str) -> tuple[str, Position]:
    """Read a `Last-Event-ID`: whose event it is, and where it stands.

    Raises:
        BadRequest: It is none that this server gives out (`request.invalid`).

    """
    match = _POSITION.match(header) if len(header) <= MAX_CHARS else None
    if match is None:
        raise BadRequest(ErrorCode.REQUEST_INVALID, "Last-Event-ID is not the id of an event of this server")
    turn, *numbers = match.groups()
    step, attempt, n, k, length, crc, reasoning, reasoning_crc, after_step, words, calls, parts, usage = numbers
    return turn, Position(
        int(step),
        int(attempt),
        int(n),
        int(k),
        None if length is None else Measure(int(length), int(crc, 16)),
        NOTHING if reasoning is None else Measure(int(reasoning), int(reasoning_crc, 16)),
        int(after_step or 0),
        None if calls is None else int(calls),
        usage is not None,
        words or "",
        parts or "",
    )


def write(turn: str, position: Position) -> str:
    """Return the id of an event: what `parse` reads."""
    step, attempt, n, k, text, reasoning, after_step, calls, usage, words, parts = position
    tail = ""
    if text is not None:
        tail = f".{text.length}-{text.crc:08x}"
        if reasoning.length:
            tail += f".{reasoning.length}-{reasoning.crc:08x}"
        if after_step or calls is not None:
            tail += f"~{after_step}{'' if calls is None else f'{words}{calls}{parts}'}{'u' if usage else ''}"
    return f"{turn}:{step}.{attempt}.{n}.{k}{tail}"
