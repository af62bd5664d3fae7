"""Claims, on the twin and on both drivers."""

import asyncio

import pytest

from integration.store.backends import Backend
from kitemesh_runtime.stores import Claim, Stores, TurnRecord

VALUES = ["m-1", "", "a:b:c", "$turn", "Grüße 🙂", "x" * 255]


@pytest.mark.parametrize("value", VALUES)
async def test_the_first_claim_wins_and_later_ones_learn_whose_it_is(stores: Stores, tenant: str, value: str) -> None:
    claims = stores.claims
    assert await claims.claim(tenant, "message", value, "one", fingerprint="f") == Claim(won=True, turn="one")
    assert await claims.claim(tenant, "message", value, "two") == Claim(won=False, turn="one")
    assert await claims.claim(tenant, "message", value, "one") == Claim(won=True, turn="one")
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
