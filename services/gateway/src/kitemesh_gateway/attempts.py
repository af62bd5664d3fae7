"""What a client has been shown of a turn, and what may still be shown. Pure.

A client's text is one attempt's, or one attempt's prefix continued exactly where it ended, never a mixture: the first
attempt seen is followed, a gap ends the showing, and the closing event, which has the whole answer, completes it.
"""

from hashlib import blake2b
from typing import Final

from kitemesh_contracts.deltas import CallDelta, Delta, Frame, ReasoningDelta, TextDelta, TurnEnded


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


class Shown:
    """The frames that one client has seen.

    Attributes:
        step: The step that is followed.
        attempt: The attempt that is followed; 0 before its first frame.
        last: Number of the last frame shown.
        broken: A frame was lost; no further one is shown.

    """

    __slots__ = ("_called", "_reasoning", "_text", "attempt", "broken", "last", "step")

    def __init__(self) -> None:
        self.step = 0
        self.attempt = 0
        self.last = 0
        self.broken = False
        self._text: _Said | None = None
        self._reasoning: _Said | None = None
        self._called = False

    def take(self, step: int, attempt: int, frame: Frame) -> tuple[Delta, ...]:
        """Note a frame and return what of it to show; a frame without items is only a sign of life."""
        items = frame.items
        if not items:
            return ()
        if not self.attempt:
            self.step, self.attempt = step, attempt
        elif attempt != self.attempt or step != self.step:
            return ()
        if frame.n != self.last + 1:
            self.broken = self.broken or frame.n > self.last
            return ()
        if self.broken:
            return ()
        self.last = frame.n
        for item in items:
            self._note(item)
        return items

    def awaits(self, ended: TurnEnded) -> bool:
        """Tell whether frames of the answer that counts may still be on their way."""
        if self.broken or ended.outcome != "completed":
            return False
        followed = not self.attempt or (ended.step == self.step and ended.attempt == self.attempt)
        return followed and self.last < ended.last

    def rest(self, ended: TurnEnded) -> tuple[Delta, ...] | None:
        """Return what completes the answer, or `None` when what was shown is not how it begins."""
        if self.attempt and (ended.step, ended.attempt, ended.last) == (self.step, self.attempt, self.last):
            return ()
        text, reasoning = _rest(self._text, ended.text), _rest(self._reasoning, ended.reasoning)
        if text is None or reasoning is None or self._called:
            return None
        more: list[Delta] = []
        if reasoning:
            more.append(ReasoningDelta(text=reasoning))
        if text:
            more.append(TextDelta(text=text))
        for index, call in enumerate(ended.calls):
            more.append(CallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments))
        return tuple(more)

    def _note(self, item: Delta) -> None:
        match item:
            case TextDelta():
                if self._text is None:
                    self._text = _Said()
                self._text.add(item.text)
            case ReasoningDelta():
                if self._reasoning is None:
                    self._reasoning = _Said()
                self._reasoning.add(item.text)
            case CallDelta():
                self._called = True


def _rest(said: _Said | None, whole: str) -> str | None:
    if said is None:
        return whole
    return whole[said.length :] if said.begins(whole) else None
