"""API keys, on the twin and on both drivers."""

import asyncio

import pytest
from msgspec.structs import replace

from integration.store.backends import Backend
from kitemesh_contracts.errors import Bug, Conflict, ErrorCode
from kitemesh_runtime.keys import KeyChanges, KeyRecord
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.tenancy import Limits


def _key(tenant: str, name: str, *, created_at_s: float = 1.0) -> KeyRecord:
    return KeyRecord(
        id=f"{tenant}-{name}",
        tenant=tenant,
        digest=f"digest-{tenant}-{name}",
        scopes=("chat", "admin"),
        created_at_s=created_at_s,
        name=name,
        default_agent="guide",
        models=("scripted", "agent:guide"),
        expires_at_s=2_000_000_000.25,
        limits=Limits(requests_per_minute=60),
        priority="batch",
        created_by="a-key",
    )


async def test_a_key_is_found_by_its_digest_alone(stores: Stores, tenant: str) -> None:
    key = _key(tenant, "one")
    await stores.keys.put(tenant, key)
    assert await stores.keys.find(key.digest) == key
    assert await stores.keys.find("digest-unknown") is None


@pytest.mark.parametrize("field", ["id", "digest"])
async def test_an_id_or_a_digest_that_is_taken_is_refused(stores: Stores, tenant: str, other: str, field: str) -> None:
    taken, fresh = _key(tenant, "one"), _key(other, "two")
    await stores.keys.put(tenant, taken)
    clash = KeyRecord(
        id=taken.id if field == "id" else fresh.id,
        tenant=other,
        digest=taken.digest if field == "digest" else fresh.digest,
        scopes=(),
        created_at_s=1.0,
    )
    with pytest.raises(Conflict) as raised:
        await stores.keys.put(other, clash)
    assert raised.value.code is ErrorCode.DUPLICATE
    assert await stores.keys.find(taken.digest) == taken
    assert await stores.keys.list(other) == []


async def test_keys_are_listed_newest_first(stores: Stores, tenant: str) -> None:
    keys = [_key(tenant, str(n), created_at_s=float(n)) for n in range(3)]
    for key in keys:
        await stores.keys.put(tenant, key)
    assert await stores.keys.list(tenant) == keys[::-1]


async def test_revoking_is_for_good_and_again_is_the_same(stores: Stores, tenant: str) -> None:
    key = _key(tenant, "one")
    await stores.keys.put(tenant, key)
    revoked = await stores.keys.revoke(tenant, key.id)
    assert revoked is not None
    assert revoked.revoked_at_s is not None
    assert revoked.revoked_at_s > 1_700_000_000
    assert await stores.keys.revoke(tenant, key.id) == revoked
    assert await stores.keys.find(key.digest) == revoked
    assert await stores.keys.revoke(tenant, "unknown") is None


async def test_keys_are_paged_newest_first(stores: Stores, tenant: str, other: str) -> None:
    keys = [_key(tenant, str(n), created_at_s=float(n // 2)) for n in range(5)]
    for key in keys:
        await stores.keys.put(tenant, key)
    await stores.keys.put(other, _key(other, "x"))
    first = await stores.keys.page(tenant, before=None, limit=2)
    second = await stores.keys.page(tenant, before=first[-1].id, limit=2)
    rest = await stores.keys.page(tenant, before=second[-1].id, limit=2)
    assert [*first, *second, *rest] == keys[::-1]
    assert list(await stores.keys.page(tenant, before="unknown", limit=2)) == []
    assert list(await stores.keys.page(tenant, before=f"{other}-x", limit=2)) == []


async def test_only_what_is_named_is_changed(stores: Stores, tenant: str) -> None:
    key = _key(tenant, "one")
    await stores.keys.put(tenant, key)
    assert await stores.keys.update(tenant, key.id, KeyChanges()) == key
    changes = KeyChanges(name="$name", models=None, expires_at_s=None, limits=Limits(tokens_per_minute=5))
    changed = replace(key, name="$name", models=None, expires_at_s=None, limits=Limits(tokens_per_minute=5))
    assert await stores.keys.update(tenant, key.id, changes) == changed
    assert await stores.keys.find(key.digest) == changed
    changed = replace(changed, default_agent=None, models=("m",), priority=None, expires_at_s=9.5)
    changes = KeyChanges(default_agent=None, models=("m",), priority=None, expires_at_s=9.5)
    assert await stores.keys.update(tenant, key.id, changes) == changed
    assert await stores.keys.update(tenant, "unknown", changes) is None


@pytest.mark.requirement("keys:no-escalation")
async def test_a_change_takes_scopes_away_and_never_gives_one(stores: Stores, tenant: str) -> None:
    key = _key(tenant, "one")
    await stores.keys.put(tenant, key)
    changed = await stores.keys.update(tenant, key.id, KeyChanges(scopes=("operator", "chat")))
    assert changed is not None
    assert changed.scopes == ("chat",)


@pytest.mark.requirement("keys:rotation")
async def test_a_key_that_is_replaced_runs_out_after_its_grace_and_names_its_successor(
    stores: Stores, tenant: str
) -> None:
    key, endless = _key(tenant, "one"), replace(_key(tenant, "two"), expires_at_s=None)
    for each in (key, endless):
        await stores.keys.put(tenant, each)
    replaced = await stores.keys.replace(tenant, key.id, by="successor", grace_s=60)
    again = await stores.keys.replace(tenant, endless.id, by="successor", grace_s=0)
    assert replaced is not None
    assert again is not None
    assert again.expires_at_s is not None
    assert replaced.expires_at_s is not None
    assert 59 < replaced.expires_at_s - again.expires_at_s <= 60.01
    assert replace(replaced, expires_at_s=key.expires_at_s, rotated_to="") == key
    assert replaced.rotated_to == "successor"


async def test_a_key_that_runs_out_sooner_than_its_grace_still_does(stores: Stores, tenant: str) -> None:
    key = _key(tenant, "one")
    await stores.keys.put(tenant, key)
    replaced = await stores.keys.replace(tenant, key.id, by="successor", grace_s=1e9)
    assert replaced is not None
    assert replaced.expires_at_s == key.expires_at_s


@pytest.mark.requirement("keys:rotation")
async def test_of_many_who_replace_a_key_at_once_one_wins(stores: Stores, tenant: str) -> None:
    key = _key(tenant, "one")
    await stores.keys.put(tenant, key)
    told = await asyncio.gather(
        *(stores.keys.replace(tenant, key.id, by=f"by-{n}", grace_s=60) for n in range(10)),
    )
    (winner,) = [record for record in told if record is not None]
    found = await stores.keys.get(tenant, key.id)
    assert found == winner


async def test_a_key_that_serves_no_more_is_not_replaced(stores: Stores, tenant: str) -> None:
    revoked, expired = _key(tenant, "one"), replace(_key(tenant, "two"), expires_at_s=1.0)
    for each in (revoked, expired):
        await stores.keys.put(tenant, each)
    await stores.keys.revoke(tenant, revoked.id)
    for name in (revoked.id, expired.id, "unknown"):
        assert await stores.keys.replace(tenant, name, by="successor", grace_s=60) is None


@pytest.mark.requirement("keys:changes-are-told")
async def test_every_write_of_a_key_is_told_since_a_mark(backend: Backend, tenant: str) -> None:
    keys = backend.stores.keys
    names = ["put", "changed", "replaced", "revoked", "left"]
    for name in names[1:]:
        await keys.put(tenant, _key(tenant, name))
    await backend.age(60)
    nothing, mark = await keys.changes(None)
    assert list(nothing) == []
    await backend.age(60)
    await keys.put(tenant, _key(tenant, "put"))
    await keys.update(tenant, f"{tenant}-changed", KeyChanges(name="x"))
    await keys.replace(tenant, f"{tenant}-replaced", by="successor", grace_s=60)
    await keys.revoke(tenant, f"{tenant}-revoked")
    changed, after = await keys.changes(mark)
    assert {name for name in changed if name.startswith(tenant)} == {f"{tenant}-{name}" for name in names[:4]}
    assert after >= mark


@pytest.mark.requirement("store:tenant-in-every-call")
async def test_another_tenants_key_is_neither_listed_nor_revoked(stores: Stores, tenant: str, other: str) -> None:
    key = _key(tenant, "one")
    await stores.keys.put(tenant, key)
    assert await stores.keys.list(other) == []
    assert await stores.keys.revoke(other, key.id) is None
    assert await stores.keys.get(other, key.id) is None
    assert list(await stores.keys.page(other, before=None, limit=10)) == []
    assert await stores.keys.update(other, key.id, KeyChanges(name="taken")) is None
    assert await stores.keys.replace(other, key.id, by="successor", grace_s=0) is None
    with pytest.raises(Bug):
        await stores.keys.put(other, _key(tenant, "two"))
    assert await stores.keys.find(key.digest) == key
