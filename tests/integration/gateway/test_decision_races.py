"""Races on a real mongod: two gateways, each with a connection of its own, and one hold."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pymongo
import pytest

from kitemesh_contracts.errors import ErrorCode, KitemeshError
from kitemesh_contracts.headers import hold_msg_id
from kitemesh_gateway.deciding import Answer, Deciding
from kitemesh_runtime.driver_mongo import open_database
from kitemesh_runtime.holds import Hold
from kitemesh_runtime.indexes_mongo import ensure_indexes
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_mongo import open_stores
from unit.gateway.holding import CALL, HOLD, OTHER_CALL, TENANT, Outbox, handle, hold, person

ANSWERS = (
    Answer(approved=True),
    Answer(approved=False, reason="no"),
    Answer(approved=True, arguments='{"amount":3}'),
)


@pytest.fixture
async def gateways(mongo_url: str) -> AsyncIterator[tuple[Stores, Stores]]:
    name = f"races_{uuid.uuid4().hex[:12]}"
    async with AsyncExitStack() as stack:
        opened: list[Stores] = []
        for _ in range(2):
            database = await stack.enter_async_context(open_database(mongo_url, name=name, driver="pymongo"))
            await ensure_indexes(database)
            opened.append(await stack.enter_async_context(open_stores(database)))
        yield opened[0], opened[1]
    with pymongo.MongoClient[dict[str, object]](mongo_url) as client:
        client.drop_database(name)


def decidings(gateways: tuple[Stores, Stores], bus: Outbox) -> list[Deciding]:
    return [Deciding(stores.holds, stores.audit, bus.as_bus(), handle()) for stores in gateways]


@pytest.mark.requirement("approvals:one-winner")
async def test_of_a_hundred_decisions_at_once_on_two_gateways_one_wins(gateways: tuple[Stores, Stores]) -> None:
    bus = Outbox()
    desks = decidings(gateways, bus)
    await gateways[0].holds.open(TENANT, hold(), expires_after_s=600)
    outcomes = await asyncio.gather(
        *(
            desks[n % 2].decide(
                person(key=f"key-{n}"), HOLD, {CALL: ANSWERS[n % 3], OTHER_CALL: ANSWERS[1]}, origin="10.0.0.1"
            )
            for n in range(100)
        ),
        return_exceptions=True,
    )
    won = await gateways[1].holds.get(TENANT, HOLD)
    assert won is not None
    assert (won.status, won.version) == ("decided", 2)
    winner = won.calls[0].verdict
    assert winner is not None
    kind = int(winner.by.removeprefix("key-")) % 3
    assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Hold)] == list(range(kind, 100, 3))
    refusals = [outcome.code for outcome in outcomes if isinstance(outcome, KitemeshError)]
    assert refusals == [ErrorCode.APPROVAL_DECIDED] * (100 - len(range(kind, 100, 3)))
    assert set(bus.msg_ids) == {hold_msg_id(HOLD, 2)}
    assert len(await gateways[0].audit.about(TENANT, HOLD)) == 1


async def test_a_decision_and_a_cancel_at_once_leave_one_truth(gateways: tuple[Stores, Stores]) -> None:
    desks = decidings(gateways, Outbox())

    async def race(n: int) -> None:
        hold_id = str(uuid.uuid4())
        await gateways[0].holds.open(TENANT, hold(hold_id), expires_after_s=600)
        decided, cancelled = await asyncio.gather(
            desks[n % 2].decide(person(), hold_id, {CALL: ANSWERS[0], OTHER_CALL: ANSWERS[1]}, origin=""),
            gateways[(n + 1) % 2].holds.cancel(TENANT, hold_id, "stopped"),
            return_exceptions=True,
        )
        # Not applied, so the cancel has the last word, whoever came first.
        assert isinstance(cancelled, Hold)
        assert cancelled.status == "cancelled"
        stored = await gateways[0].holds.get(TENANT, hold_id)
        assert stored is not None
        assert stored.status == "cancelled"
        if isinstance(decided, Hold):
            assert stored.calls[0].verdict is not None
        else:
            assert isinstance(decided, KitemeshError)
            assert decided.code is ErrorCode.APPROVAL_GONE
            assert stored.calls[0].verdict is None

    await asyncio.gather(*map(race, range(50)))
