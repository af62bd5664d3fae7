"""What a client has been shown of a turn, and what may still be shown. Pure.

A step's text is one attempt's, or one attempt's prefix continued exactly where it ended, never a mixture: the first
attempt seen is followed, a gap ends the showing, and the next step is shown only if it says that it follows exactly
what was shown. The closing event, which has the whole answer, completes it.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Final, NamedTuple

from kitemesh_contracts.deltas import Delta, Frame, ReasoningDelta, ResultDelta, TextDelta, TurnEnded
from kitemesh_gateway.dialects.base import Rest

ANSWERED: Final = frozenset({"completed", "held"})
"""Outcomes whose closing event completes what was shown."""


class _Said:
    """How much text was shown, and a fingerprint of it: a long answer is not kept a second time."""

    __slots__ = ("_digest", "length")

    def __init__(self) -> None:
        self.length = 0
        self._digest: Final = blake2b(digest_size=16)

    def add(self, text: str) -> None:
        self.length += len(text)
        self._digest.update(text.encode())

    def begins(self, text: str) -> bool:
        head = text[: self.length].encode()
        return blake2b(head, digest_size=16).digest() == self._digest.digest()


class _Told(NamedTuple):
    """What was shown of one step."""

    step: int
    attempt: int
    last: int
    text: _Said | None
    reasoning: _Said | None


class _Wanted(NamedTuple):
    """What the closing event says of one step."""

    step: int
    attempt: int
    last: int
    text: str
    reasoning: str


class Shown:
    """The frames that one client has seen.

    Args:
        after_step: The answer begins behind this step; 0 when it has them all.

    Attributes:
        step: The step that is followed.
        attempt: The attempt that is followed; 0 before the first frame.
        last: Number of the last frame shown.
        broken: A frame was lost; no further one is shown.

    """

    __slots__ = ("_earlier", "_first", "_reasoning", "_said_something", "_text", "attempt", "broken", "last", "step")

    def __init__(self, after_step: int = 0) -> None:
        self.step = after_step
        self.attempt = 0
        self.last = 0
        self.broken = False
        self._said_something = False
        self._first: Final = after_step + 1
        self._earlier: tuple[_Told, ...] = ()
        self._text: _Said | None = None
        self._reasoning: _Said | None = None

    def take(self, step: int, attempt: int, frame: Frame) -> tuple[Delta, ...]:
        """Note a frame and return what of it to show; a frame without items is only a sign of life."""
        items = frame.items
        if not items:
            return ()
        if (attempt != self.attempt or step != self.step) and not self._go_on(step, attempt, frame):
            return ()
        if frame.n != self.last + 1:
            self.broken = self.broken or frame.n > self.last
            return ()
        if self.broken:
            return ()
        self.last = frame.n
        for item in items:
            if type(item) is ResultDelta:
                continue
            self._said_something = True
            if type(item) is TextDelta:
                if self._text is None:
                    self._text = _Said()
                self._text.add(item.text)
            elif type(item) is ReasoningDelta:
                if self._reasoning is None:
                    self._reasoning = _Said()
                self._reasoning.add(item.text)
        return items

    def awaits(self, ended: TurnEnded) -> bool:
        """Tell whether frames of the answer that counts may still be on their way."""
        if self.broken or ended.outcome not in ANSWERED:
            return False
        for wanted in _wanted(ended):
            if wanted.step == self.step and self.attempt:
                if wanted.attempt != self.attempt:
                    return False
                if wanted.last > self.last:
                    return True
            elif wanted.step > self.step and wanted.last:
                return True
        return False

    def rest(self, ended: TurnEnded) -> tuple[Rest, ...] | None:
        """Return what completes the text, step by step, or `None` when what was shown is not how it begins."""
        now = (ended.step, ended.attempt, ended.last)
        if self.attempt and not (ended.earlier or self._earlier) and now == (self.step, self.attempt, self.last):
            return ()
        told = {each.step: each for each in self._told()}
        more: list[Rest] = []
        for wanted in _wanted(ended):
            shown = told.pop(wanted.step, None)
            if shown is not None and more:
                # It went on before the step before it was complete.
                return None
            items = _missing(shown, wanted)
            if items is None:
                return None
            if items:
                more.append(Rest(wanted.step, items))
        return None if told else tuple(more)

    def _go_on(self, step: int, attempt: int, frame: Frame) -> bool:
        """Follow a frame's step and attempt, if nothing was lost between them and what was shown."""
        if step == self.step and 0 < self.attempt < attempt and not self._said_something:
            # It died having told what came of earlier calls, which the next one tells again.
            self.attempt, self.last, self.broken = attempt, 0, False
            return True
        if step <= self.step or self.broken:
            return False
        if not self._follows(step, frame):
            self.broken = True
            return False
        self._earlier = tuple(self._told())
        self.step, self.attempt, self.last = step, attempt, 0
        self._said_something = False
        self._text = self._reasoning = None
        return True

    def _follows(self, step: int, frame: Frame) -> bool:
        if step == self._first:
            return True
        after = frame.after
        if after is None:
            return False
        if not self.attempt:
            # A step without a frame has nothing to show.
            return after.step == self._first and not after.n
        return (after.step, after.attempt, after.n) == (self.step, self.attempt, self.last)

    def _told(self) -> Iterator[_Told]:
        yield from self._earlier
        if self.attempt:
            yield _Told(self.step, self.attempt, self.last, self._text, self._reasoning)


def _wanted(ended: TurnEnded) -> Iterator[_Wanted]:
    for each in ended.earlier:
        yield _Wanted(each.step, each.attempt, each.last, each.text, each.reasoning)
    yield _Wanted(ended.step, ended.attempt, ended.last, ended.text, ended.reasoning)


def _missing(shown: _Told | None, wanted: _Wanted) -> tuple[Delta, ...] | None:
    text: str | None = wanted.text
    reasoning: str | None = wanted.reasoning
    if shown is not None:
        if (shown.attempt, shown.last) == (wanted.attempt, wanted.last):
            return ()
        text, reasoning = _rest(shown.text, wanted.text), _rest(shown.reasoning, wanted.reasoning)
    if text is None or reasoning is None:
        return None
    more: list[Delta] = []
    if reasoning:
        more.append(ReasoningDelta(text=reasoning))
    if text:
        more.append(TextDelta(text=text))
    return tuple(more)


def _rest(said: _Said | None, whole: str) -> str | None:
    if said is None:
        return whole
    return whole[said.length :] if said.begins(whole) else None
