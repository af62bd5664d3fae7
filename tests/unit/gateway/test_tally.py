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


def test_each_step_is_counted_by_itself() -> None:
    tally = Tally()
    tally.add_text(1, "one")
    tally.add_text(2, "two")
    assert tally.tail(2) == tail("two")
    assert tally.tail(3) == tail("")
