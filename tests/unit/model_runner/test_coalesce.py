import msgspec
import pytest

from kitemesh_contracts import codec
from kitemesh_contracts.commands import Generate, Mark
from kitemesh_contracts.content import Logprob, TopLogprob
from kitemesh_contracts.deltas import (
    RESULT_SHOWN_CHARS,
    CallDelta,
    Delta,
    Frame,
    ReasoningDelta,
    ResultDelta,
    TextDelta,
)
from kitemesh_contracts.errors import ErrorCode, ErrorInfo, Unavailable
from kitemesh_contracts.subjects import OUT_BLOCK
from kitemesh_model_runner.coalesce import FRAME_MAX_CHARACTERS, KEEPALIVE_TICKS, Frames

JOB = Generate(
    turn="t", tenant="n", gateway="g", mode="classic", step=1, attempt=1, models=("m",), messages=(), budget_s=1.0
)
MAX_PAYLOAD_BYTES = 1024 * 1024


class FakeBus:
    """Takes what is published, or nothing while it is down."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []
        self.posted: list[tuple[str, bytes]] = []
        self.is_up = True

    def publish(self, subject: str, payload: bytes) -> None:
        if not self.is_up:
            raise Unavailable(ErrorCode.BUS_DOWN, "down")
        self.published.append((subject, payload))

    def post(self, subject: str, payload: bytes) -> None:
        if not self.is_up:
            raise Unavailable(ErrorCode.BUS_DOWN, "too much waits")
        self.posted.append((subject, payload))

    @property
    def frames(self) -> list[Frame]:
        decoded = [codec.decode(codec.RELAYED, payload) for _, payload in self.published]
        return [frame for frame in decoded if isinstance(frame, Frame)]


@pytest.fixture
def bus() -> FakeBus:
    return FakeBus()


def frames_on(bus: FakeBus, *, stream: bool = True, after: Mark | None = None) -> Frames:
    return Frames(bus, msgspec.structs.replace(JOB, stream=stream, after=after), 3)  # type: ignore[arg-type]  # only publishes


def test_what_arrives_together_is_one_frame(bus: FakeBus) -> None:
    frames = frames_on(bus)
    frames.put([TextDelta(text="é")])
    frames.put([ReasoningDelta(text="hm"), TextDelta(text="b"), TextDelta(text="cd")])
    frames.put([CallDelta(index=0, name="f")])
    assert bus.frames == [
        Frame(n=1, offset=0, items=(TextDelta(text="é"),)),
        Frame(n=2, offset=1, items=(ReasoningDelta(text="hm"), TextDelta(text="b"), TextDelta(text="cd"))),
        Frame(n=3, offset=4, items=(CallDelta(index=0, name="f"),)),
    ]
    assert {subject for subject, _ in bus.published} == {"km.v1.live.g.t.1.3"}
    assert frames.last == 3


def test_a_caller_that_does_not_stream_gets_no_deltas(bus: FakeBus) -> None:
    frames = frames_on(bus, stream=False)
    frames.put([TextDelta(text="a")])
    assert bus.published == []
    assert frames.last == 0


@pytest.mark.requirement("classic:sign-of-life")
@pytest.mark.parametrize("stream", [True, False])
def test_five_quiet_seconds_end_with_a_sign_of_life(bus: FakeBus, stream: bool) -> None:
    frames = frames_on(bus, stream=stream)
    for _ in range(2 * KEEPALIVE_TICKS):
        frames.tick()
    assert bus.frames == [Frame(n=0, offset=0, items=())] * 2


def test_a_frame_is_a_sign_of_life_too(bus: FakeBus) -> None:
    frames = frames_on(bus)
    for _ in range(KEEPALIVE_TICKS - 1):
        frames.tick()
    frames.put([TextDelta(text="abc")])
    for _ in range(KEEPALIVE_TICKS - 1):
        frames.tick()
    assert len(bus.frames) == 1
    frames.tick()
    assert bus.frames[1:] == [Frame(n=1, offset=3, items=())]


@pytest.mark.requirement("classic:frames-are-numbered")
def test_a_frame_that_the_bus_does_not_take_leaves_a_gap_in_the_numbers(bus: FakeBus) -> None:
    frames = frames_on(bus)
    frames.put([TextDelta(text="a")])
    bus.is_up = False
    frames.put([TextDelta(text="b")])
    bus.is_up = True
    frames.put([TextDelta(text="c")])
    assert [(frame.n, frame.offset) for frame in bus.frames] == [(1, 0), (3, 2)]
    assert frames.lost == 1


@pytest.mark.parametrize("character", ["x", "\x01", "😀"], ids=["plain", "escaped", "wide"])
def test_what_is_too_much_for_one_frame_is_shared_out(bus: FakeBus, character: str) -> None:
    frames = frames_on(bus)
    text = character * (3 * FRAME_MAX_CHARACTERS)
    deltas: list[Delta] = [
        TextDelta(text="first"),
        TextDelta(text=text),
        ReasoningDelta(text=text),
        CallDelta(index=2, id="i", name="f", arguments=text),
        TextDelta(text="last"),
    ]
    frames.put(deltas)
    frames.put([TextDelta(text="!")])
    got = bus.frames
    assert all(len(payload) < MAX_PAYLOAD_BYTES / 2 for _, payload in bus.published)
    assert [frame.n for frame in got] == list(range(1, len(got) + 1))
    items = [item for frame in got for item in frame.items]
    assert "".join(item.text for item in items if isinstance(item, TextDelta)) == "first" + text + "last!"
    assert "".join(item.text for item in items if isinstance(item, ReasoningDelta)) == text
    calls = [item for item in items if isinstance(item, CallDelta)]
    assert "".join(call.arguments for call in calls) == text
    assert {call.index for call in calls} == {2}
    assert [(call.id, call.name) for call in calls] == [("i", "f")] + [("", "")] * (len(calls) - 1)
    offset = 0
    for frame in got:
        assert frame.items
        assert frame.offset == offset
        offset += sum(len(item.text) for item in frame.items if isinstance(item, TextDelta))


def test_what_came_of_calls_is_never_cut_and_an_error_without_words_is_not_lost(bus: FakeBus) -> None:
    frames = frames_on(bus)
    error = ErrorInfo(code=ErrorCode.TOOL_DENIED, message="no")
    results = [ResultDelta(call=str(n), text="x" * RESULT_SHOWN_CHARS) for n in range(5)]
    frames.put([*results, ResultDelta(call="denied", error=error)])
    assert [item for frame in bus.frames for item in frame.items] == [
        *results,
        ResultDelta(call="denied", error=error),
    ]
    assert len(bus.frames) > 1
    assert {frame.offset for frame in bus.frames} == {0}


def test_how_likely_tokens_were_is_shared_out_with_the_text(bus: FakeBus) -> None:
    top = tuple(TopLogprob(token="t" * 50, logprob=-1.0, bytes=(255,) * 50) for _ in range(20))
    logprobs = tuple(Logprob(token=f"{n} ", logprob=-0.5, top=top) for n in range(500))
    said = TextDelta(text="".join(each.token for each in logprobs), logprobs=logprobs)
    frames = frames_on(bus)
    frames.put([said, TextDelta(text="end", logprobs=logprobs[:1])])
    items = [item for frame in bus.frames for item in frame.items if isinstance(item, TextDelta)]
    assert "".join(item.text for item in items) == said.text + "end"
    assert tuple(each for item in items for each in item.logprobs) == logprobs + logprobs[:1]
    assert items[-1] == TextDelta(text="end", logprobs=logprobs[:1])
    assert all(len(payload) < MAX_PAYLOAD_BYTES / 2 for _, payload in bus.published)
    assert all(frame.items for frame in bus.frames)


@pytest.mark.parametrize(
    "first",
    [TextDelta(text="a"), ReasoningDelta(text="a"), CallDelta(index=0, name="f"), TextDelta(text="a" * 200_000)],
    ids=["text", "reasoning", "a call", "more than one frame"],
)
def test_the_first_frame_of_a_step_and_no_other_says_where_the_step_before_it_ended(bus: FakeBus, first: Delta) -> None:
    after = Mark(step=1, attempt=2, n=7)
    frames = frames_on(bus, after=after)
    for _ in range(KEEPALIVE_TICKS):
        frames.tick()
    frames.put([first])
    frames.put([TextDelta(text="b")])
    for _ in range(KEEPALIVE_TICKS):
        frames.tick()
    marks = {frame.n: frame.after for frame in bus.frames if frame.items}
    assert marks.pop(1) == after
    assert set(marks.values()) == {None}
    assert [frame.after for frame in bus.frames if not frame.items] == [None, None]


def test_without_a_step_before_it_a_frame_costs_not_a_byte_more(bus: FakeBus) -> None:
    frames_on(bus).put([TextDelta(text="a")])
    assert bus.published[0][1] == b'{"type":"frame","n":1,"offset":0,"items":[{"type":"text","text":"a"}]}'


def durable_on(bus: FakeBus) -> Frames:
    return Frames(bus, msgspec.structs.replace(JOB, stream=True, mode="durable", stored=True), 3)  # type: ignore[arg-type]  # only posts


def test_a_durable_jobs_frames_go_where_they_are_captured_block_by_block(bus: FakeBus) -> None:
    frames = durable_on(bus)
    for _ in range(OUT_BLOCK + 1):
        frames.put([TextDelta(text="a")])
    assert bus.published == []
    subjects = [subject for subject, _ in bus.posted]
    assert subjects[0] == "km.v1.out.g.t.1.3.0.1"
    assert subjects[-2:] == [f"km.v1.out.g.t.1.3.0.{OUT_BLOCK}", f"km.v1.out.g.t.1.3.1.{OUT_BLOCK + 1}"]
    last = codec.decode(codec.RELAYED, bus.posted[-1][1])
    assert last == Frame(n=OUT_BLOCK + 1, offset=OUT_BLOCK, items=(TextDelta(text="a"),))


def test_a_durable_jobs_sign_of_life_is_not_captured(bus: FakeBus) -> None:
    frames = durable_on(bus)
    frames.put([TextDelta(text="abc")])
    for _ in range(KEEPALIVE_TICKS):
        frames.tick()
    assert [subject for subject, _ in bus.published] == ["km.v1.live.g.t.1.3"]
    assert bus.frames == [Frame(n=1, offset=3, items=())]


def test_a_frame_that_is_refused_for_what_waits_already_is_lost_and_counted(bus: FakeBus) -> None:
    frames = durable_on(bus)
    bus.is_up = False
    frames.put([TextDelta(text="a")])
    bus.is_up = True
    frames.put([TextDelta(text="b")])
    assert [subject for subject, _ in bus.posted] == ["km.v1.out.g.t.1.3.0.2"]
    assert frames.lost == 1
