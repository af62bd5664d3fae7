"""What a client of a durable turn has been shown, and what of a frame or of a stored step is new to it. Pure.

Every attempt tells its step from the beginning. The newest one heard of is followed, and what it tells again is skipped
as long as it is what was shown; where it is not, nothing more is shown. A client that came back has what its position
says: up to there the encoder is given what the client has, and nothing is sent.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from kitemesh_contracts.content import CallResult, Step
from kitemesh_contracts.deltas import Delta, Frame, ReasoningDelta, TextDelta, TurnEnded
from kitemesh_gateway.attempts import ANSWERED
from kitemesh_gateway.dialects.base import Place, Rest
from kitemesh_gateway.positions import Position
from kitemesh_gateway.retelling import StepTold

ALL: Final = 1 << 30
"""More events than a frame has: the client has every one of them."""


class Piece(NamedTuple):
    """Something to show.

    Attributes:
        seen: How many of its first events the client has already.

    """

    place: Place
    items: tuple[Delta, ...]
    seen: int = 0


Pieces = Sequence[Piece]


class Followed:
    """The part of a durable turn's answer that one client has.

    Args:
        after_step: The answer begins behind this step; 0 when it has them all.
        position: The last event that the client has.

    Attributes:
        step: The step that is followed.
        attempt: The attempt that is followed; 0 before the first frame.
        last: Number of its last frame that was taken.
        broken: Frames were lost, or the attempt tells something else than what was shown; a newer one may help.
        diverged: The answer does not go on where the client is; nothing helps.
        seeks: The position, until what the client has was found again.
        closing: The position, when it is one of the events that close a stream.

    """

    __slots__ = (
        "_first",
        "_is_other",
        "_is_whole",
        "_lost_at",
        "_offset",
        "_past",
        "_told",
        "attempt",
        "broken",
        "closing",
        "diverged",
        "last",
        "seeks",
        "step",
    )

    def __init__(self, after_step: int = 0, position: Position | None = None) -> None:
        if position is not None and position.is_start:
            after_step, position = max(after_step, position.step), None
        self.seeks = position
        self.closing: Position | None = None
        self.step = after_step
        self.attempt = self.last = 0
        self.broken = False
        # The id of a stream that cannot be resumed says nothing of the text, and one may be of another answer.
        self.diverged = position is not None and (position.text is None or position.step <= after_step)
        self._first: Final = after_step + 1
        self._is_whole = True
        self._lost_at: tuple[int, int] | None = None
        self._past: dict[int, StepTold] = {}
        self._told = StepTold()
        self._offset = 0
        self._is_other = False

    def has(self, step: int) -> bool:
        """Tell whether a step was shown to its end, or is not part of this answer."""
        return step < self.step or step < self._first or (step == self.step and self._is_whole)

    def take(self, step: int, attempt: int, frame: Frame) -> Pieces | None:
        """Note a frame and return what of it to show; `None` when something before it must be read again first."""
        items = frame.items
        if not items or self.diverged:
            return ()
        if (attempt != self.attempt or step != self.step) and not self._is_next(step, attempt, frame):
            # What is stored of a step before the one that is sought is complete.
            late = self.has(step) or (step, attempt) <= (self._lost_at or (self.step, self.attempt))
            return () if late or (self.seeks is not None and step < self.seeks.step) else None
        n = frame.n
        if n != self.last + 1 or self._is_whole:
            return () if n <= self.last or self.broken or self._is_whole else None
        if self.broken and not self._is_other:
            # What was given up came after all.
            self.broken, self._lost_at = False, None
        self.last = n
        if self.broken:
            return ()
        if frame.offset != self._offset:
            # Two workers tell this attempt, each in pieces of its own.
            self.broken = self._is_other = True
            return ()
        self._offset += sum(len(item.text) for item in items if type(item) is TextDelta)
        place = Place(step, attempt, n)
        if self.seeks is not None or self._told.is_again:
            return self._take_again(place, items)
        self._told.add(items)
        return (Piece(place, items),)

    def complete(self, stored: Step, results: Sequence[CallResult] = ()) -> Pieces:
        """Note a step that has its whole text and return what of it is still to be shown.

        Args:
            stored: The step.
            results: Of the calls of the step before.

        """
        if self.diverged or self.has(stored.step):
            return ()
        if stored.step != self.step:
            if not self._is_whole:
                self.diverged = True
                return ()
            self._begin(stored.step, stored.attempt)
        sought = self.seeks
        is_told = self.last > 0 and (stored.attempt, stored.last) == (self.attempt, self.last) and self._is_told()
        # The numbers alone would take one worker's text for that of another who had the same attempt.
        is_told = is_told and _is_of(self._told, stored)
        has_all = False
        if sought is not None:
            ended_n = stored.last + 2
            is_closing = (sought.step, sought.attempt) == (stored.step, stored.attempt) and sought.n >= ended_n
            has_all = sought.step > stored.step or is_closing
            if is_closing and sought.n == ended_n:
                self.closing = sought
        pieces = () if is_told and not has_all else self._finish(stored, results, has_all=has_all)
        if sought is not None and sought.step <= stored.step:
            self.seeks = None
        self.attempt, self.last, self._is_whole = stored.attempt, stored.last, True
        self.broken, self._is_other, self._lost_at = False, False, None
        return pieces

    def lose(self, step: int, attempt: int) -> None:
        """Give up what cannot be read again; a later step, or a newer attempt than this one, is taken again."""
        self.broken = True
        self._lost_at = max((step, attempt), (self.step, self.attempt))

    def awaits(self, ended: TurnEnded) -> bool:
        """Tell whether frames of the answer that counts may still be on their way."""
        if self.broken or self.diverged or ended.outcome not in ANSWERED:
            return False
        for wanted in steps_of(ended):
            if self.has(wanted.step):
                continue
            if wanted.step > self.step or wanted.attempt > self.attempt:
                if wanted.last:
                    return True
            elif wanted.attempt < self.attempt:
                return False
            elif wanted.last > self.last:
                return True
        return False

    def rest(self, ended: TurnEnded) -> tuple[Pieces, tuple[Rest, ...]] | None:
        """Return what completes the answer, or `None` when what was shown is not how it begins.

        First what the encoder is to be given in silence, then the text that is to be shown, step by step. Calls and
        results that were not told are the encoder's own business: the closing event has them all.
        """
        if ended.step < self.step or not all(self._was(step) for step in ended.earlier):
            return None
        silent: list[Piece] = []
        rests: list[Rest] = []
        before: Sequence[CallResult] = ()
        for wanted in steps_of(ended):
            for piece in self.complete(wanted, before):
                if piece.seen:
                    silent.append(piece)
                    continue
                texts = tuple(item for item in piece.items if isinstance(item, TextDelta | ReasoningDelta))
                if texts:
                    rests.append(Rest(wanted.step, texts))
            before = wanted.results
        return None if self.diverged or self.seeks is not None else (silent, tuple(rests))

    def seen_of(self, ended: TurnEnded) -> int:
        """Return how many of the events that close this stream the client has already."""
        closing = self.closing
        if closing is None or (closing.step, closing.attempt) != (ended.step, ended.attempt):
            return 0
        return closing.k + 1 if closing.n == ended.last + 2 else 0

    def _is_next(self, step: int, attempt: int, frame: Frame) -> bool:
        """Follow another attempt or step, if it is a newer one and nothing is missing in between."""
        if self._lost_at is not None and (step, attempt) <= self._lost_at:
            return False
        if step == self.step:
            if attempt < self.attempt or self._is_whole:
                return False
            self.attempt, self.last, self._offset = attempt, 0, 0
            self.broken, self._is_other, self._lost_at = False, False, None
            self._told.begin()
            return True
        if step < self.step or not self._goes_on(step, frame):
            return False
        self._begin(step, attempt)
        return True

    def _goes_on(self, step: int, frame: Frame) -> bool:
        """Tell whether nothing is missing between what was shown and a frame of a later step."""
        if frame.n != 1 or (self.seeks is not None and step < self.seeks.step):
            return False
        if step == self._first or (self._is_whole and step == self.step + 1):
            return True
        after = frame.after
        if after is None:
            return False
        if self._is_whole:
            # A step without a frame has nothing to show.
            return after.step == self.step + 1 == step - 1 and not after.n
        is_told = self._is_told() and self.seeks is None
        return is_told and (after.step, after.attempt, after.n) == (self.step, self.attempt, self.last)

    def _begin(self, step: int, attempt: int) -> None:
        if self.step >= self._first:
            self._past[self.step] = self._told
        self.step, self.attempt, self.last, self._offset = step, attempt, 0, 0
        self._is_whole = self.broken = self._is_other = False
        self._lost_at = None
        self._told = StepTold(self.seeks if self.seeks is not None and self.seeks.step == step else None)

    def _is_told(self) -> bool:
        """Tell whether the attempt that is followed has told everything that was shown."""
        return not (self.broken or self._told.is_behind)

    def _take_again(self, place: Place, items: tuple[Delta, ...]) -> Pieces:
        """Take a frame of which the client may have some, or all."""
        sought = self.seeks
        again = self._told.tell(items)
        if again is None:
            # A newer attempt may help a client that is here, but not one whose answer is not the one that it was.
            self.broken, self._is_other, self.diverged = True, True, sought is not None
            return ()
        if sought is not None and (place.step, place.attempt) == (sought.step, sought.attempt):
            if place.n < sought.n and not again.is_new:
                return (Piece(place, items, ALL),)
            if place.n == sought.n and again.is_parted and self._is_told():
                self.seeks = None
                return (Piece(place, items, sought.k + 1),)
        if self._is_told():
            self.seeks = None
        silent = (Piece(place, again.silent, ALL),) if again.silent else ()
        if again.is_whole:
            return (*silent, Piece(place, items))
        # A frame that is shown in part lends its number to none of it: its events are numbered otherwise.
        return (*silent, Piece(place._replace(n=0), again.fresh)) if again.fresh else silent

    def _finish(self, stored: Step, results: Sequence[CallResult], *, has_all: bool) -> Pieces:
        again = self._told.finish(stored, results, has_all=has_all)
        if again is None:
            self.diverged = True
            return ()
        # A number would say that its client has all that the frames before it told, calls and results as well.
        place = Place(stored.step, stored.attempt, 0)
        pieces = (Piece(place, again.silent, ALL), Piece(place, again.fresh))
        return tuple(piece for piece in pieces if piece.items)

    def _was(self, step: Step) -> bool:
        """Tell whether a step that is over was what was shown of it."""
        past = self._past.get(step.step)
        return past is None or _is_of(past, step)


def _is_of(told: StepTold, step: Step) -> bool:
    """Tell whether what was told is the whole text of a step."""
    return told.text.now.is_measure_of(step.text) and told.reasoning.now.is_measure_of(step.reasoning)


def steps_of(ended: TurnEnded) -> Iterator[Step]:
    """Return the steps of an answer, its last one as well."""
    yield from ended.earlier
    yield Step(step=ended.step, attempt=ended.attempt, last=ended.last, text=ended.text, reasoning=ended.reasoning)
