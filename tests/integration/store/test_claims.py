"""Claims, on the twin and on both drivers."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from integration.store.backends import Backend
from kitemesh_runtime.claims import Claim
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_mongo import open_stores
from kitemesh_runtime.turns import TurnRecord

VALUES = ["m-1", "", "a:b:c", "$turn", "Grüße 🙂", "x" * 255]


@pytest.mark.parametrize("value", VALUES)
async def test_the_first_claim_wins_and_later_ones_learn_whose_it_is(stores: Stores, tenant: str, value: str) -> None:
    claims = stores.claims
    mine, theirs = Claim(won=True, turn="one", fingerprint="$f"), Claim(won=False, turn="one", fingerprint="$f")
    assert await claims.claim(tenant, "message", value, "one", fingerprint="$f") == mine
    assert await claims.claim(tenant, "message", value, "two", fingerprint="g") == theirs
    assert await claims.claim(tenant, "message", value, "one", fingerprint="g") == mine
    assert await claims.claim(tenant, "key", value, "two") == Claim(won=True, turn="two")


@pytest.mark.requirement("store:claims-have-one-winner")
async def test_of_twenty_at_once_one_wins(stores: Stores, tenant: str) -> None:
    answers = await asyncio.gather(*(stores.claims.claim(tenant, "message", "m", f"turn-{n}") for n in range(20)))
    winners = [n for n, answer in enumerate(answers) if answer.won]
    assert len(winners) == 1
    assert {answer.turn for answer in answers} == {f"turn-{winners[0]}"}


@pytest.mark.requirement("store:claims-have-one-winner")
async def test_a_claim_that_ran_out_is_taken_over_once_and_keeps_its_turn(backend: Backend, tenant: str) -> None:
    claims = backend.stores.claims
    await claims.claim(tenant, "message", "m", "one")
    await backend.age(31)
    answers = await asyncio.gather(*(claims.claim(tenant, "message", "m", f"turn-{n}") for n in range(10)))
    assert {answer.turn for answer in answers} == {"one"}
    assert [answer.won for answer in answers].count(True) == 1
    assert await claims.claim(tenant, "message", "m", "late") == Claim(won=False, turn="one")


async def test_a_claim_taken_over_keeps_what_it_was_first_claimed_with(backend: Backend, tenant: str) -> None:
    claims = backend.stores.claims
    await claims.claim(tenant, "idem-chat", "k", "one", fingerprint="f")
    await backend.age(31)
    assert await claims.claim(tenant, "idem-chat", "k", "two", fingerprint="g") == Claim(
        won=True, turn="one", fingerprint="f"
    )
    assert await claims.claim(tenant, "idem-chat", "k", "three") == Claim(won=False, turn="one", fingerprint="f")


async def test_a_renewed_claim_does_not_run_out(backend: Backend, tenant: str) -> None:
    claims = backend.stores.claims
    await claims.claim(tenant, "message", "m", "one")
    await backend.age(25)
    assert await claims.renew(tenant, "message", "m", "one") is True
    assert await claims.renew(tenant, "message", "m", "two") is False
    await backend.age(25)
    assert await claims.claim(tenant, "message", "m", "two") == Claim(won=False, turn="one")


async def test_a_settled_claim_never_runs_out(backend: Backend, tenant: str) -> None:
    claims = backend.stores.claims
    await claims.claim(tenant, "message", "m", "one")
    await claims.settle(tenant, "message", "m", "two")
    await claims.settle(tenant, "message", "m", "one")
    await backend.age(3600)
    assert await claims.claim(tenant, "message", "m", "two") == Claim(won=False, turn="one")


async def test_a_claim_whose_turn_is_stored_is_not_taken_over_even_if_nobody_settled_it(
    backend: Backend, tenant: str
) -> None:
    claims, turn = backend.stores.claims, f"{tenant}-one"
    await claims.claim(tenant, "message", "m", turn)
    record = TurnRecord(id=turn, tenant=tenant, status="completed", mode="classic", model="scripted")
    await backend.stores.turns.put(tenant, record)
    await backend.age(31)
    assert await claims.claim(tenant, "message", "m", "two") == Claim(won=False, turn=turn)
    await claims.drop(tenant, "message", "m", turn)
    assert await claims.claim(tenant, "message", "m", "two") == Claim(won=False, turn=turn)


@pytest.mark.parametrize("ended", [False, True])
async def test_a_claim_whose_turn_is_stored_is_valid_before_and_after_its_30_s(
    backend: Backend, tenant: str, ended: bool
) -> None:
    claims, turn = backend.stores.claims, f"{tenant}-one"
    await claims.claim(tenant, "idem-chat", "k", turn, fingerprint="f")
    live = LiveTurn(id=turn, tenant=tenant, version=1, status="queued", mode="durable", model="scripted", state=b"{}")
    await backend.stores.live_turns.insert(tenant, live)
    if ended:
        record = TurnRecord(id=turn, tenant=tenant, status="completed", mode="durable", model="scripted")
        await backend.stores.live_turns.finish(tenant, record, version=1)
    valid = Claim(won=False, turn=turn, fingerprint="f")
    for seconds in (0, 29, 2, 3600):
        await backend.age(seconds)
        assert await claims.claim(tenant, "idem-chat", "k", "two", fingerprint="g") == valid


async def test_a_claim_of_a_turn_that_was_discarded_is_free_once_dropped(stores: Stores, tenant: str) -> None:
    claims, turn = stores.claims, f"{tenant}-one"
    await claims.claim(tenant, "idem-chat", "k", turn, fingerprint="f")
    live = LiveTurn(id=turn, tenant=tenant, version=1, status="queued", mode="durable", model="scripted", state=b"{}")
    await stores.live_turns.insert(tenant, live)
    assert await stores.live_turns.discard(tenant, turn) is True
    await claims.drop(tenant, "idem-chat", "k", turn)
    assert await claims.claim(tenant, "idem-chat", "k", "two", fingerprint="g") == Claim(
        won=True, turn="two", fingerprint="g"
    )


async def test_the_claim_of_an_idempotency_key_carries_the_date_of_its_end(database: Database, tenant: str) -> None:
    async def kept(kind: str) -> dict[str, Any]:
        found: dict[str, Any] = await database.run(
            database.collection("claims").find_one({"_id": f"{tenant}:{kind}:k"})
        )
        return found

    async with open_stores(database) as stores:
        for kind in ("idem-chat", "message"):
            await stores.claims.claim(tenant, kind, "k", f"{tenant}-one")
        first = await kept("idem-chat")
        assert first["kept_until"] - first["claimed_at"] == timedelta(days=1)
        message = await kept("message")
        assert message["kept_until"] - message["claimed_at"] == timedelta(days=30)
        for field in ("until", "kept_until"):
            passed = [{"$set": {field: {"$subtract": [f"${field}", 60_000]}}}]
            dated = {"tenant": tenant, field: {"$type": "date"}}
            await database.run(database.collection("claims").update_many(dated, passed))
        for kind in ("idem-chat", "message"):
            assert (await stores.claims.claim(tenant, kind, "k", "two")).won is True
        taken_over = await kept("idem-chat")
        assert taken_over["kept_until"] - taken_over["until"] == timedelta(days=1, seconds=-4)
        assert taken_over["kept_until"] >= first["kept_until"]
        message = await kept("message")
        assert message["kept_until"] - message["until"] == timedelta(days=30, seconds=-30)


async def test_a_dropped_claim_is_free_again(stores: Stores, tenant: str) -> None:
    claims = stores.claims
    await claims.claim(tenant, "message", "m", "one")
    await claims.drop(tenant, "message", "m", "two")
    assert await claims.claim(tenant, "message", "m", "two") == Claim(won=False, turn="one")
    await claims.drop(tenant, "message", "m", "one")
    assert await claims.claim(tenant, "message", "m", "two") == Claim(won=True, turn="two")
    await claims.settle(tenant, "message", "m", "two")
    await claims.drop(tenant, "message", "m", "two")
    assert await claims.claim(tenant, "message", "m", "three") == Claim(won=False, turn="two")


@pytest.mark.requirement("store:tenant-in-every-call")
async def test_tenants_do_not_see_each_others_claims(stores: Stores, tenant: str, other: str) -> None:
    claims = stores.claims
    await claims.claim(tenant, "message", "m", "one")
    assert await claims.renew(other, "message", "m", "one") is False
    await claims.settle(other, "message", "m", "one")
    await claims.drop(other, "message", "m", "one")
    assert await claims.claim(other, "message", "m", "two") == Claim(won=True, turn="two")
    assert await claims.claim(tenant, "message", "m", "two") == Claim(won=False, turn="one")


async def test_a_key_that_nobody_stored_a_turn_for_is_taken_over_after_four_seconds(
    backend: Backend, tenant: str
) -> None:
    claims = backend.stores.claims
    await claims.claim(tenant, "idem-chat", "k", "one", fingerprint="f")
    await backend.age(3)
    assert await claims.claim(tenant, "idem-chat", "k", "two") == Claim(won=False, turn="one", fingerprint="f")
    await backend.age(2)
    answers = await asyncio.gather(*(claims.claim(tenant, "idem-chat", "k", f"late-{n}") for n in range(5)))
    assert sorted(answer.won for answer in answers) == [False, False, False, False, True]
    assert {answer.turn for answer in answers} == {"one"}


async def test_a_settled_claim_is_dropped_only_where_that_is_asked_for(stores: Stores, tenant: str) -> None:
    claims = stores.claims
    await claims.claim(tenant, "idem-chat", "k", "one")
    await claims.settle(tenant, "idem-chat", "k", "one")
    await claims.drop(tenant, "idem-chat", "k", "one")
    assert (await claims.claim(tenant, "idem-chat", "k", "two")).won is False
    await claims.drop(tenant, "idem-chat", "k", "two", settled=True)
    assert (await claims.claim(tenant, "idem-chat", "k", "two")).won is False
    await claims.drop(tenant, "idem-chat", "k", "one", settled=True)
    assert (await claims.claim(tenant, "idem-chat", "k", "two")).won is True
