"""A classic turn that was cancelled and is stored all the same: the test plays bus, store and time."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar, cast

import pytest
from msgspec.structs import replace

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import CancelTurn, Parcel
from kitemesh_contracts.content import AssistantMessage, Step, ToolCall
from kitemesh_contracts.deltas import HoldRef, TurnEnded
from kitemesh_contracts.errors import ErrorCode, ErrorInfo, Unavailable
from kitemesh_gateway.cancelling import REASON, Cancelling
from kitemesh_gateway.relay import TICK_S, Relay
from kitemesh_gateway.turns import CLIENT_GONE
from kitemesh_gateway.watches import Watch
from kitemesh_gateway.withdrawals import GIVE_UP_S, REPEAT_S
from kitemesh_runtime.bus import Bus, Receipt
from kitemesh_runtime.ledger import LedgerRow
from kitemesh_runtime.live_turns import Job, LiveTurn, LiveTurns
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.stores_memory import memory_stores
from kitemesh_runtime.turns import TurnRecord
from unit.gateway.holding import CALL, HOLD, OTHER_CALL, TENANT, TURN, handle, hold, person
from unit.gateway.rig import DeafBus, ManualClock, Screen, ended, live, watched

HELD = ended("", outcome="held", hold=HoldRef(id=HOLD, expires_at_ms=5000))
GONE = ended("", outcome="cancelled", error=ErrorInfo(code=ErrorCode.TURN_CANCELLED, message=REASON))
STEP = Step(step=1, calls=tuple(ToolCall(id=call, name="refund", arguments="{}") for call in (CALL, OTHER_CALL)))
ROW = LedgerRow(
    id=CALL, tenant=TENANT, turn=TURN, tool="refund", effect="once", state="dispatched", by="w", args_sha256="s"
)
TURNS_OF_THE_LOOP = 30
"""More than work on the twins takes that can go on."""
T = TypeVar("T")


class Sending(DeafBus):
    """Takes messages for streams, too, and knows of no other gateway."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, CancelTurn]] = []

    async def send(self, subject: str, payload: bytes, *, msg_id: str, timeout_s: float = 2.5) -> Receipt:
        self.sent.append((subject, codec.decode(codec.CANCEL, payload)))
        return Receipt(len(self.sent), duplicate=False)

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        raise Unavailable(ErrorCode.BUS_DOWN, "nobody answers")

    async def barrier(self, *, timeout_s: float = 1.0) -> None:
        pass


class Moody:
    """A store of turns that can be away."""

    def __init__(self, turns: LiveTurns) -> None:
        self._turns = turns
        self.is_away = False
        self.asked = 0

    async def cancel(self, tenant: str, turn: str, reason: str) -> LiveTurn | TurnRecord | None:
        self.asked += 1
        if self.is_away:
            raise Unavailable(ErrorCode.STORE_DOWN, "away")
        return await self._turns.cancel(tenant, turn, reason)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._turns, name)


class Rig:
    """The gateway that has the turn's client."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.bus = Sending()
        self.stores = memory_stores()
        self.turns = Moody(self.stores.live_turns)
        turns, bus = cast("LiveTurns", self.turns), cast("Bus", self.bus)
        self.relay = Relay(
            bus,
            Parcels(self.stores.blobs),
            turns,
            self.stores.holds,
            self.clock,
            conversations=self.stores.conversations,
        )
        self.cancelling = Cancelling(
            turns,
            self.stores.holds,
            self.stores.ledger,
            self.stores.audit,
            relay=self.relay,
            bus=bus,
            catalog=handle(),
        )
        self.screen = Screen()

    def open(self) -> Watch:
        return self.relay.open(watched(acts=True, model="agent:clerk"), self.screen)

    async def cancel(self) -> str:
        return (await self.cancelling.cancel(person("chat"), TURN, origin="here")).status

    async def store(self, **fields: Any) -> None:
        """Do what the orchestrator does with a turn that holds."""
        await self.stores.holds.open(TENANT, hold(), expires_after_s=600)
        values: dict[str, Any] = {"status": "held", "hold": HOLD, "steps": (STEP,), **fields}
        turn = LiveTurn(id=TURN, tenant=TENANT, version=1, mode="classic", model="agent:clerk", state=b"", **values)
        assert await self.stores.live_turns.insert(TENANT, turn)

    def feed(self, message: TurnEnded | Parcel) -> None:
        self.bus.listeners[subjects.live_of("gw")](live(), codec.encode(message))

    def wait(self, seconds: float) -> None:
        end_s = self.clock.now_s + seconds
        while self.clock.now_s < end_s:
            self.clock.now_s += TICK_S
            self.relay.tick()

    async def follow(self) -> None:
        await soon(self.cancelling.run_next())

    async def is_idle(self) -> bool:
        """Tell whether nothing waits to be cancelled in the store."""
        waiting = asyncio.ensure_future(self.cancelling.run_next())
        for _ in range(TURNS_OF_THE_LOOP):
            await asyncio.sleep(0)
        idle = not waiting.done()
        waiting.cancel()
        return idle

    async def status(self) -> str:
        turn = await self.stores.live_turns.get(TENANT, TURN)
        assert turn is not None
        return turn.status

    async def hold_status(self) -> str:
        held = await self.stores.holds.get(TENANT, HOLD)
        assert held is not None
        return held.status


async def soon(work: Awaitable[T]) -> T:
    async with asyncio.timeout(5):
        return await work


@pytest.fixture
async def rig() -> Rig:
    opened = Rig()
    await opened.relay.listen("gw")
    return opened


@pytest.mark.requirement("cancel:no-call-begins-after-it")
@pytest.mark.parametrize("stays", [True, False])
async def test_a_turn_that_holds_after_its_cancel_was_answered_is_cancelled_in_the_store(rig: Rig, stays: bool) -> None:
    watch = rig.open()
    assert await rig.cancel() == "cancelled"
    if not stays:
        rig.relay.withdraw(watch, CLIENT_GONE)
    jobs = (Job(kind="tool", step=1, pool="default", calls=(CALL,)),)
    await rig.store(jobs=jobs)
    rig.feed(HELD)
    await rig.follow()
    assert (await rig.status(), await rig.hold_status()) == ("cancelling", "cancelled")
    assert (await rig.stores.ledger.dispatch(TENANT, ROW)).state == "cancelled"
    assert rig.bus.sent == [
        (subjects.control_cancel(TURN), CancelTurn(turn=TURN, tenant=TENANT, reason=REASON)),
    ]
    (row,) = await rig.stores.audit.about(TENANT, HOLD)
    assert (row.what, row.reason) == ("approval.cancelled", REASON)


@pytest.mark.requirement("cancel:no-call-begins-after-it")
async def test_the_broadcast_goes_on_behind_the_hold_until_the_turn_has_ended(rig: Rig) -> None:
    rig.open()
    await rig.cancel()
    await rig.store()
    rig.feed(HELD)
    await rig.follow()
    before = len(rig.bus.cancels)
    rig.wait(2 * REPEAT_S)
    assert len(rig.bus.cancels) > before
    assert await rig.is_idle()
    rig.feed(GONE)
    before = len(rig.bus.cancels)
    rig.wait(5)
    assert len(rig.bus.cancels) == before


async def test_a_closing_event_that_may_say_held_has_the_store_told(rig: Rig) -> None:
    watch = rig.open()
    await rig.cancel()
    rig.relay.withdraw(watch, CLIENT_GONE)
    await rig.store()
    rig.feed(Parcel(tenant=TENANT, blob="b", size=1))
    await rig.follow()
    assert await rig.status() == "cancelling"


async def test_a_turn_whose_closing_event_was_lost_is_cancelled_in_the_store(rig: Rig) -> None:
    watch = rig.open()
    await rig.cancel()
    rig.relay.withdraw(watch, CLIENT_GONE)
    rig.wait(REPEAT_S)
    await rig.follow()
    await rig.store()
    rig.wait(REPEAT_S)
    await rig.follow()
    assert (await rig.status(), await rig.hold_status()) == ("cancelling", "cancelled")


@pytest.mark.requirement("cancel:no-call-begins-after-it")
async def test_a_store_that_is_away_is_told_when_it_is_back(rig: Rig) -> None:
    rig.open()
    await rig.cancel()
    await rig.store()
    rig.turns.is_away = True
    rig.feed(HELD)
    await rig.follow()
    rig.wait(GIVE_UP_S + 2 * REPEAT_S)
    await rig.follow()
    assert await rig.status() == "held"
    rig.turns.is_away = False
    rig.wait(REPEAT_S)
    await rig.follow()
    assert await rig.status() == "cancelling"


@pytest.mark.requirement("cancel:no-call-begins-after-it")
async def test_a_cancel_that_meets_the_hold_between_its_closing_event_and_its_client_is_kept(rig: Rig) -> None:
    rig.open()
    rig.feed(replace(HELD, last=3))
    assert not rig.screen.is_over
    assert await rig.cancel() == "cancelled"
    await rig.store()
    rig.wait(2)
    assert rig.screen.is_over
    await rig.follow()
    assert await rig.status() == "cancelling"


async def test_a_client_that_only_left_cancels_nothing_in_the_store(rig: Rig) -> None:
    rig.relay.withdraw(rig.open(), CLIENT_GONE)
    await rig.store()
    rig.wait(2 * REPEAT_S)
    rig.feed(HELD)
    rig.wait(2 * REPEAT_S)
    assert await rig.is_idle()
    assert (await rig.status(), await rig.hold_status()) == ("held", "open")


async def test_a_turn_that_ended_as_it_was_told_to_needs_no_store(rig: Rig) -> None:
    rig.open()
    await rig.cancel()
    rig.feed(GONE)
    asked = rig.turns.asked
    rig.wait(5)
    assert await rig.is_idle()
    assert rig.turns.asked == asked


async def test_a_turn_that_the_store_knows_to_have_ended_is_not_stopped_any_more(rig: Rig) -> None:
    watch = rig.open()
    await rig.cancel()
    rig.relay.withdraw(watch, CLIENT_GONE)
    record = TurnRecord(
        id=TURN,
        tenant=TENANT,
        status="completed",
        mode="classic",
        model="m",
        accepted_at_ms=1,
        ended_at_ms=2,
        answer=AssistantMessage(text="Done"),
        finish="stop",
    )
    await rig.stores.turns.put(TENANT, record)
    rig.wait(REPEAT_S)
    await rig.follow()
    before = len(rig.bus.cancels)
    rig.wait(5)
    assert len(rig.bus.cancels) == before


async def test_a_second_cancel_forgets_nothing_of_the_first(rig: Rig) -> None:
    rig.open()
    await rig.cancel()
    rig.wait(GIVE_UP_S / 2)
    assert await rig.cancel() == "cancelled"
    rig.wait(GIVE_UP_S - REPEAT_S)
    before = len(rig.bus.cancels)
    rig.wait(REPEAT_S)
    assert len(rig.bus.cancels) > before
    rig.wait(3 * REPEAT_S)
    before = len(rig.bus.cancels)
    rig.wait(5)
    assert len(rig.bus.cancels) == before
