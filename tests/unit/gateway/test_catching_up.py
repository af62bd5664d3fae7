"""Durable streams: gaps that are repaired, clients that come late or come back, whatever fails meanwhile."""

import asyncio
from contextlib import AsyncExitStack
from typing import cast
from zlib import crc32

import pytest

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import Parcel
from kitemesh_contracts.content import AssistantMessage, Step
from kitemesh_contracts.deltas import Frame, HoldRef, TextDelta, TurnEnded
from kitemesh_contracts.errors import ErrorCode, ErrorInfo, KitemeshError, Unavailable
from kitemesh_gateway import catching_up, fetching
from kitemesh_gateway.backlog import MAX_FRAMES, Backlog
from kitemesh_gateway.dialects.base import Place, Rest
from kitemesh_gateway.draining import MOVED, RETRY_MS, send_streams_away
from kitemesh_gateway.positions import Measure, Position
from kitemesh_gateway.relay import TICK_S, Relay
from kitemesh_gateway.watches import BUDGET_MARGIN_S, LOOK_DURABLE_S, LOST, SETTLE_S, TAKEN_BACK, Watch
from kitemesh_runtime.blobs import Blobs
from kitemesh_runtime.bus import Stored
from kitemesh_runtime.holds import HeldCall, Hold
from kitemesh_runtime.live_turns import Job, LiveTurn
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_memory import memory_stores
from kitemesh_runtime.turns import TurnRecord
from unit.gateway.rig import TURN, DeafBus, ManualClock, Screen, ended, frame, live, watched

DURABLE = watched(durable=True)


def at(step: int, attempt: int, n: int, k: int, text: str) -> Position:
    return Position(step, attempt, n, k, Measure(len(text), crc32(text.encode())))


def stored(text: str, *, step: int = 1, attempt: int = 1, last: int = 0) -> Step:
    return Step(step=step, attempt=attempt, last=last, text=text)


def live_turn(*steps: Step, under_way: tuple[int, int] | None = (1, 1), **fields: object) -> LiveTurn:
    jobs = () if under_way is None else (Job(kind="model", step=under_way[0], attempt=under_way[1], pool="p"),)
    values: dict[str, object] = {"status": "running", **fields}
    return LiveTurn(
        id=TURN,
        tenant="acme",
        version=1,
        mode="durable",
        model="m",
        state=b"",
        steps=steps,
        jobs=jobs,
        **values,  # type: ignore[arg-type]
    )


class Rig:
    """A relay whose bus, stores and clock are in the test's hands; frames are captured as they are fed."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.bus = DeafBus()
        self.stores: Stores = memory_stores()
        parcels = Parcels(self.stores.blobs)
        self.relay = Relay(
            self.bus.as_bus(),
            parcels,
            self.stores.live_turns,
            self.stores.holds,
            self.clock,
            conversations=self.stores.conversations,
        )
        self.screen = Screen()

    def capture(self, message: Frame, *, step: int = 1, attempt: int = 1, gateway: str = "gw") -> None:
        subject = subjects.out_frame(subjects.out(gateway, TURN, step, attempt), message.n)
        self.bus.captured[subject] = codec.encode(message)

    def hear(self, message: Frame, *, step: int = 1, attempt: int = 1, gateway: str = "gw") -> None:
        """Deliver a frame of a durable turn to every subscription that it matches."""
        subject = subjects.out_frame(subjects.out(gateway, TURN, step, attempt), message.n)
        for wildcard, listener in list(self.bus.listeners.items()):
            if wildcard in (subjects.out_of(gateway), subjects.out_turn(TURN)):
                listener(subject, codec.encode(message))

    def feed(self, message: Frame, *, step: int = 1, attempt: int = 1, gateway: str = "gw") -> None:
        self.capture(message, step=step, attempt=attempt, gateway=gateway)
        self.hear(message, step=step, attempt=attempt, gateway=gateway)

    def close(self, message: TurnEnded, *, gateway: str = "gw") -> None:
        subject = live(TURN, message.attempt, message.step, gateway)
        for wildcard, listener in list(self.bus.listeners.items()):
            if wildcard in (subjects.live_of(gateway), subjects.live_turn(TURN)):
                listener(subject, codec.encode(message))

    def wait(self, seconds: float) -> None:
        end_s = self.clock.now_s + seconds
        while self.clock.now_s < end_s:
            self.clock.now_s += TICK_S
            self.relay.tick()

    async def look_up(self, watch: Watch) -> None:
        """Have the turn looked for in the store, and wait until it was."""
        self.relay.look(watch)
        async with asyncio.timeout(5):
            await self.relay.look_up_next()

    def relay_with(self, blobs: object) -> Relay:
        """Return another relay, whose parcels are there."""
        parcels = Parcels(cast("Blobs", blobs))
        return Relay(
            self.bus.as_bus(),
            parcels,
            self.stores.live_turns,
            self.stores.holds,
            self.clock,
            conversations=self.stores.conversations,
        )

    async def idle(self) -> None:
        """Wait until nothing is being read."""
        async with asyncio.timeout(5):
            while tasks := [task for task in asyncio.all_tasks() if task.get_name() == "catch_up"]:
                await asyncio.wait(tasks)

    async def end(self, *steps: Step, text: str = "", **fields: object) -> None:
        """Store the turn as completed."""
        values: dict[str, object] = {"status": "completed", "answer": AssistantMessage(text=text), **fields}
        record = TurnRecord(id=TURN, tenant="acme", mode="durable", model="m", steps=steps, **values)  # type: ignore[arg-type]
        await self.stores.turns.put("acme", record)


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(catching_up, "PAUSES_S", (0.001, 0.001))
    monkeypatch.setattr(catching_up, "FAILED_AGAIN_S", (0.001,))
    opened = Rig()
    await opened.relay.listen("gw")
    return opened


# Gaps in a stream


@pytest.mark.requirement("resume:gap-is-read-again")
async def test_a_frame_that_was_lost_on_the_way_is_read_again_and_nothing_is_told_twice(rig: Rig) -> None:
    rig.relay.open(DURABLE, rig.screen)
    rig.feed(frame(1, "a"))
    rig.capture(frame(2, "b", offset=1))
    rig.feed(frame(3, "c", offset=2))
    rig.feed(frame(4, "d", offset=3))
    await rig.idle()
    rig.feed(frame(5, "e", offset=4))
    rig.close(ended("abcde", last=5))
    assert (rig.screen.text, rig.screen.rest) == ("abcde", ())
    assert rig.screen.places == [Place(1, 1, n) for n in range(1, 6)]
    assert rig.bus.reads == [subjects.out_block(TURN, 1, 1, 0)]


@pytest.mark.requirement("resume:gap-is-read-again")
async def test_a_frame_that_comes_late_fills_its_gap(rig: Rig) -> None:
    rig.relay.open(DURABLE, rig.screen)
    rig.feed(frame(1, "a"))
    rig.hear(frame(3, "c", offset=2))
    rig.hear(frame(2, "b", offset=1))
    await rig.idle()
    assert rig.screen.text == "abc"


@pytest.mark.requirement("resume:gap-is-read-again")
async def test_a_gap_that_is_not_captured_either_is_completed_by_the_closing_event(rig: Rig) -> None:
    rig.relay.open(DURABLE, rig.screen)
    rig.feed(frame(1, "a"))
    rig.feed(frame(3, "c", offset=2))
    await rig.idle()
    rig.feed(frame(4, "d", offset=3))
    assert rig.screen.text == "a"
    rig.close(ended("abcd", last=4))
    assert (rig.screen.text, rig.screen.rest) == ("abcd", (Rest(1, (TextDelta(text="bcd"),)),))


@pytest.mark.requirement("resume:gap-is-an-error")
async def test_a_gap_whose_answer_goes_on_otherwise_is_an_explicit_error_that_names_the_execution(rig: Rig) -> None:
    rig.relay.open(DURABLE, rig.screen)
    rig.feed(frame(1, "a"))
    rig.feed(frame(3, "c", offset=2))
    await rig.idle()
    rig.close(ended("xyz", attempt=2, last=3))
    rig.wait(SETTLE_S)
    assert rig.screen.error is not None
    assert rig.screen.error.code is ErrorCode.STREAM_GAP
    assert TURN in rig.screen.error.message
    assert rig.screen.text == "a"


@pytest.mark.requirement("resume:gap-is-read-again")
async def test_the_end_of_a_step_that_was_lost_is_read_from_the_store_when_it_is_not_captured(rig: Rig) -> None:
    rig.relay.open(DURABLE, rig.screen)
    await rig.stores.live_turns.insert("acme", live_turn(stored("abc", last=3), under_way=(2, 1)))
    rig.feed(frame(1, "a"))
    rig.feed(frame(1, "d", after=(1, 1, 3)), step=2)
    rig.feed(frame(2, "e", offset=1), step=2)
    await rig.idle()
    rig.feed(frame(3, "f", offset=2), step=2)
    assert rig.screen.text == "abcdef"
    assert rig.screen.places[1] == Place(1, 1, 0)


@pytest.mark.requirement("attempt:newest-is-followed")
async def test_a_newer_attempt_whose_beginning_was_lost_is_read_again_and_goes_on_where_the_client_is(rig: Rig) -> None:
    rig.relay.open(DURABLE, rig.screen)
    rig.feed(frame(1, "Hello"))
    rig.capture(frame(1, "Hel"), attempt=2)
    rig.capture(frame(2, "lo wo", offset=3), attempt=2)
    rig.feed(frame(3, "rld", offset=8), attempt=2)
    await rig.idle()
    rig.feed(frame(2, "zombie", offset=5))
    assert rig.screen.text == "Hello world"


@pytest.mark.requirement("resume:gap-is-read-again")
async def test_a_bus_that_does_not_answer_is_asked_again(rig: Rig) -> None:
    rig.relay.open(DURABLE, rig.screen)
    rig.feed(frame(1, "a"))
    rig.capture(frame(2, "b", offset=1))
    rig.bus.connected = False
    rig.feed(frame(3, "c", offset=2))
    async with asyncio.timeout(5):
        await rig.bus.was_read(3)
    assert rig.screen.text == "a"
    rig.bus.connected = True
    await rig.idle()
    assert rig.screen.text == "abc"


@pytest.mark.requirement("resume:gap-is-read-again")
async def test_while_nobody_answers_the_closing_event_completes_the_answer(rig: Rig) -> None:
    rig.relay.open(DURABLE, rig.screen)
    rig.bus.connected = False
    rig.feed(frame(2, "b", offset=1))
    rig.close(ended("ab", last=2))
    await rig.screen.over()
    assert rig.screen.text == "ab"


@pytest.mark.requirement("resume:nothing-is-missed")
async def test_what_was_read_before_a_read_failed_is_shown_when_the_closing_event_ends_the_reading(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.capture(frame(1, "one"))
    await rig.stores.live_turns.insert("acme", live_turn(stored("one", last=1), under_way=(2, 1)))
    asked, may_fail = asyncio.Event(), asyncio.Event()
    read = rig.bus.last_of

    async def fail_for_the_second_step(stream: str, subject: str) -> list[Stored]:
        if subject != subjects.out_block(TURN, 2, 1, 0):
            return await read(stream, subject)
        asked.set()
        await may_fail.wait()
        raise Unavailable(ErrorCode.BUS_DOWN, "no answer")

    monkeypatch.setattr(rig.bus, "last_of", fail_for_the_second_step)

    async def follow() -> None:
        async with rig.relay.attached(DURABLE, rig.screen):
            await rig.screen.over()

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(follow())
        await asked.wait()
        rig.close(ended("two", step=2, last=1, earlier=(stored("one", last=1),)))
        may_fail.set()
    assert (rig.screen.text, rig.screen.error) == ("onetwo", None)


async def test_a_closing_event_waits_for_what_is_being_read(rig: Rig) -> None:
    rig.relay.open(DURABLE, rig.screen)
    rig.capture(frame(1, "a"))
    rig.feed(frame(2, "b", offset=1))
    rig.close(ended("ab", last=2))
    rig.wait(2 * SETTLE_S)
    assert not rig.screen.is_over
    await rig.screen.over()
    assert (rig.screen.text, rig.screen.rest) == ("ab", ())


async def test_a_client_that_leaves_ends_the_reading(rig: Rig) -> None:
    watch = rig.relay.open(DURABLE, rig.screen)
    rig.screen.may_go_on.clear()
    rig.capture(frame(1, "a"))
    rig.feed(frame(2, "b", offset=1))
    rig.relay.close(watch)
    await rig.idle()
    assert rig.screen.text == ""


async def test_a_broken_sink_is_told_so_and_ends_nobody_elses_reading(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(rig.screen, "show_all", explode)
    rig.relay.open(DURABLE, rig.screen)
    rig.capture(frame(1, "a"))
    rig.feed(frame(2, "b", offset=1))
    await rig.screen.over()
    assert rig.screen.error is not None
    assert rig.screen.error.code is ErrorCode.INTERNAL


def test_the_backlog_is_in_order_and_bounded() -> None:
    backlog = Backlog()
    for step, attempt, n in ((2, 1, 1), (1, 2, 2), (1, 1, 9), (1, 2, 1)):
        backlog.add(step, attempt, frame(n, "x"))
    backlog.add(3, 1, frame(0))
    assert [each[:3] for each in backlog.take()] == [(1, 1, 9), (1, 2, 1), (1, 2, 2), (2, 1, 1)]
    assert (backlog.take(), backlog.newest) == ([], (2, 1))
    for n in range(1, MAX_FRAMES + 3):
        backlog.add(1, 1, frame(n, "x"))
    assert [each.n for each in backlog.take()] == [MAX_FRAMES + 1, MAX_FRAMES + 2]


# Coming late, and coming back


@pytest.mark.requirement("resume:exact-while-captured")
async def test_a_late_reader_is_shown_everything_from_the_beginning_and_then_what_follows(rig: Rig) -> None:
    await rig.stores.live_turns.insert("acme", live_turn(stored("ab", last=2), under_way=(2, 1)))
    for n, text in enumerate(("a", "b"), start=1):
        rig.capture(frame(n, text, offset=n - 1), gateway="other")
    rig.capture(frame(1, "c", after=(1, 1, 2)), step=2, gateway="other")
    async with rig.relay.attached(DURABLE, rig.screen):
        await rig.idle()
        rig.feed(frame(2, "d", offset=1), step=2, gateway="other")
        rig.close(ended("cd", step=2, last=2, earlier=(stored("ab", last=2),)), gateway="other")
    assert (rig.screen.text, rig.screen.rest, rig.screen.has_start) == ("abcd", (), False)
    assert rig.screen.places == [Place(1, 1, 1), Place(1, 1, 2), Place(2, 1, 1), Place(2, 1, 2)]


@pytest.mark.requirement("resume:exact-while-captured")
async def test_a_client_that_comes_back_is_shown_what_follows_its_last_event(rig: Rig) -> None:
    await rig.stores.live_turns.insert("acme", live_turn())
    for n, text in enumerate(("a", "b", "c"), start=1):
        rig.capture(frame(n, text, offset=n - 1))
    async with rig.relay.attached(DURABLE, rig.screen, position=at(1, 1, 2, 0, "ab")):
        await rig.idle()
        rig.feed(frame(4, "d", offset=3))
    assert (rig.screen.text, rig.screen.fed, rig.screen.has_start) == ("cd", "abcd", True)
    assert rig.screen.places == [Place(1, 1, 3), Place(1, 1, 4)]


async def test_frames_that_arrive_while_history_is_read_wait_for_it_and_come_once(rig: Rig) -> None:
    await rig.stores.live_turns.insert("acme", live_turn())
    for n, text in enumerate("abc", start=1):
        rig.capture(frame(n, text, offset=n - 1))
    rig.screen.may_go_on.clear()
    async with rig.relay.attached(DURABLE, rig.screen):
        rig.feed(frame(3, "c", offset=2))
        rig.feed(frame(4, "d", offset=3))
        assert rig.screen.text == "abc"
        rig.screen.may_go_on.set()
        await rig.idle()
        rig.feed(frame(5, "e", offset=4))
    assert rig.screen.text == "abcde"


async def test_a_reader_that_is_slow_reads_again_what_no_longer_waited_for_it(rig: Rig) -> None:
    await rig.stores.live_turns.insert("acme", live_turn())
    rig.capture(frame(1, "x"))
    rig.screen.may_go_on.clear()
    async with rig.relay.attached(DURABLE, rig.screen):
        many = 3 * MAX_FRAMES
        for n in range(2, many + 1):
            rig.feed(frame(n, "x", offset=n - 1))
        rig.screen.may_go_on.set()
        await rig.idle()
    assert rig.screen.text == "x" * many


@pytest.mark.requirement("resume:by-content")
async def test_what_is_not_captured_any_more_is_shown_from_the_store_in_one_piece(rig: Rig) -> None:
    await rig.stores.live_turns.insert("acme", live_turn(stored("abc", last=3), under_way=(2, 2)))
    rig.capture(frame(3, "c", offset=2))
    rig.capture(frame(1, "d", after=(1, 1, 3)), step=2, attempt=2)
    async with rig.relay.attached(DURABLE, rig.screen, position=at(1, 1, 1, 0, "a")):
        await rig.idle()
    assert (rig.screen.text, rig.screen.fed) == ("bcd", "abcd")
    assert rig.screen.places == [Place(1, 1, 0), Place(2, 2, 1)]


@pytest.mark.requirement("resume:late-readers")
async def test_after_its_end_a_turn_is_replayed_with_its_end(rig: Rig) -> None:
    rig.capture(frame(1, "a"))
    rig.capture(frame(2, "b", offset=1))
    await rig.end(stored("ab", last=2), text="c")
    async with rig.relay.attached(DURABLE, rig.screen):
        await rig.screen.over()
    assert rig.screen.places == [Place(1, 1, 1), Place(1, 1, 2), Place(2, 0, 0)]
    assert (rig.screen.text, rig.screen.rest) == ("abc", ())
    assert rig.screen.ended is not None


@pytest.mark.requirement("resume:late-readers")
async def test_the_last_steps_attempt_is_stored_so_that_its_frames_are_found_after_its_end(rig: Rig) -> None:
    rig.capture(frame(1, "a"), attempt=3)
    rig.capture(frame(2, "b", offset=1), attempt=3)
    await rig.end(text="ab", attempt=3, last=2)
    async with rig.relay.attached(DURABLE, rig.screen, position=at(1, 3, 4, 0, "ab")):
        await rig.screen.over()
    assert (rig.screen.text, rig.screen.fed, rig.screen.rest, rig.screen.seen) == ("", "ab", (), 1)


@pytest.mark.requirement("resume:late-readers")
async def test_a_turn_that_is_held_is_replayed_with_its_hold(rig: Rig) -> None:
    call = HeldCall(id="c", name="f", version="v", effect="once", arguments="{}", sha256="x", sentence="F", shown="{}")
    hold = Hold(id="h", tenant="acme", turn=TURN, step=1, model="m", calls=(call,))
    await rig.stores.holds.open("acme", hold, expires_after_s=600)
    await rig.stores.live_turns.insert(
        "acme", live_turn(stored("I will", last=2), under_way=None, status="held", hold="h")
    )
    rig.capture(frame(1, "I "))
    rig.capture(frame(2, "will", offset=2))
    async with rig.relay.attached(DURABLE, rig.screen, position=at(1, 1, 1, 0, "I ")):
        await rig.screen.over()
    assert rig.screen.text == "will"
    assert rig.screen.ended is not None
    assert isinstance(rig.screen.ended.hold, HoldRef)


async def test_a_turn_that_failed_is_replayed_with_its_failure(rig: Rig) -> None:
    error = ErrorInfo(code=ErrorCode.UPSTREAM_CUT, message="cut")
    rig.capture(frame(1, "a"))
    await rig.end(text="a", attempt=1, last=1, status="failed", error=error)
    async with rig.relay.attached(DURABLE, rig.screen):
        await rig.screen.over()
    assert (rig.screen.text, rig.screen.error) == ("a", error)


@pytest.mark.requirement("resume:gap-is-an-error")
@pytest.mark.parametrize(
    "position",
    [
        at(1, 1, 1, 0, "z"),
        at(1, 1, 2, 0, "abc"),
        at(2, 1, 1, 0, "a"),
        at(9, 9, 9, 9, "a"),
        Position(1, 1, 1, 0),
    ],
)
async def test_a_position_that_does_not_fit_is_refused_before_anything_is_sent(rig: Rig, position: Position) -> None:
    rig.capture(frame(1, "a"))
    rig.capture(frame(2, "b", offset=1))
    await rig.end(text="ab", attempt=1, last=2)
    with pytest.raises(KitemeshError) as refused:
        async with rig.relay.attached(DURABLE, rig.screen, position=position):
            pass
    assert refused.value.code is ErrorCode.STREAM_GAP
    assert TURN in refused.value.message
    assert (rig.screen.text, rig.screen.error, len(rig.relay)) == ("", None, 0)
    assert set(rig.bus.listeners) == {subjects.live_of("gw"), subjects.out_of("gw")}


@pytest.mark.requirement("resume:gap-is-an-error")
async def test_an_attempt_that_turns_out_to_tell_something_else_is_an_error_in_the_stream(rig: Rig) -> None:
    await rig.stores.live_turns.insert("acme", live_turn(under_way=(1, 2)))
    rig.capture(frame(1, "He"), attempt=2)
    async with rig.relay.attached(DURABLE, rig.screen, position=at(1, 1, 3, 0, "Hello")):
        await rig.idle()
        assert not rig.screen.is_over
        rig.feed(frame(2, "xagon", offset=2), attempt=2)
        rig.close(ended("Hexagon", attempt=2, last=2))
        await rig.screen.over()
    assert rig.screen.error is not None
    assert rig.screen.error.code is ErrorCode.STREAM_GAP


@pytest.mark.requirement("resume:several-readers")
async def test_several_readers_of_one_turn_are_each_shown_what_they_miss_over_one_subscription(rig: Rig) -> None:
    await rig.stores.live_turns.insert("acme", live_turn())
    rig.capture(frame(1, "a"))
    screens = [Screen() for _ in range(3)]
    async with AsyncExitStack() as stack:
        for screen in screens:
            await stack.enter_async_context(rig.relay.attached(DURABLE, screen))
        await rig.idle()
        rig.feed(frame(2, "b", offset=1), gateway="other")
        assert set(rig.bus.listeners) == {
            subjects.live_of("gw"),
            subjects.out_of("gw"),
            subjects.live_turn(TURN),
            subjects.out_turn(TURN),
        }
    assert [screen.text for screen in screens] == ["ab"] * 3
    assert len(rig.bus.listeners) == 2


async def test_a_store_that_does_not_answer_leaves_the_stream_open(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.stores.live_turns.insert("acme", live_turn())
    rig.capture(frame(1, "a"))

    async def fail(tenant: str, turn: str) -> None:
        raise Unavailable(ErrorCode.STORE_DOWN, "down")

    with monkeypatch.context() as broken:
        broken.setattr(rig.stores.live_turns, "get", fail)
        stack = AsyncExitStack()
        await stack.enter_async_context(rig.relay.attached(DURABLE, rig.screen))
        rig.feed(frame(2, "b", offset=1))
        assert rig.screen.text == ""
    await rig.idle()
    assert rig.screen.text == "ab"
    await stack.aclose()


async def test_the_budget_ends_a_stream_that_is_still_being_read(rig: Rig) -> None:
    await rig.stores.live_turns.insert("acme", live_turn())
    rig.capture(frame(1, "a"))
    rig.screen.may_go_on.clear()
    async with rig.relay.attached(DURABLE, rig.screen):
        rig.wait(600 + BUDGET_MARGIN_S)
        await rig.idle()
    assert rig.screen.error is not None
    assert rig.screen.error.code is ErrorCode.TURN_TIMEOUT


# Turns that are gone, ends that cannot be fetched, and ends that come late


@pytest.mark.requirement("durable:refused-leaves-nothing")
@pytest.mark.parametrize("stream", [True, False])
async def test_whoever_follows_a_turn_that_was_taken_back_is_told_soon_that_it_may_ask_again(
    rig: Rig, stream: bool
) -> None:
    await rig.stores.live_turns.insert("acme", live_turn(status="queued"))
    follower = watched(durable=True, acts=True, stream=stream)
    async with rig.relay.attached(follower, rig.screen) as watch:
        await rig.look_up(watch)
        assert not rig.screen.is_over
        assert await rig.stores.live_turns.discard("acme", TURN)
        rig.wait(LOOK_DURABLE_S[0])
        await rig.look_up(watch)
    assert (rig.screen.error, rig.screen.has_acted) == (TAKEN_BACK, False)
    assert rig.bus.cancels == []


async def test_a_turn_that_is_gone_from_the_store_after_it_spoke_is_lost(rig: Rig) -> None:
    watch = rig.relay.open(watched(durable=True, acts=True), rig.screen)
    rig.feed(frame(1, "a"))
    await rig.look_up(watch)
    assert (rig.screen.error, rig.screen.has_acted) == (LOST, True)


async def test_a_turn_whose_hold_was_answered_before_it_was_saved_is_waited_for(rig: Rig) -> None:
    async with rig.relay.attached(watched(durable=True, after_step=1), rig.screen) as watch:
        await rig.look_up(watch)
        assert not rig.screen.is_over


class NoBlobs:
    """Answers when it is told to, and has nothing then."""

    def __init__(self, error: KitemeshError) -> None:
        self.error = error
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def get(self, tenant: str, key: str) -> bytes | None:
        self.asked.set()
        await self.may_answer.wait()
        raise self.error


PARCEL = codec.encode(Parcel(tenant="acme", blob="b", size=9))


@pytest.mark.parametrize("code", [ErrorCode.STORE_DOWN, ErrorCode.CONTRACT_VIOLATED])
async def test_a_durable_turn_whose_end_cannot_be_fetched_is_found_in_the_store(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, code: ErrorCode
) -> None:
    monkeypatch.setattr(fetching, "FETCH_AGAIN_S", 0.0)
    monkeypatch.setattr(fetching, "FETCH_S", 0.0)
    error = Unavailable(code, "no") if code is ErrorCode.STORE_DOWN else KitemeshError(code, "no")
    blobs = NoBlobs(error)
    blobs.may_answer.set()
    classic = Screen()
    relay = rig.relay_with(blobs)
    watch = relay.open(DURABLE, rig.screen)
    relay.open(watched("classic"), classic)
    await relay.listen("gw")
    for turn in (TURN, "classic"):
        rig.bus.listeners[subjects.live_of("gw")](live(turn), PARCEL)
    await classic.over()
    async with asyncio.timeout(5):
        while tasks := [task for task in asyncio.all_tasks() if task.get_name() == "parcel"]:
            await asyncio.wait(tasks)
    assert classic.error == LOST
    assert not rig.screen.is_over
    await rig.end(text="whole", attempt=1, last=1)
    relay.look(watch)
    await relay.look_up_next()
    assert (rig.screen.text, rig.screen.error) == ("whole", None)


async def test_a_fetch_that_fails_behind_the_end_of_a_turn_changes_nothing(rig: Rig) -> None:
    blobs = NoBlobs(KitemeshError(ErrorCode.CONTRACT_VIOLATED, "no"))
    relay = rig.relay_with(blobs)
    relay.open(watched(), rig.screen)
    await relay.listen("gw")
    hear = rig.bus.listeners[subjects.live_of("gw")]
    hear(live(), PARCEL)
    async with asyncio.timeout(5):
        await blobs.asked.wait()
        hear(live(), codec.encode(ended("a")))
        blobs.may_answer.set()
        while tasks := [task for task in asyncio.all_tasks() if task.get_name() == "parcel"]:
            await asyncio.wait(tasks)
    assert (rig.screen.text, rig.screen.error) == ("a", None)


@pytest.mark.requirement("resume:nothing-is-missed")
@pytest.mark.parametrize("is_reading", [True, False])
async def test_a_hold_that_is_told_again_when_its_turn_has_gone_on_ends_nothing(rig: Rig, is_reading: bool) -> None:
    held = ended("I will", last=1, outcome="held", finish=None, hold=HoldRef(id="h", expires_at_ms=1))
    await rig.stores.live_turns.insert("acme", live_turn(stored("I will", last=1), under_way=(2, 1)))
    rig.capture(frame(1, "I will"))
    rig.capture(frame(1, "a", after=(1, 1, 1)), step=2)
    if is_reading:
        rig.screen.may_go_on.clear()
    async with rig.relay.attached(DURABLE, rig.screen):
        if not is_reading:
            await rig.idle()
        rig.close(held)
        rig.screen.may_go_on.set()
        await rig.idle()
        rig.wait(2 * SETTLE_S)
        assert not rig.screen.is_over
        rig.feed(frame(2, "b", offset=1), step=2)
        rig.close(ended("ab", step=2, last=2, earlier=(stored("I will", last=1),)))
    assert (rig.screen.text, rig.screen.error) == ("I willab", None)


# A gateway that stops


@pytest.mark.requirement("drain:durable-streams-move")
async def test_a_gateway_that_stops_sends_durable_streams_away_and_leaves_all_others_alone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kitemesh_gateway.draining.TICK_S", 0.001)
    moved = [Screen() for _ in range(5)]
    classic, whole = Screen(), Screen()
    for index, screen in enumerate(moved):
        rig.relay.open(watched(f"turn-{index}", durable=True), screen)
    rig.relay.open(watched("classic"), classic)
    rig.relay.open(watched("whole", durable=True, stream=False), whole)
    async with asyncio.timeout(5):
        await send_streams_away(rig.relay, 0.006)
    assert [(screen.error, screen.retry_ms) for screen in moved] == [(MOVED, RETRY_MS)] * 5
    assert [classic.is_over, whole.is_over] == [False, False]
    assert rig.bus.cancels == []
    rig.relay.withdraw_all(MOVED)
    assert [cancel.turn for cancel in rig.bus.cancels] == ["classic"]
    assert whole.error == MOVED
