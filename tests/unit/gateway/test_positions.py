import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitemesh_contracts.errors import BadRequest, ErrorCode
from kitemesh_gateway.positions import MAX_CHARS, Measure, Position, parse, write
from unit.gateway.rig import TURN

NUMBERS = st.integers(0, 999_999_999)
MEASURES = st.builds(Measure, NUMBERS, st.integers(0, 0xFFFFFFFF))


@given(
    st.builds(
        Position,
        NUMBERS,
        NUMBERS,
        NUMBERS,
        NUMBERS,
        MEASURES,
        MEASURES.filter(lambda measure: measure.length),
        st.integers(1, 999_999_999),
        st.none() | NUMBERS,
        st.booleans(),
    ),
    st.sampled_from(["n", "r", "rs", "rt", "rg", "oN", "oT", "oG", "oE"]),
)
def test_what_is_written_is_read_again(position: Position, words: str) -> None:
    position = position._replace(words="", parts="")
    if position.calls is not None:
        position = position._replace(words=words[0], parts=words[1:])
    assert parse(write(TURN, position)) == (TURN, position)
    assert len(write(TURN, position)) <= MAX_CHARS


def test_a_position_may_be_without_reasoning_and_a_classic_one_is_without_any_measure() -> None:
    assert parse(f"{TURN}:1.2.3.4.5-0000abcd") == (TURN, Position(1, 2, 3, 4, Measure(5, 0xABCD)))
    classic = Position(1, 2, 3, 4)
    assert parse(f"{TURN}:1.2.3.4") == (TURN, classic)
    assert write(TURN, classic) == f"{TURN}:1.2.3.4"
    assert (Position(2, 0, 0, 0).is_start, classic.is_start) == (True, False)


@pytest.mark.parametrize(
    ("stream", "after_step", "words", "calls", "usage"),
    [
        ("", 0, "", None, False),
        ("~2", 2, "", None, False),
        ("~2u", 2, "", None, True),
        ("~0n0", 0, "n", 0, False),
        ("~2n3u", 2, "n", 3, True),
        ("~0r1", 0, "r", 1, False),
    ],
)
def test_an_id_says_which_stream_it_is_of(
    stream: str, after_step: int, words: str, calls: int | None, usage: bool
) -> None:
    header = f"{TURN}:3.1.2.0.5-0000abcd{stream}"
    _, position = parse(header)
    assert (position.after_step, position.words, position.calls, position.usage) == (after_step, words, calls, usage)
    assert write(TURN, position) == header


def test_by_content_a_position_is_that_of_no_attempt_but_the_beginning_stays_the_beginning() -> None:
    position = Position(2, 3, 4, 1, Measure(5, 0xABCD), calls=2)
    assert position.by_content() == position._replace(attempt=-1)
    assert not Position(2, 0, 3, 0, Measure()).by_content().is_start
    begin = Position(0, 0, 0, 0, Measure())
    assert begin.by_content() is begin


@pytest.mark.requirement("resume:hostile-ids")
@pytest.mark.parametrize(
    "header",
    [
        "",
        TURN,
        f"{TURN}:",
        f"{TURN}:1.1.1",
        f"{TURN}:1.1.1.1.",
        f"{TURN}:1.1.1.1.1",
        f"{TURN}:1.1.1.1.1-ABCDEF01",
        f"{TURN}:1.1.1.1.1-abcdef0",
        f"{TURN}:1.1.1.1.1-abcdef01\n",
        f"{TURN}:1.1.1.1.1-abcdef01~",
        f"{TURN}:1.1.1.1.1-abcdef01~n1",
        f"{TURN}:1.1.1.1.1-abcdef01~1n",
        f"{TURN}:1.1.1.1.1-abcdef01~1un1",
        f"{TURN}:1.1.1.1.1-abcdef01~-1",
        f"{TURN}:1.1.1.1.1-abcdef01~{'9' * 10}",
        f"{TURN}:1.1.1.1~1",
        f"{TURN}:-1.1.1.1",
        f"{TURN}:1.1.1.1e9",
        f"{TURN}:1.1.1.{'9' * 10}",
        f"{TURN}:\u0661.1.1.1",
        "a b:1.1.1.1",
        "*:1.1.1.1",
        f"{'x' * 65}:1.1.1.1",
        "x" * 100_000,
        f"{TURN}:{'1.' * 100_000}",
    ],
)
def test_anything_else_is_refused(header: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(header)
    assert refused.value.code is ErrorCode.REQUEST_INVALID
    assert len(refused.value.message) < 100


@pytest.mark.requirement("resume:hostile-ids")
@given(st.text(max_size=300))
def test_no_text_does_anything_else_than_parse_or_be_refused(header: str) -> None:
    try:
        turn, position = parse(header)
    except BadRequest:
        return
    assert parse(write(turn, position))[0] == turn
