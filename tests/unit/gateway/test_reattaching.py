"""What following a stored turn takes: room at this gateway, and subscriptions only where something would be missed."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.content import AssistantMessage
from kitemesh_contracts.errors import Busy, ErrorCode
from kitemesh_gateway.dialects.completions import Completions
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.message_ids import MessageIds
from kitemesh_gateway.reattaching import Reattaching
from kitemesh_gateway.relay import Relay
from kitemesh_gateway.replies import Replies, Run
from kitemesh_gateway.turns import Turns
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.live_turns import Job, LiveTurn
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.stores_memory import memory_stores
from kitemesh_runtime.turns import TurnRecord
from unit.gateway.rig import TURN, DeafBus, ManualClock, Screen, ended, frame, live, watched

LIVE = LiveTurn(
    id=TURN,
    tenant="acme",
    version=1,
    status="running",
    mode="durable",
    model="m",
    state=b"",
    gateway="gw",
    jobs=(Job(kind="model", step=1, pool="p"),),
)
ENDED = TurnRecord(
    id=TURN,
    tenant="acme",
    status="completed",
    mode="durable",
    model="m",
    gateway="other",
    agent="helper",
    finish="stop",
    answer=AssistantMessage(text="ab"),
)
OWN = {subjects.live_of("gw"), subjects.out_of("gw")}
ASKED_FOR = {subjects.live_turn(TURN), subjects.out_turn(TURN)}
MAX_OPEN = 2


class Rig:
    """Whoever follows gets the answer on a screen; `inside` is called while the turn is followed."""

    def __init__(self) -> None:
        self.bus, self.screen, self.stores = DeafBus(), Screen(), memory_stores()
        clock, parcels = ManualClock(), Parcels(self.stores.blobs)
        self.relay = Relay(
            self.bus.as_bus(),
            parcels,
            self.stores.live_turns,
            self.stores.holds,
            clock,
            conversations=self.stores.conversations,
        )
        self.listened: set[str] = set()
        turns = Turns(
            replica="gw",
            bus=self.bus.as_bus(),
            parcels=parcels,
            relay=self.relay,
            conversations=self.stores.conversations,
            message_ids=MessageIds(self.stores.claims, self.stores.live_turns),
            catalog=cast("Any", None),
            clock=clock,
            store_state=Dependency("mongodb"),
            budget_s=600,
            max_open=MAX_OPEN,
        )
        self.reattaching = Reattaching(
            cast("Any", None),
            self.stores.live_turns,
            turns=turns,
            relay=self.relay,
            replies=cast("Replies", self),
            catalog=cast("Any", SimpleNamespace(current=SimpleNamespace(agents={}))),
            budget_s=600,
            max_body_bytes=1,
            body_timeout_s=1,
        )
        self.exchange = cast("Exchange", SimpleNamespace(dialect=Completions()))

    async def stream(self, _exchange: Exchange, _encoder: object, run: Run, *, opens_at_once: bool) -> None:
        """Play `Replies`: follow the turn, and have its gateway tell the rest of it."""
        assert opens_at_once
        async with run(self.screen):
            self.listened = set(self.bus.listeners)
            self.tell(subjects.out_frame(subjects.out("gw", TURN, 1, 1), 1), codec.encode(frame(1, "a")))
            self.tell(subjects.out_frame(subjects.out("gw", TURN, 1, 1), 2), codec.encode(frame(2, "b", offset=1)))
            self.tell(live(), codec.encode(ended("ab", last=2)))
            await self.screen.over()

    async def whole(self, _exchange: Exchange, _encoder: object, run: Run) -> None:
        """Play `Replies`: wait for the end."""
        async with run(self.screen):
            self.listened = set(self.bus.listeners)
            async with asyncio.timeout(5):
                await self.relay.look_up_next()
            self.tell(live(), codec.encode(ended("ab", last=2)))
            await self.screen.over()

    def tell(self, subject: str, payload: bytes) -> None:
        """Deliver a message to every subscription that it matches."""
        for wildcard, listener in list(self.bus.listeners.items()):
            if wildcard.split(".")[2] == subject.split(".")[2]:
                listener(subject, payload)


@pytest.fixture
async def rig() -> Rig:
    opened = Rig()
    await opened.relay.listen("gw")
    return opened


@pytest.mark.requirement("resume:nothing-is-missed")
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("turn", "asked_for"),
    [
        (LIVE, set()),
        (replace(LIVE, gateway="other"), ASKED_FOR),
        # It may hold, and go on at whichever gateway the hold is answered.
        (replace(LIVE, agent="helper"), ASKED_FOR),
        (ENDED, set()),
    ],
)
async def test_a_turn_is_subscribed_to_unless_all_it_says_comes_here_anyway(
    rig: Rig, turn: LiveTurn | TurnRecord, asked_for: set[str], stream: bool
) -> None:
    if isinstance(turn, LiveTurn):
        await rig.stores.live_turns.insert("acme", turn)
    else:
        await rig.stores.turns.put("acme", turn)
    await (rig.reattaching.follow if stream else rig.reattaching.wait)(rig.exchange, turn)
    assert rig.listened == OWN | asked_for
    assert (rig.screen.text, rig.screen.error) == ("ab", None)
    assert set(rig.bus.listeners) == OWN
    assert rig.relay.readers == 0


@pytest.mark.requirement("fault:queue-full")
async def test_whoever_follows_a_turn_counts_as_a_turn_does_and_is_refused_like_one(rig: Rig) -> None:
    watches = [rig.relay.open(watched(durable=True), Screen()) for _ in range(MAX_OPEN)]
    assert (len(rig.relay), rig.relay.readers) == (1, MAX_OPEN)
    await rig.stores.live_turns.insert("acme", LIVE)
    for answer in (rig.reattaching.follow, rig.reattaching.wait):
        with pytest.raises(Busy) as refused:
            await answer(rig.exchange, LIVE)
        assert (refused.value.code, refused.value.retry_after_s) == (ErrorCode.QUEUE_FULL, 1.0)
    assert [rig.relay.close(watches[0]), rig.relay.close(watches[0])] == [True, False]
    assert rig.relay.readers == MAX_OPEN - 1
    await rig.reattaching.follow(rig.exchange, LIVE)
    assert rig.screen.text == "ab"
