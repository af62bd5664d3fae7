"""What is said of tenants, on the twin and on both drivers."""

import pytest
from msgspec.structs import replace

from integration.store.backends import Backend
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.tenancy import DEFAULT_TENANT, Limits, TenantRecord


def _record(name: str, **fields: object) -> TenantRecord:
    full = TenantRecord(
        id=name,
        limits=Limits(requests_per_minute=600, concurrent_turns=8),
        key_limits=Limits(tokens_per_minute=1000),
        default_agent="guide",
        models=("scripted", "agent:guide"),
        priority="batch",
        retention_days={"turns": 3, "audit": 900},
    )
    return replace(full, **fields)


async def test_what_is_said_of_a_tenant_comes_back_with_its_time(stores: Stores, tenant: str) -> None:
    assert await stores.tenants.get(tenant) is None
    stored = await stores.tenants.put(_record(tenant))
    assert stored.updated_at_s > 1_700_000_000
    assert replace(stored, updated_at_s=0.0) == _record(tenant)
    assert await stores.tenants.get(tenant) == stored


async def test_what_is_said_takes_the_place_of_all_that_was(stores: Stores, tenant: str) -> None:
    await stores.tenants.put(_record(tenant))
    stored = await stores.tenants.put(TenantRecord(id=tenant, priority="interactive"))
    assert replace(stored, updated_at_s=0.0) == TenantRecord(id=tenant, priority="interactive")
    assert await stores.tenants.get(tenant) == stored


async def test_what_was_taken_back_is_as_if_it_had_never_been(stores: Stores, tenant: str) -> None:
    assert not await stores.tenants.remove(tenant)
    await stores.tenants.put(_record(tenant))
    assert await stores.tenants.remove(tenant)
    assert not await stores.tenants.remove(tenant)
    assert await stores.tenants.get(tenant) is None
    assert tenant not in [record.id for record in await stores.tenants.page(limit=10_000)]
    stored = await stores.tenants.put(_record(tenant))
    assert await stores.tenants.get(tenant) == stored


async def test_records_are_listed_by_name(stores: Stores, tenant: str) -> None:
    names = [f"{tenant}-{letter}" for letter in "abcd"]
    for name in reversed(names):
        await stores.tenants.put(_record(name))
    page = await stores.tenants.page(after=names[0], limit=2)
    assert [record.id for record in page] == names[1:3]
    assert [record.id for record in (await stores.tenants.page(after=names[2]))][:1] == names[3:]


@pytest.mark.requirement("tenants:changes-are-told")
async def test_what_was_put_or_removed_since_a_mark_is_told(backend: Backend, tenant: str) -> None:
    tenants = backend.stores.tenants
    kept, gone, later = (f"{tenant}-{n}" for n in ("kept", "gone", "later"))
    for name in (kept, gone):
        await tenants.put(_record(name))
    await backend.age(60)
    changed, mark = await tenants.changes(0)
    assert {kept, gone} <= set(changed)
    # Those of an earlier minute are not told again, except by who asks from the beginning.
    await backend.age(60)
    await tenants.remove(gone)
    await tenants.put(_record(later))
    changed, after = await tenants.changes(mark)
    assert {gone, later} <= set(changed)
    assert kept not in changed
    assert after >= mark
    changed, _ = await tenants.changes(0)
    assert {kept, gone, later} <= set(changed)


async def test_the_record_that_holds_for_all_is_one_of_them(stores: Stores) -> None:
    await stores.tenants.put(_record(DEFAULT_TENANT))
    found = await stores.tenants.get(DEFAULT_TENANT)
    assert found is not None
    assert found.limits == Limits(requests_per_minute=600, concurrent_turns=8)
