"""Turns that hold, that outlive their client, that several watch, and that somebody stops."""

import asyncio

import pytest
from msgspec.structs import replace

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.content import AssistantMessage, CallResult, Step, ToolCall, Usage
from kitemesh_contracts.deltas import Frame, HoldRef, TurnEnded
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_gateway.relay import TICK_S, Relay
from kitemesh_gateway.turns import CLIENT_GONE
from kitemesh_gateway.watches import BUDGET_MARGIN_S, LOOK_DURABLE_S, LOOK_S, LOST_S
from kitemesh_runtime.holds import HeldCall, Hold, Verdict
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_memory import memory_stores
from kitemesh_runtime.turns import TurnRecord
from unit.gateway.rig import TURN, DeafBus, ManualClock, Screen, ended, frame, live, watched

CALL = ToolCall(id="c-1", name="delete", arguments='{"path":"a"}')
RAN = CallResult(call="c-1", text="done")
STEP = Step(step=1, attempt=1, last=1, text="I will.", calls=(CALL,))
HELD = ended("I will.", last=1, outcome="held", calls=(CALL,), hold=HoldRef(id="h-1", expires_at_ms=5000))
FAILED = ErrorInfo(code=ErrorCode.UPSTREAM_CUT, message="cut")
UNDELIVERED = ErrorInfo(code=ErrorCode.STORE_DOWN, message="too large to be delivered")


def hold(step: int = 1, *calls: str) -> Hold:
    held = tuple(
        HeldCall(
            id=call,
            name="delete",
            version="v",
            effect="once",
            arguments='{"path":"a","token":"s3cret"}',
            sha256="x",
            sentence="Delete a",
            shown='{"path":"a","token":"***"}',
        )
        for call in calls or ("c-1",)
    )
    return Hold(id=f"h-{step}", tenant="acme", turn=TURN, step=step, model="m", calls=held)


def live_turn(status: str = "running", **fields: object) -> LiveTurn:
    values: dict[str, object] = {"steps": (STEP,), "usage": Usage(input_tokens=3, output_tokens=4), **fields}
    return LiveTurn(
        id=TURN,
        tenant="acme",
        version=1,
        status=status,
        mode="classic",
        model="m",
        state=b"",
        **values,  # type: ignore[arg-type]
    )


class Rig:
    """A relay whose bus and clock are in the test's hands."""

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

    def feed(self, message: Frame | TurnEnded, *, step: int = 1, attempt: int = 1, gateway: str = "gw") -> None:
        """Deliver a message to every subscription that it matches."""
        subject = live(TURN, attempt, step, gateway)
        for wildcard, listener in list(self.bus.listeners.items()):
            if wildcard in (subjects.live_of(gateway), subjects.live_turn(TURN)):
                listener(subject, codec.encode(message))

    def wait(self, seconds: float) -> None:
        end_s = self.clock.now_s + seconds
        while self.clock.now_s < end_s:
            self.clock.now_s += TICK_S
            self.relay.tick()

    async def look_up(self) -> None:
        async with asyncio.timeout(5):
            await self.relay.look_up_next()


@pytest.fixture
async def rig() -> Rig:
    opened = Rig()
    await opened.relay.listen("gw")
    return opened


RESUMED = watched(fresh=False, durable=True, acts=True, after_step=1)


@pytest.mark.requirement("hold:ends-the-stream")
async def test_a_held_turn_ends_its_watch_and_nothing_is_cancelled(rig: Rig) -> None:
    watch = rig.relay.open(watched(acts=True), rig.screen)
    rig.feed(frame(1, "I will."))
    rig.feed(HELD)
    assert (rig.screen.ended, rig.screen.rest) == (HELD, ())
    rig.relay.withdraw(watch, CLIENT_GONE)
    rig.wait(5)
    assert rig.bus.cancels == []
    assert len(rig.relay) == 0


@pytest.mark.requirement("hold:ends-the-stream")
async def test_a_client_that_left_just_before_its_turn_held_takes_its_cancel_back(rig: Rig) -> None:
    watch = rig.relay.open(watched(acts=True), rig.screen)
    rig.relay.withdraw(watch, CLIENT_GONE)
    assert [cancel.disconnect for cancel in rig.bus.cancels] == [True]
    rig.feed(HELD)
    rig.wait(5)
    assert len(rig.bus.cancels) == 1


@pytest.mark.requirement("hold:ends-the-stream")
async def test_a_hold_whose_closing_event_was_missed_is_found_in_the_store(rig: Rig) -> None:
    rig.relay.open(watched(acts=True, conversation=None), rig.screen)
    rig.feed(frame(1, "I w"))
    stored = await rig.stores.holds.open("acme", hold(1, "c-1", "c-2"), expires_after_s=600)
    said = Step(step=1, attempt=1, last=2, text="I will.", calls=(CALL,))
    await rig.stores.live_turns.insert("acme", live_turn("held", hold="h-1", steps=(said,)))
    await rig.stores.holds.decide("acme", "h-1", {"c-2": Verdict(approved=True)})
    rig.wait(LOOK_S + TICK_S)
    await rig.look_up()
    told = rig.screen.ended
    assert told is not None
    assert told.outcome == "held"
    assert told.hold == HoldRef(id="h-1", expires_at_ms=int(stored.expires_at_s * 1000))
    assert told.calls == (ToolCall(id="c-1", name="delete", arguments='{"path":"a","token":"***"}'),)
    assert (told.text, told.finish, told.usage) == ("I will.", "tool_calls", Usage(input_tokens=3, output_tokens=4))
    assert rig.screen.text == "I will."


@pytest.mark.requirement("attempt:waiting-is-not-death")
async def test_a_turn_that_lives_in_the_store_is_not_lost_however_silent_it_is(rig: Rig) -> None:
    rig.relay.open(watched(acts=True), rig.screen)
    rig.feed(frame(1, "a"))
    await rig.stores.live_turns.insert("acme", live_turn())
    rig.wait(LOOK_S + TICK_S)
    await rig.look_up()
    rig.wait(2 * LOST_S)
    assert not rig.screen.is_over
    rig.wait(600 + BUDGET_MARGIN_S)
    assert rig.screen.error is not None
    assert rig.screen.error.code is ErrorCode.TURN_TIMEOUT


async def test_a_hold_that_was_decided_is_waited_for(rig: Rig) -> None:
    rig.relay.open(watched(acts=True), rig.screen)
    await rig.stores.holds.open("acme", hold(), expires_after_s=600)
    await rig.stores.live_turns.insert("acme", live_turn("held", hold="h-1"))
    await rig.stores.holds.decide("acme", "h-1", {"c-1": Verdict(approved=True)})
    rig.wait(LOOK_S + TICK_S)
    await rig.look_up()
    assert not rig.screen.is_over


@pytest.mark.requirement("classic:sign-of-life")
async def test_a_tools_signs_of_life_count_and_show_nothing(rig: Rig) -> None:
    rig.relay.open(watched(acts=True), rig.screen)
    rig.feed(frame(1, "a"))
    for attempt in (1, 1, 3):
        rig.feed(frame(0), attempt=attempt)
        rig.wait(LOST_S / 2)
    rig.feed(frame(1, "b", after=(1, 1, 1)), step=2)
    assert (rig.screen.text, rig.screen.is_over) == ("ab", False)


# Watching what another gateway may be told of


@pytest.mark.requirement("resume:nothing-is-missed")
async def test_an_attached_turn_is_followed_at_whatever_gateway_and_let_go_of(rig: Rig) -> None:
    async with rig.relay.attached(RESUMED, rig.screen):
        rig.feed(frame(1, "old"))
        rig.feed(frame(1, "Done", after=(1, 1, 1)), step=2, gateway="other")
        rig.feed(frame(2, ".", offset=4), step=2, gateway="gw")
        rig.feed(ended("Done.", step=2, last=2, earlier=(STEP,)), step=2, gateway="other")
    assert (rig.screen.text, rig.screen.rest) == ("Done.", ())
    assert rig.screen.ended is not None
    assert rig.screen.ended.earlier == ()
    assert set(rig.bus.listeners) == {subjects.live_of("gw"), subjects.out_of("gw")}
    assert len(rig.relay) == 0


@pytest.mark.requirement("resume:nothing-is-missed")
@pytest.mark.parametrize("stream", [True, False])
async def test_an_attached_turn_that_ended_before_is_found_at_once(rig: Rig, stream: bool) -> None:
    record = TurnRecord(
        id=TURN,
        tenant="acme",
        status="completed",
        mode="classic",
        model="m",
        answer=AssistantMessage(text="Done."),
        steps=(STEP, Step(step=2, text="Now this.", calls=(CALL,), results=(RAN,))),
        finish="stop",
    )
    await rig.stores.turns.put("acme", record)
    async with rig.relay.attached(replace(RESUMED, stream=stream), rig.screen):
        if not stream:
            await rig.look_up()
        await rig.screen.over()
    assert rig.screen.ended is not None
    assert [step.step for step in rig.screen.ended.earlier] == [2]
    assert (rig.screen.ended.step, rig.screen.ended.text) == (3, "Done.")
    assert rig.screen.text == "Now this.Done."


@pytest.mark.requirement("resume:nothing-is-missed")
async def test_an_attached_turn_that_nobody_speaks_of_is_looked_for_soon_and_again_and_ever_more_rarely(
    rig: Rig,
) -> None:
    async with rig.relay.attached(RESUMED, rig.screen):
        for pause_s in LOOK_DURABLE_S:
            rig.wait(pause_s)
            await rig.look_up()
        await rig.stores.holds.open("acme", hold(2), expires_after_s=600)
        again = Step(step=2, text="And this.")
        await rig.stores.live_turns.insert("acme", live_turn("held", hold="h-2", steps=(STEP, again)))
        rig.wait(LOOK_S)
        await rig.look_up()
    assert rig.screen.ended is not None
    assert rig.screen.ended.hold is not None
    assert (rig.screen.ended.hold.id, rig.screen.ended.text, rig.screen.ended.earlier) == ("h-2", "And this.", ())


async def test_the_attempt_of_one_that_waits_for_the_whole_answer_is_nobodys_business(rig: Rig) -> None:
    async with rig.relay.attached(replace(RESUMED, stream=False), rig.screen):
        rig.feed(frame(7, "something else"), step=2)
        rig.feed(ended("Done.", step=2, attempt=2, last=2, earlier=(STEP,)), step=2)
    assert (rig.screen.text, rig.screen.error) == ("Done.", None)


async def test_the_hold_that_was_answered_does_not_end_the_answer(rig: Rig) -> None:
    await rig.stores.holds.open("acme", hold(), expires_after_s=600)
    await rig.stores.live_turns.insert("acme", live_turn("held", hold="h-1"))
    async with rig.relay.attached(RESUMED, rig.screen) as watch:
        rig.feed(HELD)
        rig.relay.look(watch)
        await rig.look_up()
        assert not rig.screen.is_over


@pytest.mark.requirement("tool:client-calls-are-returned")
async def test_client_calls_of_the_held_step_are_news_and_its_text_is_not(rig: Rig) -> None:
    mine = ToolCall(id="c-2", name="mine", arguments="{}")
    async with rig.relay.attached(RESUMED, rig.screen):
        rig.feed(ended("I will.", last=1, calls=(mine,)))
    assert rig.screen.text == ""
    assert rig.screen.ended is not None
    assert rig.screen.ended.calls == (mine,)


@pytest.mark.requirement("resume:durable")
async def test_neither_a_client_that_leaves_nor_a_drain_stops_a_durable_turn(rig: Rig) -> None:
    async with rig.relay.attached(RESUMED, rig.screen) as watch:
        rig.relay.withdraw(watch, CLIENT_GONE)
    error = ErrorInfo(code=ErrorCode.DRAINING, message="stopping")
    async with rig.relay.attached(RESUMED, rig.screen):
        rig.relay.withdraw_all(error)
    assert rig.screen.error == error
    async with rig.relay.attached(RESUMED, rig.screen):
        rig.wait(600 + BUDGET_MARGIN_S)
    rig.wait(5)
    assert rig.bus.cancels == []


async def test_several_may_watch_one_turn(rig: Rig) -> None:
    second = Screen()
    async with rig.relay.attached(RESUMED, rig.screen) as one:
        rig.relay.open(RESUMED, second)
        rig.feed(frame(1, "a"), step=2)
        rig.relay.close(one)
        rig.feed(frame(2, "b"), step=2)
        rig.feed(ended("ab", step=2, last=2), step=2)
    assert (rig.screen.text, rig.screen.is_over) == ("a", False)
    assert second.text == "ab"
    assert second.ended is not None


# Stopping a turn


@pytest.mark.requirement("cancel:told-to-its-client")
async def test_a_turn_that_somebody_stops_is_cancelled_until_its_closing_event_tells_its_client(rig: Rig) -> None:
    watch = rig.relay.open(watched(), rig.screen)
    assert rig.relay.find("acme", TURN) is watch
    assert rig.relay.find("rival", TURN) is None
    assert rig.relay.find("acme", "another") is None
    rig.relay.cancel(watch, "an operator")
    rig.wait(2)
    assert [(cancel.reason, cancel.disconnect) for cancel in rig.bus.cancels] == [("an operator", False)] * 3
    assert not rig.screen.is_over
    stopped = ErrorInfo(code=ErrorCode.TURN_CANCELLED, message="stopped")
    rig.feed(ended("", outcome="cancelled", error=stopped))
    assert rig.screen.error == stopped
    rig.wait(5)
    assert len(rig.bus.cancels) == 3


@pytest.mark.requirement("cancel:told-to-its-client")
async def test_a_client_that_leaves_does_not_weaken_what_somebody_asked_for(rig: Rig) -> None:
    watch = rig.relay.open(watched(), rig.screen)
    rig.relay.cancel(watch, "an operator")
    rig.relay.withdraw(watch, CLIENT_GONE)
    rig.feed(HELD)
    rig.wait(2)
    assert {cancel.disconnect for cancel in rig.bus.cancels} == {False}
    assert len(rig.bus.cancels) == 3


async def test_the_watch_that_lives_for_its_client_is_found_first(rig: Rig) -> None:
    rig.relay.open(RESUMED, Screen())
    own = rig.relay.open(watched(), rig.screen)
    assert rig.relay.find("acme", TURN) is own


# What a retry would do once more


@pytest.mark.requirement("http:acted-turn-is-not-retried")
@pytest.mark.parametrize(
    ("turn", "closing", "has_acted"),
    [
        (watched(), ended("", outcome="failed", error=FAILED), False),
        (watched(acts=True), ended("", outcome="failed", error=FAILED), False),
        (watched(acts=True), ended("", step=2, outcome="failed", error=FAILED, earlier=(STEP,)), False),
        (
            watched(),
            ended("", step=2, outcome="failed", error=FAILED, earlier=(Step(step=1, calls=(CALL,), results=(RAN,)),)),
            True,
        ),
        (
            watched(acts=True),
            ended("", outcome="failed", error=ErrorInfo(code=ErrorCode.TURN_TIMEOUT, message="m")),
            True,
        ),
        (watched(), ended("", outcome="failed", error=ErrorInfo(code=ErrorCode.TURN_TIMEOUT, message="m")), False),
        (
            watched(acts=True),
            ended("", outcome="failed", error=ErrorInfo(code=ErrorCode.CONVERSATION_FULL, message="m")),
            False,
        ),
        (watched(acts=True), ended("", outcome="failed", error=UNDELIVERED), True),
        (watched(), ended("", outcome="failed", error=UNDELIVERED), False),
        (RESUMED, ended("", step=2, outcome="failed", error=FAILED), True),
    ],
)
async def test_a_failure_says_whether_a_tool_may_have_run(
    rig: Rig, turn: object, closing: TurnEnded, has_acted: bool
) -> None:
    rig.relay.open(turn, rig.screen)  # type: ignore[arg-type]
    rig.feed(closing)
    assert rig.screen.error is not None
    assert rig.screen.has_acted is has_acted


@pytest.mark.requirement("http:acted-turn-is-not-retried")
@pytest.mark.parametrize("acts", [False, True])
async def test_what_is_not_known_of_a_turn_with_tools_counts_as_done(rig: Rig, acts: bool) -> None:
    rig.relay.open(watched(acts=acts), rig.screen)
    rig.wait(600 + BUDGET_MARGIN_S)
    assert rig.screen.error is not None
    assert rig.screen.has_acted is acts
