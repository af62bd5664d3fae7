import asyncio

import pytest

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.content import AssistantMessage, Usage
from kitemesh_contracts.deltas import Frame, TextDelta, TurnEnded
from kitemesh_contracts.errors import ErrorCode, ErrorInfo, Unavailable
from kitemesh_gateway.dialects.base import Rest
from kitemesh_gateway.relay import TICK_S, Relay
from kitemesh_gateway.watches import BUDGET_MARGIN_S, LOOK_S, LOST_S, SETTLE_S, Watch, Watched
from kitemesh_runtime.blobs import Blobs
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_memory import memory_stores
from kitemesh_runtime.turns import TurnRecord
from unit.gateway.rig import TURN, DeafBus, ManualClock, Screen, ended, frame, live, watched


class Rig:
    """A relay whose bus and clock are in the test's hands."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.bus = DeafBus()
        self.stores: Stores = memory_stores()
        self.relay = Relay(
            self.bus.as_bus(),
            Parcels(self.stores.blobs),
            self.stores.live_turns,
            self.stores.holds,
            self.clock,
            conversations=self.stores.conversations,
        )
        self.screen = Screen()

    async def listen(self) -> "Rig":
        await self.relay.listen("gw")
        return self

    def open(self, what: Watched) -> Watch:
        return self.relay.open(what, self.screen)

    def feed(self, message: Frame | TurnEnded, *, attempt: int = 1, turn: str = TURN) -> None:
        self.feed_bytes(codec.encode(message), attempt=attempt, turn=turn)

    def feed_bytes(self, payload: bytes, *, attempt: int = 1, turn: str = TURN) -> None:
        self.bus.listeners[subjects.live_of("gw")](live(turn, attempt), payload)

    def wait(self, seconds: float) -> None:
        end_s = self.clock.now_s + seconds
        while self.clock.now_s < end_s:
            self.clock.now_s += TICK_S
            self.relay.tick()

    async def look_up(self) -> None:
        """Do the lookups that are due."""
        async with asyncio.timeout(5):
            await self.relay.look_up_next()


@pytest.fixture
async def rig() -> Rig:
    return await Rig().listen()


@pytest.mark.requirement("stream:streams-do-not-mix")
async def test_frames_go_to_their_turn_and_the_closing_event_ends_it(rig: Rig) -> None:
    other = Screen()
    rig.open(watched())
    rig.relay.open(watched("other-turn"), other)
    rig.feed(frame(1, "a"))
    rig.feed(frame(1, "x"), turn="other-turn")
    rig.feed(frame(2, "b"))
    rig.feed(ended("ab", last=2))
    assert (rig.screen.text, other.text) == ("ab", "x")
    assert rig.screen.ended is not None
    assert not other.is_over
    assert len(rig.relay) == 1


async def test_a_closing_event_that_overtook_its_frames_waits_for_them(rig: Rig) -> None:
    rig.open(watched())
    rig.feed(frame(1, "a"))
    rig.feed(ended("abc", last=3))
    rig.feed(frame(2, "b"))
    assert not rig.screen.is_over
    rig.feed(frame(3, "c"))
    assert (rig.screen.text, rig.screen.rest) == ("abc", ())
    assert rig.screen.ended is not None


@pytest.mark.requirement("attempt:gap-stops-the-showing")
async def test_frames_that_never_come_are_made_up_for_from_the_closing_event_in_time(rig: Rig) -> None:
    rig.open(watched())
    rig.feed(frame(1, "a"))
    rig.feed(ended("abc", last=3))
    rig.wait(SETTLE_S)
    assert (rig.screen.text, rig.screen.rest) == ("abc", (Rest(1, (TextDelta(text="bc"),)),))


async def test_an_answer_that_is_not_streamed_waits_for_no_frame(rig: Rig) -> None:
    rig.open(watched(stream=False))
    rig.feed(ended("abc", last=3))
    assert rig.screen.ended is not None


@pytest.mark.requirement("attempt:only-a-prefix-is-continued")
async def test_an_answer_that_does_not_begin_with_what_was_shown_is_an_explicit_error(rig: Rig) -> None:
    rig.open(watched())
    rig.feed(frame(1, "Hello"))
    rig.feed(frame(1, "Good"), attempt=2)
    rig.feed(ended("Goodbye", attempt=2, last=2), attempt=2)
    assert rig.screen.text == "Hello"
    assert rig.screen.error is not None
    assert rig.screen.error.code is ErrorCode.TURN_LOST


async def test_a_failed_turn_is_told_at_once(rig: Rig) -> None:
    rig.open(watched())
    rig.feed(frame(1, "a"))
    error = ErrorInfo(code=ErrorCode.UPSTREAM_CUT, message="cut")
    rig.feed(ended("ab", last=5, outcome="failed", error=error))
    assert rig.screen.error == error


@pytest.mark.requirement("http:crash-is-a-fixed-sentence")
async def test_an_internal_text_never_reaches_a_client(rig: Rig) -> None:
    rig.open(watched())
    error = ErrorInfo(code=ErrorCode.CONTRACT_VIOLATED, message="field x of document y")
    rig.feed(ended("", outcome="failed", error=error))
    assert rig.screen.error is not None
    assert rig.screen.error.message == "The turn failed for an internal reason"


async def test_what_is_not_a_message_changes_nothing(rig: Rig) -> None:
    rig.open(watched())
    rig.feed_bytes(b"{")
    rig.feed_bytes(b'{"type":"unknown"}')
    rig.bus.listeners[subjects.live_of("gw")]("km.v1.live.gw.nonsense", b"")
    rig.feed(frame(1, "a"))
    assert rig.screen.text == "a"


@pytest.mark.requirement("classic:large-messages-are-parcels")
async def test_a_closing_event_too_large_to_travel_is_fetched(rig: Rig) -> None:
    rig.open(watched())
    text = "x" * 300_000
    payload = await Parcels(rig.stores.blobs).pack("acme", ended(text))
    assert len(payload) < 1000
    rig.feed_bytes(payload)
    await rig.screen.over()
    assert rig.screen.text == text


async def test_a_closing_event_whose_blob_is_gone_is_an_explicit_error(rig: Rig) -> None:
    rig.open(watched())
    payload = await Parcels(memory_stores().blobs).pack("acme", ended("x" * 300_000))
    rig.feed_bytes(payload)
    await rig.screen.over()
    assert rig.screen.error is not None


class ThawingBlobs:
    """Blobs whose store answers at the second question."""

    def __init__(self, inner: Blobs) -> None:
        self._inner = inner
        self._asked = 0

    async def put(self, tenant: str, data: bytes, *, keep_s: float) -> str:
        return await self._inner.put(tenant, data, keep_s=keep_s)

    async def get(self, tenant: str, blob: str) -> bytes | None:
        self._asked += 1
        if self._asked == 1:
            raise Unavailable(ErrorCode.STORE_DOWN, "down")
        return await self._inner.get(tenant, blob)


async def test_a_closing_event_is_asked_for_again_while_the_store_does_not_answer(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kitemesh_gateway.fetching.FETCH_AGAIN_S", 0.001)
    parcels = Parcels(ThawingBlobs(rig.stores.blobs))
    relay = Relay(
        rig.bus.as_bus(),
        parcels,
        rig.stores.live_turns,
        rig.stores.holds,
        rig.clock,
        conversations=rig.stores.conversations,
    )
    await relay.listen("gw")
    relay.open(watched(), rig.screen)
    rig.feed_bytes(await Parcels(rig.stores.blobs).pack("acme", ended("x" * 300_000)))
    await rig.screen.over()
    assert len(rig.screen.text) == 300_000


RECORD = TurnRecord(
    id=TURN,
    tenant="acme",
    status="completed",
    mode="classic",
    model="m",
    conversation="conv",
    answer=AssistantMessage(text="abc"),
    finish="stop",
    usage=Usage(input_tokens=1, output_tokens=2),
)


@pytest.mark.requirement("attempt:stored-turn-is-looked-for")
async def test_after_a_silence_the_stored_turn_is_looked_for(rig: Rig) -> None:
    rig.open(watched())
    rig.feed(frame(1, "a"))
    await rig.stores.turns.put("acme", RECORD)
    rig.wait(LOOK_S + TICK_S)
    await rig.look_up()
    assert rig.screen.text == "abc"
    assert rig.screen.ended is not None
    assert rig.screen.ended.usage == Usage(input_tokens=1, output_tokens=2)


class Accounts:
    """What was told of turns that are counted."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int | None]] = []
        self.changed = asyncio.Event()

    def __contains__(self, turn: str) -> bool:
        return True

    def ended(self, turn: str, used_tokens: int | None = None) -> None:
        self.told.append((turn, used_tokens))
        self.changed.set()


@pytest.mark.requirement("limits:no-slot-leaks", "limits:tokens")
async def test_a_turn_whose_end_was_found_in_the_store_is_settled(rig: Rig) -> None:
    accounts = Accounts()
    rig.relay.tell(accounts)
    rig.open(watched())
    await rig.stores.turns.put("acme", RECORD)
    rig.wait(LOOK_S + TICK_S)
    await rig.look_up()
    assert accounts.told == [(TURN, 3)]


@pytest.mark.requirement("limits:no-slot-leaks")
async def test_a_turn_whose_end_cannot_be_fetched_is_over_all_the_same(rig: Rig) -> None:
    accounts = Accounts()
    rig.relay.tell(accounts)
    rig.feed_bytes(await Parcels(memory_stores().blobs).pack("acme", ended("x" * 300_000)))
    async with asyncio.timeout(5):
        await accounts.changed.wait()
    assert accounts.told == [(TURN, None)]


@pytest.mark.requirement("attempt:stored-turn-is-looked-for")
async def test_after_a_reconnect_the_stored_turn_is_looked_for_at_once(rig: Rig) -> None:
    rig.open(watched())
    await rig.stores.turns.put("acme", RECORD)
    rig.bus.reconnect()
    rig.wait(TICK_S)
    await rig.look_up()
    assert rig.screen.text == "abc"


async def test_a_store_that_does_not_answer_is_asked_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.open(watched())
    await rig.stores.turns.put("acme", RECORD)

    async def fail(tenant: str, turn: str) -> None:
        raise Unavailable(ErrorCode.STORE_DOWN, "down")

    with monkeypatch.context() as broken:
        broken.setattr(rig.stores.live_turns, "get", fail)
        rig.wait(LOOK_S)
        await rig.look_up()
    assert not rig.screen.is_over
    rig.wait(LOOK_S)
    await rig.look_up()
    assert rig.screen.text == "abc"


async def test_another_tenants_turn_is_never_found(rig: Rig) -> None:
    rig.open(watched())
    await rig.stores.turns.put(
        "rival", TurnRecord(id=TURN, tenant="rival", status="completed", mode="classic", model="m")
    )
    rig.wait(LOOK_S)
    await rig.look_up()
    assert not rig.screen.is_over


@pytest.mark.requirement("attempt:lost-turn-is-told")
async def test_a_turn_that_somebody_worked_on_and_that_fell_silent_is_lost_and_stopped(rig: Rig) -> None:
    rig.open(watched())
    rig.feed(frame(0))
    rig.wait(LOST_S - TICK_S)
    assert not rig.screen.is_over
    rig.wait(2 * TICK_S)
    assert rig.screen.error is not None
    assert rig.screen.error.code is ErrorCode.TURN_LOST
    assert [cancel.turn for cancel in rig.bus.cancels] == [TURN]


@pytest.mark.requirement("classic:sign-of-life")
async def test_signs_of_life_keep_a_turn_open(rig: Rig) -> None:
    rig.open(watched())
    for _ in range(4):
        rig.feed(frame(0))
        rig.wait(LOST_S / 2)
    assert not rig.screen.is_over


@pytest.mark.requirement("attempt:waiting-is-not-death")
async def test_waiting_in_a_queue_is_not_death(rig: Rig) -> None:
    rig.open(watched(budget_s=600))
    rig.wait(500)
    assert not rig.screen.is_over


@pytest.mark.requirement("attempt:lost-turn-is-told")
async def test_a_turn_that_keeps_nothing_is_lost_when_its_end_may_have_been_missed(rig: Rig) -> None:
    rig.open(watched(conversation=None, fresh=False))
    rig.bus.reconnect()
    rig.wait(LOST_S)
    assert rig.screen.error is not None
    assert rig.screen.error.code is ErrorCode.TURN_LOST


@pytest.mark.requirement("attempt:lost-turn-is-told")
async def test_a_turn_that_the_bus_has_forgotten_is_told_so_before_its_budget_ends(rig: Rig) -> None:
    rig.open(watched(budget_s=600))
    rig.bus.reconnect()
    for _ in range(2):
        assert not rig.screen.is_over
        rig.wait(LOOK_S + TICK_S)
        await rig.look_up()
    assert rig.screen.error is not None
    assert rig.screen.error.code is ErrorCode.TURN_LOST


@pytest.mark.requirement("attempt:waiting-is-not-death")
@pytest.mark.parametrize(
    "subject",
    [
        subjects.turn_start(TURN),
        subjects.control_start(TURN),
        subjects.model_job("p", "batch", 3, TURN),
        subjects.tool_job("p", "interactive", 0, TURN),
        subjects.event("step.generated", TURN),
    ],
)
async def test_a_turn_that_is_in_any_queue_after_a_reconnect_is_waited_for(rig: Rig, subject: str) -> None:
    rig.open(watched(budget_s=600))
    rig.bus.queued.add(subject)
    rig.bus.reconnect()
    for _ in range(20):
        rig.wait(LOOK_S + TICK_S)
        await rig.look_up()
    assert not rig.screen.is_over


@pytest.mark.requirement("attempt:waiting-is-not-death")
async def test_a_bus_that_does_not_say_what_waits_in_its_queues_is_asked_again_and_costs_no_turn(rig: Rig) -> None:
    rig.open(watched(budget_s=600))
    rig.bus.reconnect()
    rig.bus.connected = False
    for _ in range(3):
        rig.wait(LOOK_S + TICK_S)
        await rig.look_up()
    assert not rig.screen.is_over
    rig.bus.connected = True
    for _ in range(2):
        rig.wait(LOOK_S + TICK_S)
        await rig.look_up()
    assert rig.screen.error is not None
    assert rig.screen.error.code is ErrorCode.TURN_LOST


@pytest.mark.requirement("attempt:waiting-is-not-death")
async def test_a_turn_that_waits_in_its_conversation_after_a_reconnect_is_waited_for(rig: Rig) -> None:
    conversations = rig.stores.conversations
    await conversations.create("acme", "conv", "earlier", agent=None)
    await conversations.take("acme", "conv", TURN, b"start", max_waiting=5)
    rig.open(watched(budget_s=600, conversation="conv", fresh=False))
    rig.bus.reconnect()
    for _ in range(3):
        rig.wait(LOOK_S + TICK_S)
        await rig.look_up()
    assert not rig.screen.is_over


@pytest.mark.requirement("attempt:waiting-is-not-death")
async def test_the_budget_ends_everything(rig: Rig) -> None:
    rig.open(watched(budget_s=60))
    rig.wait(60 + BUDGET_MARGIN_S)
    assert rig.screen.error is not None
    assert rig.screen.error.code is ErrorCode.TURN_TIMEOUT
    assert len(rig.relay) == 0


@pytest.mark.requirement("classic:cancel-is-repeated")
async def test_a_withdrawn_turn_is_cancelled_every_second_until_its_closing_event(rig: Rig) -> None:
    watch = rig.open(watched(conversation="conv", fresh=False))
    rig.relay.withdraw(watch, "gone")
    assert [(cancel.turn, cancel.reason, cancel.conversation) for cancel in rig.bus.cancels] == [(TURN, "gone", "conv")]
    rig.wait(3)
    assert len(rig.bus.cancels) == 4
    rig.feed(frame(7, "late"))
    rig.wait(1)
    assert len(rig.bus.cancels) == 5
    rig.feed(ended("", outcome="cancelled"))
    rig.wait(5)
    assert len(rig.bus.cancels) == 5
    assert not rig.screen.is_over


async def test_a_conversation_that_the_turn_began_has_no_queue_to_leave(rig: Rig) -> None:
    rig.relay.withdraw(rig.open(watched(conversation="conv", fresh=True)), "gone")
    assert rig.bus.cancels[0].conversation is None


@pytest.mark.requirement("classic:cancel-is-repeated")
async def test_a_cancel_is_repeated_through_an_outage_and_given_up_after_a_minute(rig: Rig) -> None:
    rig.bus.connected = False
    rig.relay.withdraw(rig.open(watched()), "gone")
    rig.wait(10)
    assert rig.bus.cancels == []
    rig.bus.connected = True
    rig.wait(100)
    assert 49 <= len(rig.bus.cancels) <= 51


@pytest.mark.requirement("classic:cancel-is-repeated")
async def test_the_minute_of_a_cancel_begins_again_when_the_bus_is_back(rig: Rig) -> None:
    rig.bus.connected = False
    rig.relay.withdraw(rig.open(watched()), "gone")
    rig.wait(50)
    rig.bus.connected = True
    rig.bus.reconnect()
    rig.wait(100)
    assert 59 <= len(rig.bus.cancels) <= 61


async def test_a_turn_that_ended_is_not_cancelled(rig: Rig) -> None:
    watch = rig.open(watched())
    rig.feed(ended("a"))
    rig.relay.withdraw(watch, "gone")
    assert rig.bus.cancels == []


async def test_every_open_turn_can_be_ended_with_an_explicit_error(rig: Rig) -> None:
    rig.open(watched())
    error = ErrorInfo(code=ErrorCode.DRAINING, message="stopping")
    rig.relay.withdraw_all(error)
    assert rig.screen.error == error
    assert len(rig.bus.cancels) == 1


async def test_one_broken_sink_does_not_end_the_read_loop(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("a bug")

    broken, healthy = Screen(), Screen()
    monkeypatch.setattr(broken, "show", explode)
    rig.relay.open(watched("broken-turn"), broken)
    rig.relay.open(watched("healthy-turn"), healthy)
    rig.feed(frame(1, "a"), turn="broken-turn")
    rig.feed(frame(1, "a"), turn="healthy-turn")
    assert broken.error is not None
    assert broken.error.code is ErrorCode.INTERNAL
    assert healthy.text == "a"
