"""What a client of a durable turn is shown, whatever it had before and whichever attempt tells it."""

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise, product
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitemesh_contracts.content import Step
from kitemesh_contracts.deltas import CallDelta, Delta, Frame, ReasoningDelta, TextDelta, TurnEnded
from kitemesh_gateway.dialects.base import Place, Rest
from kitemesh_gateway.following import ALL, Followed, Pieces
from kitemesh_gateway.positions import Measure, Position
from unit.gateway.rig import ended, frame

Fed = tuple[int, int, Frame]


def measure(text: str) -> Measure:
    return Measure(len(text), crc32(text.encode()))


def at(step: int, attempt: int, n: int, k: int, text: str, *, reasoning: str = "") -> Position:
    return Position(step, attempt, n, k, measure(text), measure(reasoning))


class Client:
    """What a client has, as the pieces say; it counts one event for each item."""

    def __init__(self, has: str = "") -> None:
        self.text = has
        self.fed = ""
        self.thoughts = ""
        self.places: list[Place] = []

    def see(self, pieces: Pieces | None) -> "Client":
        assert pieces is not None
        for place, items, seen in pieces:
            for k, item in enumerate(items):
                if isinstance(item, TextDelta):
                    self.fed += item.text
                    if k >= seen:
                        self.text += item.text
                elif isinstance(item, ReasoningDelta) and k >= seen:
                    self.thoughts += item.text
            if seen < len(items):
                self.places.append(place)
        return self


def take(followed: Followed, client: Client, *fed: Fed) -> list[bool]:
    """Feed frames; tell for each whether something before it was missed."""
    missed = []
    for step, attempt, each in fed:
        pieces = followed.take(step, attempt, each)
        missed.append(pieces is None)
        if pieces is not None:
            client.see(pieces)
    return missed


def frames(
    *texts: str, attempt: int = 1, step: int = 1, first: int = 1, after: tuple[int, int, int] | None = None
) -> list[Fed]:
    offsets = accumulate((len(text) for text in texts), initial=first - 1)
    return [
        (step, attempt, frame(n, text, offset=offset, after=after if n == 1 else None))
        for n, (text, offset) in enumerate(zip(texts, offsets, strict=False), start=first)
    ]


def stored(text: str, *, step: int = 1, attempt: int = 1, last: int = 0, reasoning: str = "") -> Step:
    return Step(step=step, attempt=attempt, last=last, text=text, reasoning=reasoning)


def rest_of(followed: Followed, closing: TurnEnded) -> tuple[Rest, ...] | None:
    completed = followed.rest(closing)
    return None if completed is None else completed[1]


# One attempt


def test_frames_are_shown_in_order_and_once_under_their_own_place() -> None:
    followed, client = Followed(), Client()
    one, two = frames("a", "b")
    assert take(followed, client, one, one, two, one, two) == [False] * 5
    assert client.text == "ab"
    assert client.places == [Place(1, 1, 1), Place(1, 1, 2)]
    assert rest_of(followed, ended("ab", last=2)) == ()


def test_a_sign_of_life_shows_nothing() -> None:
    assert Followed().take(1, 3, frame(9)) == ()


@pytest.mark.requirement("resume:gap-is-read-again")
def test_a_gap_is_said_and_changes_nothing() -> None:
    followed, client = Followed(), Client()
    one, two, three = frames("a", "b", "c")
    assert take(followed, client, one, three, three, two, three) == [False, True, True, False, False]
    assert client.text == "abc"


@pytest.mark.requirement("resume:gap-is-read-again")
def test_what_cannot_be_read_again_ends_the_showing_and_the_closing_event_completes_it() -> None:
    followed, client = Followed(), Client()
    one, _, three, four = frames("a", "b", "c", "d")
    assert take(followed, client, one, three) == [False, True]
    followed.lose(1, 1)
    assert take(followed, client, three, four) == [False, False]
    assert not followed.awaits(ended("abcd", last=4))
    assert rest_of(followed, ended("abcd", last=4)) == (Rest(1, (TextDelta(text="bcd"),)),)


@pytest.mark.requirement("resume:gap-is-read-again")
def test_what_was_given_up_and_comes_after_all_is_shown() -> None:
    followed, client = Followed(), Client()
    one, two, three, four = frames("a", "b", "c", "d")
    take(followed, client, one, three)
    followed.lose(1, 1)
    assert take(followed, client, two, four) == [False, True]
    assert (client.text, followed.broken) == ("ab", False)
    other = Followed()
    take(other, client, one, *frames("x", attempt=2))
    other.lose(2, 1)
    assert take(other, Client(), (1, 2, frame(2, "y"))) == [False]
    assert other.broken


# Several attempts


@pytest.mark.requirement("attempt:newest-is-followed")
def test_a_newer_attempt_is_followed_from_where_the_client_is() -> None:
    followed, client = Followed(), Client()
    take(followed, client, *frames("Hel", "lo"))
    assert take(followed, client, *frames("He", "llo w", "orld", attempt=2), *frames("xx", first=3)) == [False] * 4
    assert client.text == "Hello world"
    # The frame of which only a part was shown lends its number to none of it.
    assert client.places[2:] == [Place(1, 2, 0), Place(1, 2, 3)]
    assert rest_of(followed, ended("Hello world", attempt=2, last=3)) == ()


@pytest.mark.requirement("attempt:newest-is-followed")
@pytest.mark.parametrize("texts", [("Good", "bye"), ("Hex", "lo"), ("H", "e", "x", "p")])
def test_a_newer_attempt_that_tells_something_else_is_not_shown(texts: Sequence[str]) -> None:
    followed, client = Followed(), Client()
    take(followed, client, *frames("Hel"))
    assert not any(take(followed, client, *frames(*texts, attempt=2)))
    assert (client.text, followed.broken) == ("Hel", True)
    assert rest_of(followed, ended("".join(texts), attempt=2, last=len(texts))) is None


@pytest.mark.requirement("attempt:newest-is-followed")
def test_an_attempt_after_one_that_told_something_else_is_followed_again() -> None:
    followed, client = Followed(), Client()
    take(followed, client, *frames("Hel"), *frames("Good", attempt=2), *frames("Hello", attempt=3))
    assert (client.text, followed.broken) == ("Hello", False)


def test_an_attempt_that_ends_before_it_told_what_was_shown_is_another_answer() -> None:
    followed, client = Followed(), Client()
    take(followed, client, *frames("Hello"), *frames("Hel", attempt=2))
    assert rest_of(followed, ended("Hel", attempt=2, last=1)) is None


BY_ONE, BY_ANOTHER = ("The ", "brown ", "fox jumps"), ("The brown ", "fox ", "jumps")


@pytest.mark.requirement("attempt:only-a-prefix-is-continued")
@pytest.mark.parametrize("chosen", list(product((True, False), repeat=3)))
@pytest.mark.parametrize("text", ["The brown fox jumps", "The brown fox sleeps"])
def test_one_attempt_that_two_workers_cut_differently_is_never_shown_as_a_mixture(
    chosen: Sequence[bool], text: str
) -> None:
    followed, client = Followed(), Client()
    mine, others = frames(*BY_ONE), frames(*BY_ANOTHER)
    heard = [mine[n] if is_mine else others[n] for n, is_mine in enumerate(chosen)]
    take(followed, client, *heard, *mine, *others)
    assert "The brown fox jumps".startswith(client.text)
    rest = rest_of(followed, ended(text, last=3))
    assert (rest is None) is not text.startswith(client.text)
    if rest is not None:
        assert (
            client.text + "".join(item.text for _, items in rest for item in items if isinstance(item, TextDelta))
            == text
        )


@pytest.mark.requirement("attempt:only-a-prefix-is-continued")
def test_reasoning_that_two_workers_cut_differently_is_found_out_at_the_end() -> None:
    followed = Followed()
    for n, text in enumerate(("hm ", "so ", "it is"), start=1):
        followed.take(1, 1, Frame(n=n, offset=0, items=(ReasoningDelta(text=text),)))
    closing = ended("", last=3, reasoning="hm so so it is")
    assert rest_of(followed, closing) is None


@pytest.mark.parametrize("has", ["The ", "The brown "])
def test_nor_is_it_to_a_client_that_came_back(has: str) -> None:
    for heard in ((0, 1), (1, 0)):
        cuts = frames(*BY_ONE), frames(*BY_ANOTHER)
        followed, client = Followed(position=at(1, 1, 1, 0, has)), Client(has)
        take(followed, client, *(cuts[which][n] for n, which in enumerate(heard)), *cuts[0], *cuts[1])
        assert "The brown fox jumps".startswith(client.text)


def test_reasoning_and_text_are_told_again_each_for_itself() -> None:
    followed, client = Followed(), Client()
    thought = Frame(n=1, offset=0, items=(ReasoningDelta(text="hm "), TextDelta(text="a")))
    again = Frame(n=1, offset=0, items=(ReasoningDelta(text="hm "), TextDelta(text="a"), TextDelta(text="b")))
    take(followed, client, (1, 1, thought), (1, 2, again))
    assert (client.thoughts, client.text) == ("hm ", "ab")


@pytest.mark.parametrize(
    "items",
    [
        (ReasoningDelta(text="hm"), TextDelta(text="ab")),
        (ReasoningDelta(text="hm so"), TextDelta(text="ab")),
        (TextDelta(text="ab"),),
    ],
)
def test_other_reasoning_before_the_same_text_is_another_answer(items: tuple[Delta, ...]) -> None:
    followed, client = Followed(), Client()
    thought = Frame(n=1, offset=0, items=(ReasoningDelta(text="hm "), TextDelta(text="a")))
    take(followed, client, (1, 1, thought), (1, 2, Frame(n=1, offset=0, items=items)))
    assert (client.thoughts, client.text, followed.broken) == ("hm ", "a", True)


def test_calls_that_were_told_are_not_told_again() -> None:
    followed = Followed()
    call = Frame(n=1, offset=0, items=(TextDelta(text="a"), CallDelta(index=0, id="c", name="f")))
    followed.take(1, 1, call)
    again = followed.take(1, 2, call)
    assert again is not None
    assert {piece.seen for piece in again} <= {ALL}
    # No dialect shows arguments by themselves.
    more = followed.take(1, 2, Frame(n=2, offset=1, items=(CallDelta(index=0, arguments="{}"),)))
    assert more is not None
    assert {item.id for piece in more for item in piece.items if isinstance(item, CallDelta)} == {""}
    fresh = Followed()
    fresh.take(1, 1, frame(1, "a"))
    pieces = fresh.take(1, 2, call)
    assert pieces is not None
    assert [piece.items for piece in pieces] == [call.items[1:]]


@pytest.mark.requirement("attempt:newest-is-followed")
@given(st.text(min_size=1, max_size=30), st.data())
def test_however_an_answer_is_told_again_a_client_has_each_character_once(text: str, data: st.DataObject) -> None:
    followed, client = Followed(), Client()
    for attempt in range(1, 5):
        told = text[: data.draw(st.integers(1, len(text)))] if attempt < 4 else text
        take(followed, client, *frames(*pieces_of(told, data), attempt=attempt))
        assert text.startswith(client.text)
    assert client.text == client.fed == text


def pieces_of(text: str, data: st.DataObject) -> list[str]:
    cuts = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text)), max_size=5))})
    return [text[begin:end] for begin, end in pairwise(cuts)]


# Several steps


def test_a_step_follows_the_one_before_it_and_else_something_was_missed() -> None:
    followed, client = Followed(), Client()
    take(followed, client, *frames("a", "b"))
    assert take(followed, client, *frames("x", step=2, after=(1, 1, 3))) == [True]
    assert take(followed, client, *frames("x", step=2, after=(1, 2, 2))) == [True]
    assert take(followed, client, *frames("x", step=2)) == [True]
    assert take(followed, client, *frames("c", "d", step=2, after=(1, 1, 2))) == [False, False]
    assert take(followed, client, *frames("late", first=3)) == [False]
    assert client.text == "abcd"
    whole = ended("cd", step=2, last=2, earlier=(stored("ab", last=2),))
    assert rest_of(followed, whole) == ()


def test_a_first_step_without_a_frame_has_nothing_to_show() -> None:
    followed, client = Followed(), Client()
    assert take(followed, client, *frames("c", step=2, after=(1, 1, 0))) == [False]
    assert client.text == "c"


@pytest.mark.requirement("resume:gap-is-read-again")
def test_a_stored_step_completes_what_was_missed_of_it_and_the_next_one_follows() -> None:
    followed, client = Followed(), Client()
    take(followed, client, *frames("a"))
    client.see(followed.complete(stored("abc", last=3)))
    assert take(followed, client, *frames("b", first=2), *frames("d", step=2, after=(1, 1, 3))) == [False, False]
    assert (client.text, client.places[1]) == ("abcd", Place(1, 1, 0))
    assert followed.complete(stored("abc", last=3)) == ()
    whole = ended("d", step=2, last=1, earlier=(stored("abc", last=3),))
    assert rest_of(followed, whole) == ()


def test_a_stored_step_of_another_attempt_goes_on_only_if_it_begins_with_what_was_shown() -> None:
    followed, client = Followed(), Client()
    take(followed, client, *frames("ab"))
    assert client.see(followed.complete(stored("abc", attempt=3, last=9))).text == "abc"
    other = Followed()
    take(other, Client(), *frames("ab"))
    assert other.complete(stored("xyz", attempt=2, last=2)) == ()
    assert other.diverged
    assert rest_of(other, ended("xyz", attempt=2, last=2)) is None


def test_steps_without_text_are_passed_over() -> None:
    followed, client = Followed(), Client()
    client.see(followed.complete(stored("", last=1)))
    client.see(followed.complete(stored("", step=2)))
    assert take(followed, client, *frames("c", step=3)) == [False]
    assert client.text == "c"


@pytest.mark.requirement("attempt:only-a-prefix-is-continued")
def test_an_earlier_step_that_ended_otherwise_is_no_answer() -> None:
    followed, client = Followed(), Client()
    take(followed, client, *frames("ab"), *frames("c", step=2, after=(1, 1, 1)))
    assert rest_of(followed, ended("c", step=2, last=1, earlier=(stored("ax", attempt=2, last=1),))) is None
    again = Followed()
    take(again, client, *frames("ab"), *frames("c", step=2, after=(1, 1, 1)))
    assert rest_of(again, ended("c", step=2, last=1, earlier=(stored("ab", attempt=2, last=9),))) == ()
    assert rest_of(again, ended("ab", last=1)) is None


def test_an_answer_may_begin_behind_a_step() -> None:
    followed, client = Followed(after_step=1), Client()
    assert take(followed, client, *frames("a"), *frames("c", step=2, after=(1, 7, 9))) == [False, False]
    assert followed.complete(stored("whatever", last=4)) == ()
    assert client.text == "c"
    assert rest_of(followed, ended("cd", step=2, last=2)) == (Rest(2, (TextDelta(text="d"),)),)


@pytest.mark.parametrize(
    ("fed", "awaited"),
    [
        ([], True),
        (frames("a"), True),
        (frames("a", "b"), True),
        ([*frames("a", "b"), *frames("c", step=2, after=(1, 1, 2))], True),
        ([*frames("a", "b"), *frames("c", "d", step=2, after=(1, 1, 2))], False),
        ([*frames("a", "b"), *frames("c", step=2, attempt=2, after=(1, 1, 2))], False),
    ],
)
def test_the_closing_event_waits_for_frames_that_may_come(fed: list[Fed], awaited: bool) -> None:
    followed = Followed()
    take(followed, Client(), *fed)
    assert followed.awaits(ended("cd", step=2, last=2, earlier=(stored("ab", last=2),))) is awaited


def test_the_closing_event_waits_for_the_attempt_that_counts() -> None:
    followed = Followed()
    take(followed, Client(), *frames("a"))
    assert followed.awaits(ended("ab", attempt=2, last=2))
    assert not followed.awaits(ended("ab", attempt=2, last=2, outcome="failed"))


# A client that comes back

TEXTS = ("One ", "two ", "three ", "four.")
WHOLE = "".join(TEXTS)


@pytest.mark.requirement("resume:exact-while-captured")
@pytest.mark.parametrize("n", range(1, 5))
def test_behind_a_captured_frame_the_next_ones_follow_under_their_own_places(n: int) -> None:
    has = "".join(TEXTS[:n])
    followed, client = Followed(position=at(1, 1, n, 0, has)), Client(has)
    assert not any(take(followed, client, *frames(*TEXTS)))
    assert (client.text, client.fed) == (WHOLE, WHOLE)
    assert client.places == [Place(1, 1, later) for later in range(n + 1, 5)]
    assert followed.seeks is None
    assert rest_of(followed, ended(WHOLE, last=4)) == ()


@pytest.mark.requirement("resume:exact-while-captured")
def test_within_a_frame_the_events_that_the_client_has_are_left_out() -> None:
    items = (ReasoningDelta(text="hm"), TextDelta(text="a"), TextDelta(text="b"))
    both = Frame(n=2, offset=1, items=items)
    followed = Followed(position=at(1, 1, 2, 1, "xa", reasoning="hm"))
    first = followed.take(1, 1, frame(1, "x"))
    assert first is not None
    assert [piece.seen for piece in first] == [ALL]
    assert followed.take(1, 1, both) == ((Place(1, 1, 2), items, 2),)


@pytest.mark.requirement("resume:exact-while-captured")
def test_events_of_calls_behind_the_text_are_left_out_as_well() -> None:
    call = (CallDelta(index=0, id="c", name="f"),)
    followed = Followed(position=at(1, 1, 2, 0, "a"))
    pieces = [followed.take(1, 1, frame(1, "a")), followed.take(1, 1, Frame(n=2, offset=1, items=call))]
    assert [piece.seen for each in pieces if each for piece in each] == [ALL, 1]
    assert followed.take(1, 1, Frame(n=3, offset=1, items=call)) == ((Place(1, 1, 3), call, 0),)


@pytest.mark.requirement("resume:by-content")
@pytest.mark.parametrize("has", ["", "One", "One ", "One two th", WHOLE])
@pytest.mark.parametrize(("attempt", "n"), [(1, 0), (1, 99), (3, 2)])
def test_where_the_frame_is_not_kept_the_text_says_what_follows(has: str, attempt: int, n: int) -> None:
    position = at(1, attempt, n, 0, has)
    followed, client = Followed(position=position), Client(has)
    assert not any(take(followed, client, *frames(*TEXTS, attempt=4)))
    assert (client.text, client.fed, followed.diverged) == (WHOLE, WHOLE, False)
    kept = Followed(position=position)
    client = Client(has).see(kept.complete(stored(WHOLE, attempt=4, last=4)))
    assert (client.text, client.fed, kept.diverged) == (WHOLE, WHOLE, False)
    closed = Followed(position=position)
    completed = closed.rest(ended(WHOLE, attempt=4, last=4))
    assert completed is not None
    shown = "".join(item.text for _, items in completed[1] for item in items if isinstance(item, TextDelta))
    assert has + shown == WHOLE


@pytest.mark.requirement("resume:gap-is-an-error")
@pytest.mark.parametrize("has", ["Two", "One two three four. Five", "One  two"])
def test_a_client_that_has_something_else_is_not_shown_anything(has: str) -> None:
    position = at(1, 1, 0, 0, has)
    followed, client = Followed(position=position), Client()
    take(followed, client, *frames(*TEXTS))
    assert client.text == ""
    assert rest_of(followed, ended(WHOLE, last=4)) is None
    kept = Followed(position=position)
    assert kept.complete(stored(WHOLE, last=4)) == ()
    assert kept.diverged


@pytest.mark.requirement("resume:gap-is-an-error")
def test_a_forged_position_never_shows_more_than_the_answer() -> None:
    for position in (at(1, 1, 2, 900_000_000, "One two "), at(1, 1, 2, 5, "One"), at(1, 1, 4, 0, "")):
        followed, client = Followed(position=position), Client()
        take(followed, client, *frames(*TEXTS))
        assert client.text in WHOLE


@pytest.mark.requirement("resume:gap-is-an-error")
def test_the_id_of_a_classic_stream_says_too_little() -> None:
    assert Followed(position=Position(1, 1, 2, 0)).diverged
    assert not Followed(position=Position(0, 0, 0, 0)).diverged


def test_a_newer_attempt_may_take_over_while_a_client_that_came_back_is_being_caught_up_with() -> None:
    followed, client = Followed(position=at(1, 1, 9, 0, "One two ")), Client("One two ")
    take(followed, client, *frames("One", attempt=2), *frames("One t", "wo three ", "four.", attempt=3))
    assert (client.text, client.fed) == (WHOLE, WHOLE)
    lost = Followed(position=at(1, 1, 9, 0, "One two "))
    take(lost, client, *frames("One", attempt=2), *frames("Two", attempt=3))
    assert lost.diverged


@pytest.mark.requirement("resume:by-content")
def test_steps_before_the_position_are_passed_in_silence() -> None:
    followed, client = Followed(position=at(2, 1, 1, 0, "c")), Client("abc")
    client.see(followed.complete(stored("ab", last=2)))
    assert not any(take(followed, client, *frames("c", "d", step=2, after=(1, 1, 2))))
    assert (client.text, client.fed) == ("abcd", "abcd")


def test_behind_the_event_that_opened_a_stream_everything_follows() -> None:
    followed, client = Followed(position=Position(0, 0, 0, 0, Measure())), Client()
    take(followed, client, *frames(*TEXTS))
    assert client.text == WHOLE
    behind = Followed(position=Position(1, 0, 0, 0, Measure()))
    assert behind.complete(stored(WHOLE, last=4)) == ()
    take(behind, client := Client(), *frames("c", step=2, after=(1, 1, 4)))
    assert client.text == "c"


@pytest.mark.requirement("resume:position-at-the-end")
@pytest.mark.parametrize("k", range(3))
def test_a_client_that_has_some_of_what_closes_a_stream_is_told_the_rest_of_it(k: int) -> None:
    closing = ended(WHOLE, last=4)
    followed, client = Followed(position=at(1, 1, 6, k, WHOLE)), Client(WHOLE)
    take(followed, client, *frames(*TEXTS))
    client.see(followed.complete(stored(WHOLE, last=4)))
    assert (client.text, client.fed) == (WHOLE, WHOLE)
    assert (rest_of(followed, closing), followed.seen_of(closing)) == ((), k + 1)


@pytest.mark.requirement("resume:position-at-the-end")
def test_a_hold_that_the_client_was_told_of_is_behind_it_when_the_turn_goes_on() -> None:
    followed, client = Followed(position=at(1, 1, 6, 1, WHOLE)), Client(WHOLE)
    client.see(followed.complete(stored(WHOLE, last=4)))
    take(followed, client, *frames("And", step=2, after=(1, 1, 4)))
    assert client.text == WHOLE + "And"
    closing = ended("And", step=2, last=1, earlier=(stored(WHOLE, last=4),))
    assert (rest_of(followed, closing), followed.seen_of(closing)) == ((), 0)


@given(
    st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=6),
    st.data(),
)
def test_wherever_a_client_left_it_has_each_character_once_when_it_came_back(
    texts: list[str], data: st.DataObject
) -> None:
    whole = "".join(texts)
    live, had = Followed(), Client()
    left_behind = data.draw(st.integers(1, len(texts)))
    take(live, had, *frames(*texts[:left_behind]))
    position = at(1, 1, left_behind, 0, had.text)
    followed, client = Followed(position=position), Client(had.text)
    captured = data.draw(st.booleans())
    attempt = data.draw(st.sampled_from([1, 2]))
    told: Iterable[str] = texts if attempt == 1 else pieces_of(whole, data)
    fed = frames(*told, attempt=attempt)
    last = len(fed)
    if captured:
        take(followed, client, *fed[: data.draw(st.integers(0, last))])
    client.see(followed.complete(stored(whole, attempt=attempt, last=last)))
    assert (client.text, client.fed) == (whole, whole)
