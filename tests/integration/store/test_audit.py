"""The audit, on the twin and on both drivers."""

import asyncio

import pytest
from msgspec.structs import replace

from integration.store.backends import Backend
from kitemesh_contracts.errors import Bug, Conflict, ErrorCode
from kitemesh_runtime.audit import AuditRow
from kitemesh_runtime.stores import Stores


def _row(tenant: str, name: str = "1", *, subject: str = "hold") -> AuditRow:
    return AuditRow(
        id=f"{tenant}-{name}",
        tenant=tenant,
        subject=subject,
        what="approval.decided",
        by="key",
        origin="192.0.2.1",
        calls={"a": "approved", "$b.c": "$edited"},
        reason="$why",
    )


async def test_a_deed_is_noted_with_its_time(stores: Stores, tenant: str) -> None:
    await stores.audit.append(tenant, _row(tenant))
    (kept,) = await stores.audit.about(tenant, "hold")
    assert kept.at_s > 1_700_000_000
    assert replace(kept, at_s=0.0) == _row(tenant)


async def test_a_deed_noted_late_has_the_time_at_which_it_was_done(stores: Stores, tenant: str) -> None:
    await stores.audit.append(tenant, _row(tenant, "1"))
    await stores.audit.append(tenant, replace(_row(tenant, "2"), at_s=1_700_000_000.25))
    late, other = await stores.audit.about(tenant, "hold")
    assert (late.id, late.at_s) == (f"{tenant}-2", 1_700_000_000.25)
    assert other.at_s > late.at_s


async def test_noting_twice_is_noting_once_and_the_first_stays(stores: Stores, tenant: str) -> None:
    await stores.audit.append(tenant, _row(tenant))
    kept = await stores.audit.about(tenant, "hold")
    await asyncio.gather(*(stores.audit.append(tenant, replace(_row(tenant), by=f"{n}")) for n in range(20)))
    assert await stores.audit.about(tenant, "hold") == kept


async def test_what_was_done_to_a_subject_comes_oldest_first(backend: Backend, tenant: str) -> None:
    for name in ("2", "1", "3"):
        await backend.stores.audit.append(tenant, _row(tenant, name))
        await backend.age(1)
    await backend.stores.audit.append(tenant, _row(tenant, "4", subject="other"))
    noted = await backend.stores.audit.about(tenant, "hold")
    assert [row.id for row in noted] == [f"{tenant}-{name}" for name in ("2", "1", "3")]


@pytest.mark.requirement("store:groups-writes")
async def test_two_hundred_deeds_at_once_are_all_noted(stores: Stores, tenant: str) -> None:
    await asyncio.gather(*(stores.audit.append(tenant, _row(tenant, f"{n}")) for n in range(200)))
    assert len(await stores.audit.about(tenant, "hold")) == 200


@pytest.mark.requirement("store:tenant-in-every-call")
async def test_another_tenants_audit_is_as_if_it_did_not_exist(stores: Stores, tenant: str, other: str) -> None:
    await stores.audit.append(tenant, _row(tenant))
    before = await stores.audit.about(tenant, "hold")
    assert await stores.audit.about(other, "hold") == []
    with pytest.raises(Conflict) as raised:
        await stores.audit.append(other, replace(_row(tenant), tenant=other))
    assert raised.value.code is ErrorCode.DUPLICATE
    with pytest.raises(Bug):
        await stores.audit.append(other, _row(tenant))
    assert await stores.audit.about(tenant, "hold") == before


async def test_deeds_are_paged_newest_first_of_one_tenant_alone(backend: Backend, tenant: str, other: str) -> None:
    audit = backend.stores.audit
    for n in range(4):
        row = replace(_row(tenant, f"{n}", subject="hold" if n else "key"), values='{"name": "x"}')
        await audit.append(tenant, row)
        # Two of a time: these are in the order of their names.
        if n % 2:
            await backend.age(60)
    await audit.append(other, _row(other, "foreign"))
    first = await audit.page(tenant, subject=None, before=None, limit=3)
    rest = await audit.page(tenant, subject=None, before=first[-1].id, limit=3)
    assert [row.id for row in (*first, *rest)] == [f"{tenant}-{n}" for n in (3, 2, 1, 0)]
    assert {row.values for row in first} == {'{"name": "x"}'}
    assert [row.id for row in await audit.page(tenant, subject="key", before=None, limit=3)] == [f"{tenant}-0"]
    assert await audit.page(tenant, subject=None, before="unknown", limit=3) == []
    assert await audit.page(tenant, subject=None, before=f"{other}-foreign", limit=3) == []
