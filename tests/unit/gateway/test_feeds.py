"""How often a tenant's feed is read for a place that is not there, or not yet."""

import zlib
from typing import Any, cast

import pytest

from kitemesh_contracts import subjects
from kitemesh_gateway import feeds
from kitemesh_gateway.feeds import AHEAD, Feed, Place
from kitemesh_runtime.bus import Stored
from unit.gateway.rig import ManualClock

MARK = b"a mark"


class Stream:
    """The bus as far as a feed reads it: what it answers in turn, and then nothing."""

    def __init__(self, *answers: list[Stored]) -> None:
        self.reads: list[int] = []
        self._answers = list(answers)

    async def since(self, _stream: str, _subject: str, sequence: int, *, limit: int) -> list[Stored]:
        assert limit > 1
        self.reads.append(sequence)
        return self._answers.pop(0) if self._answers else []


def feed(stream: Stream) -> Feed:
    return Feed(cast("Any", stream), ManualClock(), "acme")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "AGAIN_S", 0.001)
    monkeypatch.setattr(feeds, "AGAIN_MOST_S", 0.004)
    monkeypatch.setattr(feeds, "EXPECT_S", 0.02)


@pytest.mark.requirement("events:gap-is-told")
@pytest.mark.parametrize(("sequence", "reads"), [(AHEAD, 8), (AHEAD + 1, 2), (999_999_999_999_999_999, 2)])
async def test_a_place_that_is_not_there_is_asked_for_ever_more_rarely_and_a_made_up_one_hardly_at_all(
    sequence: int, reads: int
) -> None:
    stream = Stream()
    news = feed(stream)
    cursor = news.cursor(Place(sequence, 1))
    assert await news.catch_up(cursor) is None
    assert stream.reads == [sequence] * reads
    assert cursor.place == feeds.OLDEST


@pytest.mark.requirement("events:no-gap-and-no-repeat")
@pytest.mark.parametrize("sequence", [AHEAD, AHEAD + 1])
async def test_a_replica_of_the_stream_that_is_behind_is_waited_for(sequence: int) -> None:
    subject = subjects.feed("acme", "mark", "mark")
    place = Place(sequence, zlib.crc32(MARK))
    stream = Stream([], [Stored(sequence, subject, MARK), Stored(sequence + 1, subject, MARK)])
    news = feed(stream)
    told = await news.catch_up(news.cursor(place))
    assert told is not None
    assert [each.place.sequence for each in told] == [sequence + 1]
    assert stream.reads == [sequence] * 2
