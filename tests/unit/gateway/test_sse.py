import asyncio
from typing import cast

import pytest

from kitemesh_contracts.deltas import CallDelta, ReasoningDelta, TextDelta
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_gateway.dialects.base import Facts, Place, Rest
from kitemesh_gateway.dialects.completions import Completions
from kitemesh_gateway.following import ALL, Piece
from kitemesh_gateway.outflow import TICK_S, Outflow, Stragglers
from kitemesh_gateway.sse import PING, Stream, Streams
from kitemesh_gateway.watches import TurnFailed
from unit.gateway.rig import ManualClock, ended

ERROR = ErrorInfo(code=ErrorCode.UPSTREAM_CUT, message="cut")
PATIENCE_S = 15.0
A = (TextDelta(text="a"),)


class Pipe:
    """A transport whose client reads when the test says so."""

    def __init__(self) -> None:
        self.unsent = b""
        self.sent = b""
        self.writes = 0
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.unsent += data
        self.writes += 1

    def read(self, size: int | None = None) -> None:
        size = len(self.unsent) if size is None else size
        self.sent += self.unsent[:size]
        self.unsent = self.unsent[size:]

    def get_write_buffer_size(self) -> int:
        return len(self.unsent)

    def is_closing(self) -> bool:
        return self.aborted

    def get_extra_info(self, name: str) -> None:
        return None

    def abort(self) -> None:
        self.aborted = True

    def as_transport(self) -> asyncio.Transport:
        return cast("asyncio.Transport", self)


class Rig:
    """One stream with its timer."""

    def __init__(self, *, resumable: bool = False, starts_at_once: bool = False) -> None:
        self.clock = ManualClock()
        self.streams = Streams(
            self.clock, ping_s=15.0, patience_s=PATIENCE_S, max_unsent_bytes=4096, first_event_s=10.0
        )
        facts = Facts(
            turn="t", model="m", created_s=1, label="r", conversation=None, include_usage=False, resumable=resumable
        )
        self.facts = facts
        self.encoder = Completions().encoder(facts)
        self.stream: Stream = self.streams.open(self.encoder, "req", starts_at_once=starts_at_once)
        self.pipe = Pipe()

    def attach(self, *, chunked: bool = False) -> None:
        self.stream.attach(self.pipe.as_transport(), chunked=chunked, now_s=self.clock.now_s)

    def text(self, n: int, text: str) -> bytes:
        self.stream.show(Place(1, 1, n), (TextDelta(text=text),))
        return self.encoder.delta(Place(1, 1, n), (TextDelta(text=text),))

    def wait(self, seconds: float) -> None:
        end_s = self.clock.now_s + seconds
        while self.clock.now_s < end_s:
            self.clock.now_s += TICK_S
            self.streams.tick()

    async def first(self) -> None:
        async with asyncio.timeout(5):
            await self.stream.first()


@pytest.fixture
async def rig() -> Rig:
    return Rig()


async def test_what_came_before_the_status_line_is_sent_in_one_piece_after_it(rig: Rig) -> None:
    one, two = rig.text(1, "a"), rig.text(2, "b")
    await rig.first()
    rig.attach()
    assert rig.pipe.unsent == rig.encoder.start() + one + two
    assert rig.pipe.writes == 1


@pytest.mark.requirement("stream:one-write-for-each-event")
async def test_each_event_is_written_once_in_one_piece(rig: Rig) -> None:
    rig.attach(chunked=True)
    one = rig.encoder.start() + rig.text(1, "a")
    assert rig.pipe.unsent == b"%x\r\n%b\r\n" % (len(one), one)
    rig.pipe.read()
    two = rig.text(2, "b")
    assert rig.pipe.unsent == b"%x\r\n%b\r\n" % (len(two), two)
    assert rig.pipe.writes == 2


@pytest.mark.requirement("stream:status-line-waits")
async def test_the_status_line_waits_for_the_first_event_only_so_long(rig: Rig) -> None:
    waiting = asyncio.create_task(rig.first())
    rig.wait(9.5)
    assert not rig.stream._first.done()
    rig.wait(0.5)
    await waiting
    rig.attach()
    assert rig.pipe.unsent == b""


@pytest.mark.requirement("stream:failure-is-a-status-first")
async def test_a_failure_before_anything_was_sent_is_raised(rig: Rig) -> None:
    rig.stream.fail(Place(0, 0, 1), ERROR, has_acted=False)
    with pytest.raises(TurnFailed) as failed:
        await rig.first()
    assert failed.value.code is ErrorCode.UPSTREAM_CUT


async def test_a_failure_behind_a_first_event_is_in_the_stream(rig: Rig) -> None:
    one = rig.text(1, "a")
    rig.stream.fail(Place(1, 1, 2), ERROR, has_acted=False)
    await rig.first()
    rig.attach()
    assert rig.pipe.unsent == rig.encoder.start() + one + rig.encoder.error(Place(1, 1, 2), ERROR, "req")
    assert rig.stream.failed


async def test_a_failure_after_an_empty_status_line_is_in_the_stream(rig: Rig) -> None:
    rig.wait(10)
    await rig.first()
    rig.attach()
    rig.stream.fail(Place(0, 0, 1), ERROR, has_acted=False)
    assert rig.pipe.unsent == rig.encoder.error(Place(0, 0, 1), ERROR, "req")


async def test_a_failure_while_the_status_line_is_on_its_way_is_in_the_stream(rig: Rig) -> None:
    rig.wait(10)
    await rig.first()
    rig.stream.fail(Place(0, 0, 1), ERROR, has_acted=False)
    rig.attach()
    assert rig.pipe.unsent == rig.encoder.error(Place(0, 0, 1), ERROR, "req")


async def test_a_stream_is_done_when_its_end_was_written(rig: Rig) -> None:
    rig.attach()
    rig.stream.end(ended("a"), (Rest(1, (TextDelta(text="a"),)),))
    async with asyncio.timeout(5):
        outflow = await rig.stream.done()
    assert outflow is not None
    assert rig.pipe.unsent == rig.encoder.start() + rig.encoder.end(ended("a"), (Rest(1, (TextDelta(text="a"),)),))
    assert not rig.stream.failed


@pytest.mark.requirement("drain:durable-streams-move")
@pytest.mark.parametrize("is_attached", [True, False])
async def test_whoever_is_sent_away_before_the_first_word_has_an_id_to_come_back_with(is_attached: bool) -> None:
    rig = Rig(resumable=True, starts_at_once=True)
    if is_attached:
        rig.attach()
        assert rig.pipe.unsent == rig.encoder.start()
    rig.stream.send_away(Place(0, 0, 1), ERROR, retry_ms=250)
    if not is_attached:
        rig.attach()
    error = rig.encoder.error(Place(0, 0, 1), ERROR, "req")
    assert rig.pipe.unsent == rig.encoder.start() + b"retry: 250\n" + error


async def test_a_stream_that_starts_at_once_is_opened_once_whatever_came_before_the_status_line() -> None:
    rig = Rig(resumable=True, starts_at_once=True)
    rig.stream.show(Place(1, 1, 1), A)
    rig.attach()
    assert rig.pipe.unsent == rig.encoder.start() + Completions().encoder(rig.facts).delta(Place(1, 1, 1), A)
    failed = Rig(resumable=True, starts_at_once=True)
    failed.stream.fail(Place(0, 0, 1), ERROR, has_acted=False)
    failed.attach()
    assert failed.pipe.unsent == failed.encoder.start() + failed.encoder.error(Place(0, 0, 1), ERROR, "req")
    back = Rig(resumable=True, starts_at_once=True)
    back.stream.go_on()
    back.attach()
    assert back.pipe.unsent == b""


async def test_behind_what_ended_a_stream_nothing_is_written(rig: Rig) -> None:
    rig.attach(chunked=True)
    rig.stream.end(ended("a"), (Rest(1, A),))
    whole = rig.pipe.unsent
    rig.text(2, "b")
    rig.stream.show_all((Piece(Place(1, 1, 3), A),))
    rig.stream.end(ended("a"), ())
    rig.stream.fail(Place(1, 1, 4), ERROR, has_acted=False)
    rig.stream.send_away(Place(1, 1, 4), ERROR, retry_ms=250)
    assert rig.pipe.unsent == whole
    assert not rig.stream.failed


@pytest.mark.requirement("stream:pings")
async def test_a_silence_is_broken_before_it_lasts_too_long(rig: Rig) -> None:
    rig.attach()
    rig.text(1, "a")
    rig.pipe.read()
    silent_s = 0.0
    while not rig.pipe.unsent:
        rig.wait(TICK_S)
        silent_s += TICK_S
    assert rig.pipe.unsent == PING
    assert 13.0 <= silent_s <= 15.0
    rig.pipe.read()
    rig.wait(13.5)
    assert rig.pipe.sent.count(PING) == 1
    rig.wait(1.5)
    assert rig.pipe.unsent == PING


@pytest.mark.requirement("stream:pings")
async def test_a_stream_that_speaks_needs_no_pings(rig: Rig) -> None:
    rig.attach()
    for n in range(1, 10):
        rig.text(n, "a")
        rig.pipe.read()
        rig.wait(10)
    assert PING not in rig.pipe.sent


@pytest.mark.requirement("promise:P15")
async def test_a_client_that_does_not_read_is_cut_in_time(rig: Rig) -> None:
    rig.attach()
    rig.text(1, "a")
    rig.wait(PATIENCE_S - 3 * TICK_S)
    assert not rig.pipe.aborted
    rig.wait(3 * TICK_S)
    assert rig.pipe.aborted


async def test_a_client_that_reads_too_slowly_for_what_waits_is_cut(rig: Rig) -> None:
    rig.attach()
    for n in range(1, 8):
        rig.text(n, "a" * 100)
    for _ in range(15):
        rig.wait(1)
        rig.pipe.read(10)
    assert rig.pipe.aborted


async def test_a_slow_client_that_keeps_up_is_left_alone(rig: Rig) -> None:
    rig.attach()
    for n in range(1, 40):
        rig.text(n, "a" * 100)
        rig.wait(2)
        rig.pipe.read(200)
        rig.wait(2)
        rig.pipe.read(300)
    assert not rig.pipe.aborted


@pytest.mark.requirement("promise:P15")
async def test_no_event_is_added_to_more_than_may_wait(rig: Rig) -> None:
    rig.attach()
    rig.text(1, "a" * 5000)
    assert not rig.pipe.aborted
    waiting = len(rig.pipe.unsent)
    rig.text(2, "b")
    assert rig.pipe.aborted
    assert len(rig.pipe.unsent) == waiting
    rig.text(3, "c")
    assert len(rig.pipe.unsent) == waiting


async def test_an_answer_not_taken_after_its_end_is_cut(rig: Rig) -> None:
    stragglers = Stragglers(PATIENCE_S)
    slow, quick = Pipe(), Pipe()
    for pipe in (slow, quick):
        pipe.write(b"x" * 100)
        stragglers.add(Outflow(pipe.as_transport(), 100))
    quick.read()
    for tick in range(1, 32):
        stragglers.tick(tick * TICK_S)
    assert slow.aborted
    assert not quick.aborted


async def test_a_closed_stream_is_forgotten(rig: Rig) -> None:
    rig.streams.close(rig.stream)
    rig.wait(20)
    assert not rig.stream._first.done()


@pytest.mark.requirement("tool:server-calls-are-not-shown")
async def test_a_frame_that_shows_nothing_neither_opens_a_stream_nor_ends_it(rig: Rig) -> None:
    call = (CallDelta(index=0, id="c", name="f"),)
    rig.stream.show(Place(1, 1, 1), call)
    rig.stream.fail(Place(1, 1, 2), ERROR, has_acted=True)
    with pytest.raises(TurnFailed) as failed:
        await rig.first()
    assert failed.value.has_acted


async def test_an_empty_chunk_never_ends_a_stream_by_mistake(rig: Rig) -> None:
    rig.attach(chunked=True)
    rig.text(1, "a")
    written = rig.pipe.writes
    rig.stream.show(Place(1, 1, 2), (CallDelta(index=0, id="c", name="f"),))
    assert rig.pipe.writes == written


# Streams that are resumed, and that move


def events(data: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in data.split(b"\n\n")[:-1]]


@pytest.fixture
async def resumed() -> Rig:
    return Rig(resumable=True)


PLACES = [Piece(Place(1, 1, n), (ReasoningDelta(text=f"r{n}"), TextDelta(text=f"t{n}"))) for n in range(1, 4)]


@pytest.mark.requirement("resume:exact-while-captured")
async def test_what_the_client_has_is_encoded_and_not_sent(resumed: Rig) -> None:
    whole = Completions().encoder(resumed.facts)
    sent = whole.start() + b"".join(whole.delta(place, items) for place, items, _ in PLACES)
    sent += whole.end(ended("t1t2t3", last=3), ())
    resumed.attach()
    resumed.stream.go_on()
    one, two, three = PLACES
    resumed.stream.show_all([one._replace(seen=ALL), two._replace(seen=1)])
    resumed.stream.show(*three)
    resumed.stream.end(ended("t1t2t3", last=3), ())
    assert resumed.pipe.unsent == b"".join(events(sent)[4:])


@pytest.mark.requirement("resume:position-at-the-end")
async def test_a_client_that_has_all_but_the_last_line_is_sent_that_line(resumed: Rig) -> None:
    resumed.attach()
    resumed.stream.go_on()
    resumed.stream.show_all([piece._replace(seen=ALL) for piece in PLACES])
    resumed.stream.end(ended("t1t2t3", last=3), (), 1)
    (last,) = events(resumed.pipe.unsent)
    assert last.endswith(b"\ndata: [DONE]\n\n")
    async with asyncio.timeout(5):
        await resumed.stream.done()


async def test_a_client_that_has_everything_is_sent_nothing(resumed: Rig) -> None:
    resumed.attach(chunked=True)
    resumed.stream.go_on()
    resumed.stream.show(*PLACES[0]._replace(seen=999))
    resumed.stream.end(ended("t1", last=1), (), 2)
    assert resumed.pipe.unsent == b""
    async with asyncio.timeout(5):
        await resumed.stream.done()


async def test_many_frames_are_written_in_one_piece(resumed: Rig) -> None:
    resumed.attach(chunked=True)
    resumed.stream.show_all(PLACES)
    assert resumed.pipe.writes == 1
    assert len(events(resumed.pipe.unsent)) == 7


@pytest.mark.requirement("drain:durable-streams-move")
async def test_a_stream_that_moves_says_when_to_come_back_and_leaves_the_last_id_as_it_is(resumed: Rig) -> None:
    resumed.text(1, "a")
    resumed.attach()
    resumed.pipe.read()
    resumed.stream.send_away(Place(1, 1, 2), ERROR, retry_ms=250)
    assert resumed.pipe.unsent == b"retry: 250\n" + resumed.encoder.error(Place(1, 1, 2), ERROR, "req")
    assert b"id:" not in resumed.pipe.unsent
    assert resumed.stream.failed


async def test_history_waits_for_the_status_line_and_for_who_reads_it(resumed: Rig) -> None:
    resumed.stream.show_all([Piece(Place(1, 1, 1), (TextDelta(text="a" * 2100),))])
    room = asyncio.create_task(resumed.stream.room())
    await asyncio.sleep(0)
    assert not room.done()
    resumed.attach()
    await asyncio.sleep(0)
    resumed.pipe.read(500)
    async with asyncio.timeout(5):
        await room
        resumed.stream.show_all([Piece(Place(1, 1, 2), (TextDelta(text="a" * 3000),))])
        room = asyncio.create_task(resumed.stream.room())
        resumed.pipe.abort()
        await room


@pytest.mark.requirement("promise:P15")
async def test_a_client_that_reads_slowly_is_not_cut_for_a_long_history(resumed: Rig) -> None:
    resumed.attach()

    async def replay() -> None:
        for n in range(1, 30):
            resumed.stream.show_all([Piece(Place(1, 1, n), (TextDelta(text="a" * 1000),))])
            await resumed.stream.room()

    replaying = asyncio.create_task(replay())
    async with asyncio.timeout(5):
        while not replaying.done():
            assert len(resumed.pipe.unsent) <= 4096
            resumed.pipe.read(200)
            await asyncio.wait([replaying], timeout=0.0005)
    assert not resumed.pipe.aborted
