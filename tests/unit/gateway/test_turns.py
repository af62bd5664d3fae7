"""Where a request is answered, whose conversation it may go on with, and keeping the locks of open turns."""

from typing import Any, cast

import pytest

from kitemesh_contracts.content import Sampling, TextPart, UserMessage
from kitemesh_contracts.errors import ErrorCode, KitemeshError, NotFound, Unavailable
from kitemesh_gateway.auth import Principal
from kitemesh_gateway.dialects.base import TurnRequest
from kitemesh_gateway.message_ids import MessageIds
from kitemesh_gateway.relay import Relay
from kitemesh_gateway.turns import RENEW_EVERY_S, Turns
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.stores_memory import memory_stores
from unit.gateway.holding import handle
from unit.gateway.rig import DeafBus, ManualClock, Screen, watched

CATALOG = Catalog.model_validate(
    {
        "default_model": "m",
        "providers": {"p": {"kind": "scripted"}},
        "models": {"m": {"provider": "p"}, "other": {"provider": "p"}},
        "agents": {"mine": {"model": "m"}, "theirs": {"model": "m"}},
    }
)


class Renewals:
    """Conversations whose lock is renewed, or not."""

    def __init__(self) -> None:
        self.down = False
        self.asked: list[str] = []

    async def renew(self, tenant: str, conversation: str, turn: str) -> None:
        self.asked.append(f"{tenant} {conversation} {turn}")
        if self.down:
            raise Unavailable(ErrorCode.STORE_DOWN, "down")


class Place:
    """The turns of one gateway, on stores in memory."""

    def __init__(self) -> None:
        self.clock, bus, self.renewals = ManualClock(), DeafBus(), Renewals()
        self.stores = stores = memory_stores(self.clock)
        self.relay = Relay(
            bus.as_bus(),
            Parcels(stores.blobs),
            stores.live_turns,
            stores.holds,
            self.clock,
            conversations=stores.conversations,
        )
        self.turns = self.over(cast("Any", self.renewals), bus)

    def over(self, conversations: Any, bus: DeafBus) -> Turns:
        return Turns(
            replica="gw",
            bus=bus.as_bus(),
            parcels=Parcels(self.stores.blobs),
            relay=self.relay,
            conversations=conversations,
            message_ids=MessageIds(self.stores.claims, self.stores.live_turns),
            catalog=handle(CATALOG),
            clock=self.clock,
            store_state=Dependency("mongodb"),
            budget_s=600,
            max_open=10,
        )


def key(*models: str, default_agent: str | None = None) -> Principal:
    allowed = frozenset(models) if models else None
    return Principal(tenant="t", key="k", scopes=frozenset(), models=allowed, default_agent=default_agent)


def asked(**fields: Any) -> TurnRequest:
    hello = UserMessage(parts=(TextPart(text="Hi"),))
    given = {"messages": (hello,), "sampling": Sampling(), "stream": True, "include_usage": False, "model": None}
    return TurnRequest(**{**given, **fields})


@pytest.mark.requirement("conversation:keys-of-one-tenant")
@pytest.mark.parametrize(
    ("principal", "request_", "answered_by"),
    [
        (key(), asked(), ("m", None)),
        (key("m"), asked(), ("m", None)),
        (key("agent:mine"), asked(), None),
        (key("agent:mine", default_agent="mine"), asked(default_agent=True), ("agent:mine", "mine")),
        (key("agent:mine", default_agent="mine"), asked(default_agent=True, model="m"), None),
        (key("agent:mine"), asked(agent="theirs"), None),
        (key("agent:mine"), asked(agent="mine", model="other"), None),
        (key("agent:mine", "m"), asked(agent="mine", model="m"), ("m", "mine")),
    ],
)
def test_a_key_reaches_what_it_may_name_and_by_no_default_anything_else(
    principal: Principal, request_: TurnRequest, answered_by: tuple[str, str | None] | None
) -> None:
    turns = Place().turns
    if answered_by is None:
        with pytest.raises(KitemeshError):
            turns.route(principal, request_)
    else:
        route = turns.route(principal, request_)
        assert (route.requested, route.agent) == answered_by


@pytest.mark.requirement("conversation:keys-of-one-tenant")
async def test_a_conversation_that_a_key_may_not_see_is_not_gone_on_with() -> None:
    place = Place()
    conversations = place.stores.conversations
    turns = place.over(conversations, DeafBus())
    await conversations.create("t", "theirs", "turn-1", agent="theirs", model="agent:theirs")
    await conversations.create("t", "mine", "turn-2", agent="mine", model="agent:mine")
    with pytest.raises(NotFound) as refused:
        await turns.check_conversation(key("agent:mine"), "theirs")
    assert refused.value.code is ErrorCode.CONVERSATION_UNKNOWN
    for principal, conversation in ((key("agent:mine"), "mine"), (key(), "theirs"), (key("agent:mine"), "new")):
        await turns.check_conversation(principal, conversation)
    await turns.check_conversation(key("agent:mine"), None)


async def test_the_id_of_a_message_is_kept_claimed_where_no_conversation_is_kept() -> None:
    place = Place()
    claims = place.stores.claims
    await claims.claim("acme", "message", "m-1", "turn-1")
    place.relay.open(watched("turn-1", conversation=None, fresh=False, message="m-1"), Screen())
    for _ in range(4):
        place.clock.now_s += RENEW_EVERY_S
        await place.turns.renew_due()
    assert not (await claims.claim("acme", "message", "m-1", "turn-2")).won


async def test_a_lock_is_renewed_in_time_and_tried_again_at_once_when_that_fails() -> None:
    place = Place()
    clock, renewals, relay, turns = place.clock, place.renewals, place.relay, place.turns
    relay.open(watched(conversation="conv", fresh=False), Screen())
    await turns.renew_due()
    assert renewals.asked == []
    clock.now_s += RENEW_EVERY_S
    renewals.down = True
    await turns.renew_due()
    clock.now_s += 1
    renewals.down = False
    await turns.renew_due()
    assert len(renewals.asked) == 2
    await turns.renew_due()
    assert len(renewals.asked) == 2
