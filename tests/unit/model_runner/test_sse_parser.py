import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitemesh_model_runner.sse_parser import EventTooLong, SseParser


def events_of(*chunks: bytes) -> list[bytes]:
    parser = SseParser()
    return [event for chunk in chunks for event in parser.feed(chunk)] + parser.finish()


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b'data: {"a":1}\n\n', [b'{"a":1}']),
        (b'data:{"a":1}\n\n', [b'{"a":1}']),
        (b"data:  two spaces\n\n", [b" two spaces"]),
        (b"data: one\r\n\r\ndata: two\r\r", [b"one", b"two"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data\ndata\n\n", [b"\n"]),
        (b": ping\n\ndata: x\n\n", [b"x"]),
        (b"event: delta\nid: 3\nretry: 1\ndata: x\n\n", [b"x"]),
        (b"database: x\ndat: y\n\n", []),
        (b"data:\n\ndata: \n\n", []),
        (b"\xef\xbb\xbfdata: x\n\n", [b"x"]),
        (b"data: [DONE]\n", [b"[DONE]"]),
        (b'data: {"a"', []),
        (b"data: one\ndata: hal", []),
        (b"", []),
    ],
)
def test_the_data_of_each_event_is_returned(stream: bytes, expected: list[bytes]) -> None:
    assert events_of(stream) == expected


def test_an_event_is_returned_as_soon_as_its_blank_line_is_there() -> None:
    parser = SseParser()
    assert parser.feed(b"data: x\n") == []
    assert parser.feed(b"\n") == [b"x"]


def test_a_carriage_return_ends_a_line_without_waiting_for_its_line_feed() -> None:
    parser = SseParser()
    assert parser.feed(b"data: x\r\n\r") == [b"x"]
    assert parser.feed(b"\ndata: y\r") == []
    assert parser.feed(b"\n\r\n") == [b"y"]


DATA = st.lists(st.sampled_from([b"a", b" ", b":", b"{", b"\xc3\xa9", b"data", b""]), max_size=5).map(b"".join)
LINE_END = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    stream, events = b"", []
    for data in draw(st.lists(st.lists(DATA, min_size=1, max_size=3), max_size=4)):
        for part in data:
            stream += draw(st.sampled_from([b"", b": comment" + draw(LINE_END), b"id: 1" + draw(LINE_END)]))
            # Without the space a leading space of the data would be taken for it.
            space = b" " if part.startswith(b" ") else draw(st.sampled_from([b"", b" "]))
            stream += b"data:" + space + part + draw(LINE_END)
        # A line feed behind a carriage return would belong to it.
        stream += b"\r\n" if stream.endswith(b"\r") else draw(LINE_END)
        if joined := b"\n".join(data):
            events.append(joined)
    return stream, events


@given(streams(), st.data())
def test_however_the_bytes_are_split_the_events_are_the_same(
    case: tuple[bytes, list[bytes]], data: st.DataObject
) -> None:
    stream, expected = case
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert events_of(*chunks) == expected
    assert events_of(*(stream[at : at + 1] for at in range(len(stream)))) == expected


@pytest.mark.requirement("promise:P20")
@pytest.mark.parametrize(
    "chunks",
    [
        [b"data: " + b"x" * 100],
        [b"x"] * 100,
        [b"data: " + b"x" * 100 + b"\n\n"],
        [b": " + b"x" * 100 + b"\n"],
        [b"data: 0123456789\n"] * 10,
        [b"data\n"] * 100,
    ],
    ids=["an unfinished line", "many pieces", "a line", "a comment", "many lines", "empty lines"],
)
def test_what_never_ends_is_refused_at_the_bound(chunks: list[bytes]) -> None:
    parser = SseParser(max_event_bytes=50)
    with pytest.raises(EventTooLong):
        list(map(parser.feed, chunks))


def test_many_events_together_may_be_longer_than_the_bound() -> None:
    parser = SseParser(max_event_bytes=50)
    assert parser.feed(b"data: 0123456789\n\n" * 50) == [b"0123456789"] * 50
