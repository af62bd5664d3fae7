"""A step that is told again, by a newer attempt or to a client that came back: what of it is new."""

from typing import Final
from zlib import crc32

import pytest

from kitemesh_contracts.content import CallResult, Step, ToolCall
from kitemesh_contracts.deltas import CallDelta, Delta, Frame, ReasoningDelta, ResultDelta, TextDelta, result_delta
from kitemesh_gateway.dialects.base import Place, Rest
from kitemesh_gateway.following import ALL, Followed, Pieces
from kitemesh_gateway.positions import Measure, Position
from unit.gateway.rig import ended

NO_ID = CallDelta(index=0, arguments="{}")


def said(text: str) -> TextDelta:
    return TextDelta(text=text)


def thought(text: str) -> ReasoningDelta:
    return ReasoningDelta(text=text)


def call(index: int) -> CallDelta:
    return CallDelta(index=index, id=f"c-{index}", name="look")


def measure(text: str) -> Measure:
    return Measure(len(text), crc32(text.encode()))


class Teller:
    """Tells an attempt after another, and keeps what a client is sent of it."""

    def __init__(self, position: Position | None = None) -> None:
        self.followed = Followed(position=position)
        self.shown: list[Delta] = []
        self._offset = 0

    def tell(self, attempt: int, n: int, *items: Delta) -> Pieces:
        if n == 1:
            self._offset = 0
        pieces = self.followed.take(1, attempt, Frame(n=n, offset=self._offset, items=items))
        assert pieces is not None
        self._offset += sum(len(item.text) for item in items if isinstance(item, TextDelta))
        for piece in pieces:
            self.shown += piece.items[piece.seen :]
        return pieces

    @property
    def text(self) -> str:
        return "".join(item.text for item in self.shown if isinstance(item, TextDelta))

    @property
    def calls(self) -> list[str]:
        return [item.id for item in self.shown if isinstance(item, CallDelta) and item.id]


# Text that is refused


@pytest.mark.requirement("attempt:newest-is-followed")
def test_text_that_was_refused_for_the_reasoning_before_it_is_shown_when_a_later_attempt_tells_it() -> None:
    teller = Teller()
    teller.tell(1, 1, thought("abc"))
    teller.tell(2, 1, thought("ab"))
    teller.tell(2, 2, said("hello"))
    assert (teller.text, teller.followed.broken) == ("", True)
    teller.tell(3, 1, thought("abc"))
    teller.tell(3, 2, said("hello"))
    teller.tell(3, 3, said(" world"))
    assert teller.text == "hello world"
    assert teller.followed.rest(ended("hello world", attempt=3, last=3, reasoning="abc")) == ([], ())


@pytest.mark.requirement("attempt:newest-is-followed")
def test_reasoning_that_was_refused_for_the_text_before_it_follows_at_the_end() -> None:
    teller = Teller()
    teller.tell(1, 1, said("The"))
    teller.tell(2, 1, thought("let me think"))
    teller.tell(2, 2, said("The answer"))
    assert teller.text == "The"
    rest = Rest(1, (thought("let me think"), said(" answer")))
    assert teller.followed.rest(ended("The answer", attempt=2, last=2, reasoning="let me think")) == ([], (rest,))


# Calls


def test_a_call_is_told_once_however_many_attempts_make_it() -> None:
    teller = Teller()
    teller.tell(1, 1, said("a"), call(0), NO_ID)
    teller.tell(2, 1, said("a"), call(0))
    teller.tell(2, 2, NO_ID, call(1))
    teller.tell(3, 1, said("ab"), call(0), call(1), call(2))
    assert (teller.text, teller.calls) == ("ab", ["c-0", "c-1", "c-2"])


def test_a_call_before_text_that_the_client_has_is_not_told_behind_it() -> None:
    teller = Teller()
    teller.tell(1, 1, said("abc"))
    teller.tell(2, 1, said("ab"), call(0))
    assert teller.calls == []
    teller.tell(2, 2, said("cd"), call(1))
    assert (teller.text, teller.calls) == ("abcd", ["c-1"])


@pytest.mark.requirement("resume:by-content")
@pytest.mark.parametrize(("calls", "told"), [(0, ["c-0", "c-1"]), (1, ["c-1"]), (2, []), (None, ["c-0", "c-1"])])
def test_who_comes_back_is_told_the_calls_that_the_position_does_not_have(calls: int | None, told: list[str]) -> None:
    teller = Teller(Position(1, 1, 0, 0, measure("a"), calls=calls))
    pieces = teller.tell(2, 1, said("a"), call(0), NO_ID, call(1))
    assert teller.calls == told
    # The encoder counts what the client has, so that the ids that follow say so, too.
    silent = [item for piece in pieces if piece.seen == ALL for item in piece.items if item != NO_ID]
    assert silent == [said("a"), *(call(index) for index in range(calls or 0))]


@pytest.mark.requirement("resume:exact-while-captured")
def test_the_event_of_a_call_is_a_place_like_any_other() -> None:
    teller = Teller(Position(1, 1, 1, 1, measure("a"), calls=1))
    items = (said("a"), call(0), call(1))
    assert teller.tell(1, 1, *items) == ((Place(1, 1, 1), items, 2),)


# Whole steps, with their calls and what came of the calls before them


STORED: Final = Step(
    step=2,
    attempt=1,
    last=4,
    text="So",
    calls=(ToolCall(id="c-0", name="look", arguments='{"a":1}'), ToolCall(id="c-1", name="look", arguments="{}")),
)
RESULT: Final = CallResult(call="c-9", text="found")


def of_step_2(position: Position | None, *told: Delta) -> tuple[list[Delta], list[Delta]]:
    """Return what an encoder is given in silence, and what is shown, of a stored step of which a frame was told."""
    followed = Followed(1, position)
    if told:
        assert followed.take(2, 1, Frame(n=1, offset=0, items=told)) is not None
    pieces = followed.complete(STORED, (RESULT,))
    silent, fresh = (
        [item for piece in pieces if bool(piece.seen) is seen for item in piece.items] for seen in (True, False)
    )
    return silent, fresh


@pytest.mark.requirement("resume:calls-and-results")
def test_a_stored_step_is_told_with_its_calls_behind_the_results_of_the_calls_before() -> None:
    whole = [CallDelta(index=i, id=c.id, name=c.name, arguments=c.arguments) for i, c in enumerate(STORED.calls)]
    assert of_step_2(None) == ([], [result_delta(RESULT), said("So"), *whole])


@pytest.mark.requirement("resume:calls-and-results")
def test_of_a_call_that_was_begun_here_only_its_arguments_are_told_again() -> None:
    silent, fresh = of_step_2(None, result_delta(RESULT), said("So"), call(0))
    assert silent == [result_delta(RESULT), call(0)]
    rest = CallDelta(index=1, id="c-1", name="look", arguments="{}")
    assert fresh == [CallDelta(index=0, arguments='{"a":1}'), rest]


@pytest.mark.requirement("resume:calls-and-results")
def test_who_came_back_behind_a_call_is_not_told_it_again() -> None:
    silent, fresh = of_step_2(Position(2, -1, 3, 0, measure("So"), calls=1, words="r"))
    assert [type(item) for item in silent] == [ResultDelta, TextDelta, CallDelta]
    assert fresh == [CallDelta(index=1, id="c-1", name="look", arguments="{}")]


@pytest.mark.requirement("resume:calls-and-results")
def test_a_second_attempt_tells_results_in_silence_and_arguments_as_they_come() -> None:
    teller = Teller()
    teller.tell(1, 1, result_delta(RESULT))
    teller.tell(1, 2, call(0), CallDelta(index=0, arguments='{"a'))
    pieces = teller.tell(2, 1, result_delta(RESULT))
    assert [piece.seen for piece in pieces] == [ALL]
    pieces = teller.tell(2, 2, call(0), CallDelta(index=0, arguments='{"a":1}'))
    assert [(piece.items, piece.seen) for piece in pieces] == [
        ((call(0),), ALL),
        ((CallDelta(index=0, arguments='{"a":1}'),), 0),
    ]


# A stream that goes on in another dialect


@pytest.mark.requirement("resume:by-content")
def test_by_content_a_frame_whose_events_are_numbered_otherwise_goes_on_where_the_text_does() -> None:
    position = Position(1, 1, 1, 0, measure("Hello")).by_content()
    teller = Teller(position)
    teller.tell(1, 1, call(0), said("Hello"))
    teller.tell(1, 2, said(" world"))
    assert (teller.text, teller.calls) == (" world", [])


@pytest.mark.requirement("resume:position-at-the-end")
def test_by_content_nothing_of_what_closes_a_stream_was_seen() -> None:
    closing = ended("Hello", last=1)
    position = Position(1, 1, 3, 1, measure("Hello"))
    stored = Step(step=1, attempt=1, last=1, text="Hello")
    for place, seen in ((position, 2), (position.by_content(), 0)):
        teller = Teller(place)
        teller.tell(1, 1, said("Hello"))
        teller.followed.complete(stored)
        assert teller.text == ""
        completed = teller.followed.rest(closing)
        assert completed is not None
        assert (completed[1], teller.followed.seen_of(closing)) == ((), seen)
