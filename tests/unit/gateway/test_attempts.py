import pytest

from kitemesh_contracts.content import ToolCall
from kitemesh_contracts.deltas import CallDelta, Frame, ReasoningDelta, TextDelta
from kitemesh_gateway.attempts import Shown
from unit.gateway.rig import ended, frame


@pytest.mark.requirement("attempt:one-is-shown")
def test_frames_of_one_attempt_are_shown_in_order_and_once() -> None:
    shown = Shown()
    assert shown.take(1, 1, frame(1, "a")) == (TextDelta(text="a"),)
    assert shown.take(1, 1, frame(1, "a")) == ()
    assert shown.take(1, 1, frame(2, "b", "c")) == (TextDelta(text="b"), TextDelta(text="c"))
    assert shown.last == 2
    assert shown.rest(ended("abc", last=2)) == ()


def test_a_frame_without_items_is_only_a_sign_of_life() -> None:
    shown = Shown()
    assert shown.take(1, 1, frame(0)) == ()
    assert shown.take(1, 2, frame(1, "a")) == (TextDelta(text="a"),)
    assert shown.take(1, 2, frame(1)) == ()
    assert shown.take(1, 2, frame(2, "b")) == (TextDelta(text="b"),)


@pytest.mark.requirement("attempt:one-is-shown")
def test_the_first_attempt_seen_is_the_one_that_is_followed() -> None:
    shown = Shown()
    shown.take(1, 2, frame(1, "a"))
    assert shown.take(1, 3, frame(1, "x")) == ()
    assert shown.take(1, 1, frame(1, "y")) == ()
    assert shown.take(1, 2, frame(2, "b")) == (TextDelta(text="b"),)


@pytest.mark.requirement("attempt:gap-stops-the-showing")
def test_a_gap_ends_the_showing_and_the_closing_event_completes_it() -> None:
    shown = Shown()
    shown.take(1, 1, frame(1, "a"))
    assert shown.take(1, 1, frame(3, "c")) == ()
    assert shown.take(1, 1, frame(2, "b")) == ()
    assert shown.broken
    closing = ended("abc", last=3)
    assert not shown.awaits(closing)
    assert shown.rest(closing) == (TextDelta(text="bc"),)


@pytest.mark.requirement("attempt:gap-stops-the-showing")
def test_a_first_frame_that_is_not_the_first_is_a_gap() -> None:
    shown = Shown()
    assert shown.take(1, 1, frame(2, "b")) == ()
    assert shown.rest(ended("ab", last=2)) == (TextDelta(text="ab"),)


def test_the_closing_event_waits_only_for_frames_that_count() -> None:
    shown = Shown()
    assert shown.awaits(ended("ab", last=2))
    shown.take(1, 1, frame(1, "a"))
    assert shown.awaits(ended("ab", last=2))
    assert not shown.awaits(ended("ab", last=1))
    assert not shown.awaits(ended("xy", attempt=2, last=5))
    assert not shown.awaits(ended("", last=5, outcome="failed"))


@pytest.mark.requirement("attempt:only-a-prefix-is-continued")
def test_another_attempts_answer_follows_only_where_it_begins_with_what_was_shown() -> None:
    shown = Shown()
    shown.take(1, 1, frame(1, "Hello"))
    assert shown.rest(ended("Hello world", attempt=2, last=4)) == (TextDelta(text=" world"),)
    assert shown.rest(ended("Hello", attempt=2, last=4)) == ()
    assert shown.rest(ended("Hell", attempt=2, last=4)) is None
    assert shown.rest(ended("Goodbye", attempt=2, last=4)) is None


def test_a_stored_answer_of_unknown_attempt_is_sliced_the_same_way() -> None:
    shown = Shown()
    shown.take(1, 1, frame(1, "ab"))
    assert shown.rest(ended("abcd", attempt=0)) == (TextDelta(text="cd"),)


def test_nothing_shown_means_the_whole_answer_follows() -> None:
    calls = (ToolCall(id="c", name="f", arguments="{}"),)
    assert Shown().rest(ended("a", reasoning="r", calls=calls)) == (
        ReasoningDelta(text="r"),
        TextDelta(text="a"),
        CallDelta(index=0, id="c", name="f", arguments="{}"),
    )


def test_reasoning_is_completed_before_the_text_and_never_mixed() -> None:
    shown = Shown()
    shown.take(1, 1, Frame(n=1, offset=0, items=(ReasoningDelta(text="be"),)))
    assert shown.rest(ended("x", reasoning="because", last=3)) == (ReasoningDelta(text="cause"), TextDelta(text="x"))
    assert shown.rest(ended("x", reasoning="why", attempt=2)) is None


def test_a_tool_call_shown_in_part_cannot_be_completed_after_a_gap() -> None:
    shown = Shown()
    shown.take(1, 1, Frame(n=1, offset=0, items=(CallDelta(index=0, id="c", name="f"),)))
    assert shown.rest(ended("", last=1)) == ()
    assert shown.rest(ended("", last=2)) is None
