"""API keys, on the twin and on both drivers."""

import pytest

from kitemesh_contracts.errors import Bug, Conflict, ErrorCode
from kitemesh_runtime.stores import KeyRecord, Stores


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


@pytest.mark.requirement("store:tenant-in-every-call")
async def test_another_tenants_key_is_neither_listed_nor_revoked(stores: Stores, tenant: str, other: str) -> None:
    key = _key(tenant, "one")
    await stores.keys.put(tenant, key)
    assert await stores.keys.list(other) == []
    assert await stores.keys.revoke(other, key.id) is None
    with pytest.raises(Bug):
        await stores.keys.put(other, _key(tenant, "two"))
    assert await stores.keys.find(key.digest) == key
