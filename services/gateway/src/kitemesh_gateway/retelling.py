"""A step that may be told again, by a newer attempt or to a client that came back: what of it is new. Pure.

Only measures of its texts are kept, so a long answer is not kept a second time.
"""

from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

from kitemesh_contracts.content import CallResult, Step
from kitemesh_contracts.deltas import CallDelta, Delta, ReasoningDelta, ResultDelta, TextDelta, result_delta
from kitemesh_gateway.positions import NOTHING, Measure, Position


class Said:
    """A text that grows, as a measure."""

    __slots__ = ("crc", "length")

    def __init__(self, measure: Measure = NOTHING) -> None:
        self.length, self.crc = measure

    def add(self, text: str) -> None:
        """Take more of the text."""
        self.length += len(text)
        self.crc = crc32(text.encode(), self.crc)

    def is_measure_of(self, text: str) -> bool:
        """Tell whether that is the text."""
        return self.length == len(text) and self.crc == crc32(text.encode())


class Told:
    """How much of a text the client has, the encoder was given, and the attempt that is followed has told.

    Attributes:
        shown: What the client has.
        fed: What the encoder was given: less than `shown` only until a client that came back is where it was.
        now: What the attempt has told: less than `shown` while it tells again. All three are one object as long as
            they agree.

    """

    __slots__ = ("fed", "now", "shown")

    def __init__(self, shown: Measure = NOTHING) -> None:
        self.now: Said = Said()
        self.shown = Said(shown) if shown.length else self.now
        self.fed = Said() if shown.length else self.now

    @property
    def is_behind(self) -> bool:
        """Whether the attempt has told less than the client has."""
        return self.now is not self.shown

    def expect(self, text: str) -> None:
        """Take it that the client has that text and no more."""
        if text:
            self.shown = Said(Measure(len(text), crc32(text.encode())))

    def begin(self) -> None:
        """Begin to be told the text from its first character."""
        self.now = Said() if self.shown.length else self.shown

    def tell(self, text: str) -> tuple[str, str] | None:
        """Take more of the text; return what of it the encoder is to be given in silence, and what is to be shown.

        `None` when the text is not the one that was shown.
        """
        now, fed, shown = self.now, self.fed, self.shown
        if now is shown:
            now.add(text)
            return "", text
        begin = now.length
        for mark in (fed, shown):
            if now.length < mark.length <= begin + len(text):
                now.add(text[now.length - begin : mark.length - begin])
                if now.crc != mark.crc:
                    return None
        now.add(text[now.length - begin :])
        known = max(shown.length - begin, 0)
        silent, fresh = text[max(fed.length - begin, 0) : known], text[known:]
        if now.length >= shown.length:
            self.fed = self.shown = now
        elif now.length > fed.length:
            self.fed = Said(Measure(now.length, now.crc))
        return silent, fresh


class Again(NamedTuple):
    """A frame, or a whole step, of which the client has some.

    Attributes:
        silent: What the encoder is to be given.
        fresh: What is to be shown.
        is_new: Some of it is text that the client does not have.
        is_whole: All of it is to be shown.
        is_parted: What the client has of it are whole items, the first ones.

    """

    silent: tuple[Delta, ...]
    fresh: tuple[Delta, ...]
    is_new: bool = False
    is_whole: bool = False
    is_parted: bool = False


class StepTold:
    """What of one step was told.

    Args:
        position: What a client that came back has of it; `None` when that is nothing.

    Attributes:
        text: The answer.
        reasoning: The reasoning.

    """

    __slots__ = ("_begun", "_calls_had", "_calls_now", "_calls_shown", "reasoning", "text")

    def __init__(self, position: Position | None = None) -> None:
        self.text = Told(NOTHING if position is None else position.text or NOTHING)
        self.reasoning = Told(NOTHING if position is None else position.reasoning)
        self._calls_had = self._calls_shown = 0 if position is None else position.calls or 0
        self._calls_now = 0
        self._begun = bool(self._calls_had or self.text.shown.length or self.reasoning.shown.length)

    @property
    def is_behind(self) -> bool:
        """Whether the attempt that is followed has told less than the client has."""
        return self.text.is_behind or self.reasoning.is_behind

    @property
    def is_again(self) -> bool:
        """Whether the client may have some of what the attempt tells next."""
        # The arguments of the last call that it has are still to come when that call has been named.
        is_call = self._calls_now < self._calls_shown or 0 < self._calls_now <= self._calls_had
        return is_call or self.text.is_behind or self.reasoning.is_behind

    def begin(self) -> None:
        """Begin to be told the step by another attempt."""
        self.text.begin()
        self.reasoning.begin()
        self._calls_now = 0

    def add(self, items: Sequence[Delta]) -> None:
        """Take a frame all of which is new."""
        self._begun = True
        for item in items:
            if type(item) is TextDelta:
                self.text.now.add(item.text)
            elif type(item) is ReasoningDelta:
                self.reasoning.now.add(item.text)
            elif type(item) is CallDelta and item.id:
                self._calls_now = self._calls_shown = max(self._calls_shown, item.index + 1)

    def tell(self, items: Sequence[Delta]) -> Again | None:
        """Take a frame and tell apart what the client has of it; `None` when it is not what was shown."""
        silent: list[Delta] = []
        fresh: list[Delta] = []
        is_new, is_whole, is_parted = False, True, True
        for item in items:
            if isinstance(item, CallDelta):
                if not item.id:
                    # Of a call that was told here, an encoder tells only what it has not told.
                    is_had = item.index < self._calls_had
                    is_whole = is_whole and not is_had
                    (silent if is_had else fresh).append(item)
                elif self._tell_call(item.index):
                    fresh.append(item)
                else:
                    is_whole = False
                    # Told here or there: the encoder is to know of it, and nobody is told it twice.
                    silent += (item,) if item.index < self._calls_shown else ()
                continue
            if isinstance(item, ResultDelta):
                (silent if self._begun else fresh).append(item)
                is_whole = is_whole and not self._begun
                continue
            is_text = isinstance(item, TextDelta)
            mine, other = (self.text, self.reasoning) if is_text else (self.reasoning, self.text)
            if other.is_behind and mine.now.length + len(item.text) > mine.shown.length:
                # Asked before it is told: what is not shown must not count as shown.
                return None
            parts = mine.tell(item.text)
            if parts is None:
                return None
            known, new = parts
            kind = type(item)
            if known:
                silent.append(kind(text=known))
            is_new = is_new or bool(new)
            if new == item.text:
                if new:
                    fresh.append(item)
                continue
            is_whole = False
            is_parted = is_parted and not (new or fresh)
            if new:
                fresh.append(kind(text=new))
        return Again(tuple(silent), tuple(fresh), is_new, is_whole and bool(fresh), is_parted)

    def _tell_call(self, index: int) -> bool:
        """Note that the attempt makes a call; tell whether to show it: not before the text that the client has."""
        self._calls_now = max(self._calls_now, index + 1)
        if index < self._calls_shown or self.is_behind:
            return False
        self._calls_shown = self._calls_now
        return True

    def finish(self, stored: Step, results: Sequence[CallResult] = (), *, has_all: bool) -> Again | None:
        """Take the whole step; `None` when what was shown is not how it begins.

        Args:
            stored: The step.
            results: Of the calls of the step before, which are told in front of it.
            has_all: The client is known to have it all.

        """
        told_before = [result_delta(result) for result in results]
        silent: list[Delta] = [*told_before] if has_all or self._begun else []
        fresh: list[Delta] = [] if has_all or self._begun else [*told_before]
        whole: tuple[tuple[Told, type[ReasoningDelta | TextDelta], str], ...] = (
            (self.reasoning, ReasoningDelta, stored.reasoning),
            (self.text, TextDelta, stored.text),
        )
        for told, kind, text in whole:
            if has_all:
                told.expect(text)
            told.begin()
            parts = told.tell(text)
            if parts is None or told.is_behind:
                return None
            known, new = parts
            if known:
                silent.append(kind(text=known))
            if new:
                fresh.append(kind(text=new))
        for index, call in enumerate(stored.calls):
            whole_call = CallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments)
            if has_all or index < self._calls_had:
                silent.append(whole_call)
            elif index < self._calls_shown:
                silent.append(CallDelta(index=index, id=call.id, name=call.name))
                fresh.append(CallDelta(index=index, arguments=call.arguments))
            else:
                fresh.append(whole_call)
        return Again(tuple(silent), tuple(fresh))
