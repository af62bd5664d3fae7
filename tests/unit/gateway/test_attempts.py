import pytest

from kitemesh_contracts.content import Step, ToolCall
from kitemesh_contracts.deltas import CallDelta, Delta, Frame, ReasoningDelta, ResultDelta, TextDelta, TurnEnded
from kitemesh_gateway.attempts import Shown
from kitemesh_gateway.dialects.base import Rest
from unit.gateway.rig import ended, frame


def more(text: str, step: int = 1) -> tuple[Rest, ...]:
    return (Rest(step, (TextDelta(text=text),)),)


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


@pytest.mark.requirement("attempt:one-is-shown")
def test_an_attempt_that_told_only_results_makes_way_for_the_next_one() -> None:
    shown = Shown()
    results = Frame(n=1, offset=0, items=(ResultDelta(call="c", text="found"),))
    assert shown.take(1, 2, results) == results.items
    assert shown.take(1, 1, frame(1, "x")) == ()
    assert shown.take(1, 3, results) == results.items
    assert shown.take(1, 3, frame(2, "a")) == (TextDelta(text="a"),)
    assert shown.take(1, 4, frame(1, "x")) == ()
    assert shown.rest(ended("ab", attempt=3, last=3)) == more("b")


@pytest.mark.requirement("attempt:gap-stops-the-showing")
def test_a_gap_ends_the_showing_and_the_closing_event_completes_it() -> None:
    shown = Shown()
    shown.take(1, 1, frame(1, "a"))
    assert shown.take(1, 1, frame(3, "c")) == ()
    assert shown.take(1, 1, frame(2, "b")) == ()
    assert shown.broken
    closing = ended("abc", last=3)
    assert not shown.awaits(closing)
    assert shown.rest(closing) == more("bc")


@pytest.mark.requirement("attempt:gap-stops-the-showing")
def test_a_first_frame_that_is_not_the_first_is_a_gap() -> None:
    shown = Shown()
    assert shown.take(1, 1, frame(2, "b")) == ()
    assert shown.rest(ended("ab", last=2)) == more("ab")


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
    assert shown.rest(ended("Hello world", attempt=2, last=4)) == more(" world")
    assert shown.rest(ended("Hello", attempt=2, last=4)) == ()
    assert shown.rest(ended("Hell", attempt=2, last=4)) is None
    assert shown.rest(ended("Goodbye", attempt=2, last=4)) is None


def test_a_stored_answer_of_unknown_attempt_is_sliced_the_same_way() -> None:
    shown = Shown()
    shown.take(1, 1, frame(1, "ab"))
    assert shown.rest(ended("abcd", attempt=0)) == more("cd")


def test_nothing_shown_means_the_whole_text_follows_and_calls_are_the_encoders_business() -> None:
    calls = (ToolCall(id="c", name="f", arguments="{}"),)
    assert Shown().rest(ended("a", reasoning="r", calls=calls)) == (
        Rest(1, (ReasoningDelta(text="r"), TextDelta(text="a"))),
    )


def test_reasoning_is_completed_before_the_text_and_never_mixed() -> None:
    shown = Shown()
    shown.take(1, 1, Frame(n=1, offset=0, items=(ReasoningDelta(text="be"),)))
    rest = (Rest(1, (ReasoningDelta(text="cause"), TextDelta(text="x"))),)
    assert shown.rest(ended("x", reasoning="because", last=3)) == rest
    assert shown.rest(ended("x", reasoning="why", attempt=2)) is None


def test_frames_of_calls_count_as_shown() -> None:
    shown = Shown()
    items = (CallDelta(index=0, id="c", name="f"),)
    assert shown.take(1, 1, Frame(n=1, offset=0, items=items)) == items
    assert shown.take(2, 1, frame(1, "a", after=(1, 1, 1))) == (TextDelta(text="a"),)
    assert shown.rest(closing(("", 1), ("a", 1))) == ()


# Several steps. What is fed: step, attempt, frame. A closing event: each step's text and last frame.

Fed = tuple[int, int, Frame]


def closing(*steps: tuple[str, int] | tuple[str, int, int], first: int = 1) -> TurnEnded:
    """A closing event: for each step its text, its last frame, and its attempt if that is not the first."""
    told = [
        Step(step=number, attempt=(step[2] if len(step) > 2 else 1), last=step[1], text=step[0])
        for number, step in enumerate(steps, start=first)
    ]
    last = told[-1]
    return ended(last.text, step=last.step, attempt=last.attempt, last=last.last, earlier=tuple(told[:-1]))


def show(shown: Shown, *fed: Fed) -> str:
    items: list[Delta] = [item for step, attempt, each in fed for item in shown.take(step, attempt, each)]
    return "".join(item.text for item in items if isinstance(item, TextDelta))


ONE: Fed = (1, 1, frame(1, "a"))
TWO: Fed = (1, 1, frame(2, "b"))
NEXT: Fed = (2, 1, frame(1, "c", after=(1, 1, 2)))
LAST: Fed = (2, 1, frame(2, "d"))
WHOLE = closing(("ab", 2), ("cd", 2))

BOUNDARIES: list[tuple[str, list[Fed], TurnEnded, str, tuple[Rest, ...] | None]] = [
    ("everything arrives", [ONE, TWO, NEXT, LAST], WHOLE, "abcd", ()),
    ("everything arrives twice", [ONE, ONE, TWO, TWO, NEXT, NEXT, LAST, LAST], WHOLE, "abcd", ()),
    ("a late copy of the step before", [ONE, TWO, NEXT, TWO, LAST], WHOLE, "abcd", ()),
    ("nothing arrives", [], WHOLE, "", (*more("ab"), *more("cd", 2))),
    ("the first frame is lost", [TWO, NEXT, LAST], WHOLE, "", (*more("ab"), *more("cd", 2))),
    ("the last of the first step is lost", [ONE, NEXT, LAST], WHOLE, "a", (*more("b"), *more("cd", 2))),
    ("the whole first step is lost", [NEXT, LAST], WHOLE, "", (*more("ab"), *more("cd", 2))),
    ("the first of the second step is lost", [ONE, TWO, LAST], WHOLE, "ab", more("cd", 2)),
    ("the last of all is lost", [ONE, TWO, NEXT], WHOLE, "abc", more("d", 2)),
    ("the whole second step is lost", [ONE, TWO], WHOLE, "ab", more("cd", 2)),
    (
        "a step in the middle is lost",
        [ONE, TWO, (3, 1, frame(1, "e", after=(2, 1, 2)))],
        closing(("ab", 2), ("cd", 2), ("e", 1)),
        "ab",
        (*more("cd", 2), *more("e", 3)),
    ),
    (
        "the step before ended elsewhere: its other attempt counted, and goes on the same way",
        [ONE, (2, 1, frame(1, "c", after=(1, 2, 2)))],
        closing(("ab", 2, 2), ("c", 1)),
        "a",
        (*more("b"), *more("c", 2)),
    ),
    (
        "the step before ended elsewhere: its other attempt counted, and says something else",
        [ONE, (2, 1, frame(1, "c", after=(1, 2, 2)))],
        closing(("xy", 2, 2), ("c", 1)),
        "a",
        None,
    ),
    (
        "a second attempt of the second step is the first seen of it",
        [ONE, TWO, (2, 2, frame(1, "c", after=(1, 1, 2))), (2, 2, frame(2, "d"))],
        closing(("ab", 2), ("cd", 2, 2)),
        "abcd",
        (),
    ),
    (
        "the second step is another attempt's, which goes on the same way",
        [ONE, TWO, NEXT, (2, 2, frame(1, "x", after=(1, 1, 2)))],
        closing(("ab", 2), ("cd", 1, 2)),
        "abc",
        more("d", 2),
    ),
    (
        "the second step is another attempt's, which says something else",
        [ONE, TWO, NEXT],
        closing(("ab", 2), ("xy", 1, 2)),
        "abc",
        None,
    ),
    (
        "a step without a frame is passed over",
        [(2, 1, frame(1, "c", after=(1, 1, 0)))],
        closing(("", 0), ("c", 1)),
        "c",
        (),
    ),
    (
        "a step without a frame does not vouch for the one before it",
        [ONE, (3, 1, frame(1, "c", after=(2, 1, 0)))],
        closing(("ab", 2), ("", 0), ("c", 1)),
        "a",
        (*more("b"), *more("c", 3)),
    ),
    (
        "a step that says nothing of the one before",
        [ONE, (2, 1, frame(1, "c"))],
        closing(("a", 1), ("c", 1)),
        "a",
        more("c", 2),
    ),
    ("more was shown than the answer has", [ONE, TWO, NEXT], closing(("ab", 2)), "abc", None),
    ("an earlier step was shown otherwise", [ONE, TWO, NEXT], closing(("ax", 3), ("c", 1)), "abc", None),
    ("an earlier step has more than was shown", [ONE, TWO, NEXT], closing(("abx", 3), ("c", 1)), "abc", None),
]


@pytest.mark.requirement("attempt:steps-follow-each-other")
@pytest.mark.parametrize(
    ("fed", "whole", "text", "rest"), [case[1:] for case in BOUNDARIES], ids=[case[0] for case in BOUNDARIES]
)
def test_steps_are_shown_in_order_and_completed_step_by_step(
    fed: list[Fed], whole: TurnEnded, text: str, rest: tuple[Rest, ...] | None
) -> None:
    shown = Shown()
    assert show(shown, *fed) == text
    assert shown.rest(whole) == rest


@pytest.mark.requirement("attempt:steps-follow-each-other")
def test_after_a_break_between_steps_nothing_more_is_shown() -> None:
    shown = Shown()
    assert show(shown, ONE, NEXT, TWO, LAST, (3, 1, frame(1, "e", after=(2, 1, 2)))) == "a"
    assert shown.broken


@pytest.mark.parametrize(
    ("fed", "awaited"),
    [
        ([], True),
        ([ONE], True),
        ([ONE, TWO], True),
        ([ONE, TWO, NEXT], True),
        ([ONE, TWO, NEXT, LAST], False),
        ([ONE, NEXT], False),
        ([(1, 2, frame(1, "a"))], False),
        ([ONE, TWO, (2, 2, frame(1, "c", after=(1, 1, 2)))], False),
    ],
)
def test_the_closing_event_waits_for_the_steps_frames_while_they_may_come(fed: list[Fed], awaited: bool) -> None:
    shown = Shown()
    show(shown, *fed)
    assert shown.awaits(WHOLE) is awaited


def test_a_held_turn_waits_for_its_frames_as_well() -> None:
    assert Shown().awaits(ended("a", last=1, outcome="held"))


@pytest.mark.requirement("resume:only-what-follows")
@pytest.mark.parametrize("after", [None, (1, 1, 2), (1, 7, 9)])
def test_an_answer_may_begin_behind_a_step(after: tuple[int, int, int] | None) -> None:
    shown = Shown(after_step=1)
    assert show(shown, ONE, (2, 1, frame(1, "c", after=after)), TWO, LAST) == "cd"
    assert shown.rest(closing(("cd", 2), first=2)) == ()


@pytest.mark.requirement("resume:only-what-follows")
def test_an_answer_that_begins_behind_a_step_follows_the_next_ones_as_any() -> None:
    shown = Shown(after_step=1)
    assert show(shown, NEXT, LAST, (3, 1, frame(1, "e", after=(2, 1, 2)))) == "cde"
    lost = Shown(after_step=1)
    assert show(lost, NEXT, (3, 1, frame(1, "e", after=(2, 1, 2)))) == "c"
    assert lost.rest(closing(("cd", 2), ("e", 1), first=2)) == (*more("d", 2), *more("e", 3))
