"""Keeping the locks of open turns."""

from typing import Any, cast

from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_gateway.relay import Relay
from kitemesh_gateway.turns import RENEW_EVERY_S, Turns
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.stores_memory import memory_stores
from unit.gateway.rig import DeafBus, ManualClock, Screen, watched


class Renewals:
    """Conversations whose lock is renewed, or not."""

    def __init__(self) -> None:
        self.down = False
        self.asked: list[str] = []

    async def renew(self, tenant: str, conversation: str, turn: str) -> None:
        self.asked.append(f"{tenant} {conversation} {turn}")
        if self.down:
            raise Unavailable(ErrorCode.STORE_DOWN, "down")


async def test_a_lock_is_renewed_in_time_and_tried_again_at_once_when_that_fails() -> None:
    clock, bus, stores, renewals = ManualClock(), DeafBus(), memory_stores(), Renewals()
    relay = Relay(bus.as_bus(), Parcels(stores.blobs), stores.live_turns, stores.holds, clock)
    turns = Turns(
        replica="gw",
        bus=bus.as_bus(),
        parcels=Parcels(stores.blobs),
        relay=relay,
        conversations=cast("Any", renewals),
        catalog=cast("Any", None),
        clock=clock,
        store_state=Dependency("mongodb"),
        budget_s=600,
        max_open=10,
    )
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
