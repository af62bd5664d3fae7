"""What the ids of a resumable stream say was shown, in whichever order its first events are encoded."""

from zlib import crc32

from kitemesh_gateway.dialects.base import Tally


def tail(text: str) -> bytes:
    return b".%d-%08x" % (len(text), crc32(text.encode()))


def test_an_event_that_opens_the_stream_takes_nothing_from_what_was_counted_before_it() -> None:
    tally = Tally()
    tally.add_text(1, "A ")
    assert tally.tail(0) == tail("")
    tally.add_text(1, "turn ")
    assert tally.tail(1) == tail("A turn ")


def test_behind_a_hold_each_id_says_so_and_whether_the_token_counts_follow() -> None:
    assert Tally(3).tail(3) == tail("") + b"~3"
    tally = Tally(3, usage=True)
    tally.add_text(4, "A ")
    assert (tally.tail(3), tally.tail(4)) == (tail("") + b"~3u", tail("A ") + b"~3u")
    assert Tally(0, usage=True).tail(1) == tail("")


def test_calls_are_counted_where_they_are_told_each_once_and_by_step() -> None:
    tally = Tally(words="n")
    tally.add_call(1, 0)
    tally.add_call(1, 1)
    tally.add_call(1, 0)
    assert tally.tail(1) == tail("") + b"~0n2"
    tally.add_text(2, "two")
    assert (tally.tail(2), tally.tail(1)) == (tail("two") + b"~0n0", tail("") + b"~0n0")
    assert Tally(4, usage=True, words="n").tail(4) == tail("") + b"~4n0u"


def test_each_step_is_counted_by_itself() -> None:
    tally = Tally()
    tally.add_text(1, "one")
    tally.add_text(2, "two")
    assert tally.tail(2) == tail("two")
    assert tally.tail(3) == tail("")
