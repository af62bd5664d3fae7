import asyncio

import pytest
from msgspec.structs import replace

from kitemesh_contracts import subjects
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_runtime import directory as module
from kitemesh_runtime.directory import TRUSTED_S, WHOLE_AFTER_S, Directory
from kitemesh_runtime.tenancy import DEFAULT_DAYS, DEFAULT_TENANT, Changes, Limits, TenantRecord
from kitemesh_runtime.tenants_memory import MemoryTenants
from unit.gateway.rig import DeafBus, ManualClock


class WatchedTenants(MemoryTenants):
    """Counts what it is asked, and answers when it is let."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.asked: list[str] = []
        self.is_down = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.begun = asyncio.Event()

    async def changes(self, since: float) -> Changes:
        self.asked.append("changes")
        self.begun.set()
        await self.may_answer.wait()
        if self.is_down:
            raise Unavailable(ErrorCode.STORE_DOWN, "down")
        return await super().changes(since)

    async def get(self, tenant: str) -> TenantRecord | None:
        self.asked.append(tenant)
        return await super().get(tenant)

    async def page(self, *, after: str = "", limit: int = 100) -> list[TenantRecord]:
        self.asked.append("page")
        return await super().page(after=after, limit=limit)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def tenants(clock: ManualClock) -> WatchedTenants:
    return WatchedTenants(clock)


@pytest.fixture
def directory(tenants: WatchedTenants, clock: ManualClock) -> Directory:
    return Directory(tenants, clock)


@pytest.mark.requirement("tenants:defaults")
async def test_what_is_not_said_of_a_tenant_is_as_is_said_of_all(tenants: WatchedTenants, directory: Directory) -> None:
    await tenants.put(
        TenantRecord(
            id=DEFAULT_TENANT,
            limits=Limits(requests_per_minute=60, concurrent_turns=4),
            default_agent="helper",
            retention_days={"turns": 7, "audit": 8},
        )
    )
    said = TenantRecord(
        id="acme",
        limits=Limits(concurrent_turns=9),
        models=("m",),
        priority="batch",
        retention_days={"turns": 3},
    )
    await tenants.put(said)
    await directory.refresh()
    assert replace(directory.of("acme"), updated_at_s=0.0) == TenantRecord(
        id="acme",
        limits=Limits(requests_per_minute=60, concurrent_turns=9),
        default_agent="helper",
        models=("m",),
        priority="batch",
        retention_days={"turns": 3, "audit": 8},
    )
    assert directory.of("other").limits == Limits(requests_per_minute=60, concurrent_turns=4)
    assert (directory.of("other").id, directory.of("other").models) == ("other", None)
    assert [directory.days("acme", kind) for kind in ("turns", "audit", "holds")] == [3, 8, DEFAULT_DAYS["holds"]]
    assert directory.days("other", "turns") == 7
    assert directory.said_of("other") is None


async def test_before_anything_is_read_nothing_is_said_and_nothing_is_to_be_trusted(
    directory: Directory, clock: ManualClock
) -> None:
    assert directory.of("acme") == TenantRecord(id="acme")
    assert directory.days("acme", "turns") == DEFAULT_DAYS["turns"]
    assert directory.fresh_until_s < clock.monotonic()
    await directory.refresh()
    assert directory.fresh_until_s == clock.monotonic() + TRUSTED_S


@pytest.mark.requirement("tenants:changes-are-told")
async def test_only_what_changed_is_read_and_every_answer_follows(
    tenants: WatchedTenants, directory: Directory, clock: ManualClock
) -> None:
    for name in ("a", "b", "c"):
        await tenants.put(TenantRecord(id=name, priority="batch"))
    clock.now_s += 1
    await directory.refresh()
    version = directory.version
    clock.now_s += 1
    tenants.asked.clear()
    await directory.refresh()
    assert tenants.asked == ["changes"]
    assert directory.version == version
    await tenants.put(TenantRecord(id="b", priority="interactive"))
    await tenants.remove("c")
    tenants.asked.clear()
    await directory.refresh()
    assert sorted(tenants.asked) == ["b", "c", "changes"]
    assert [directory.of(name).priority for name in ("a", "b", "c")] == ["batch", "interactive", None]
    assert directory.version > version
    version = directory.version
    await tenants.put(TenantRecord(id=DEFAULT_TENANT, default_agent="helper"))
    await directory.refresh()
    assert [directory.of(name).default_agent for name in ("a", "z")] == ["helper", "helper"]
    assert directory.version > version


async def test_many_changes_are_read_as_pages(
    tenants: WatchedTenants, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 10)
    monkeypatch.setattr(module, "SINGLY_MAX", 5)
    await directory.refresh()
    for n in range(25):
        await tenants.put(TenantRecord(id=f"t{n:02}", priority="batch"))
    tenants.asked.clear()
    await directory.refresh()
    assert tenants.asked == ["changes", "page", "page", "page"]
    assert {directory.of(f"t{n:02}").priority for n in range(25)} == {"batch"}


async def test_what_was_removed_during_a_long_silence_is_gone(
    tenants: WatchedTenants, directory: Directory, clock: ManualClock
) -> None:
    await tenants.put(TenantRecord(id="gone", priority="batch"))
    await directory.refresh()
    await tenants.remove("gone")
    # As it is an hour later: nobody remembers that there was one.
    tenants._changed.clear()
    clock.now_s += WHOLE_AFTER_S + TRUSTED_S + 1
    await directory.refresh()
    assert directory.of("gone").priority is None


async def test_a_failure_leaves_what_was_known_and_adds_no_trust(
    tenants: WatchedTenants, directory: Directory, clock: ManualClock
) -> None:
    await tenants.put(TenantRecord(id="acme", priority="batch"))
    await directory.refresh()
    fresh_until_s = directory.fresh_until_s
    clock.now_s += 3
    tenants.is_down = True
    with pytest.raises(Unavailable):
        await directory.refresh()
    await directory.begin()
    assert directory.fresh_until_s == fresh_until_s
    assert directory.of("acme").priority == "batch"


async def test_a_store_that_does_not_answer_in_time_is_not_waited_for(
    tenants: WatchedTenants, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REFRESH_S", 0.01)
    tenants.may_answer.clear()
    with pytest.raises(Unavailable) as refused:
        await directory.refresh()
    assert refused.value.code is ErrorCode.STORE_DOWN


async def test_who_goes_away_does_not_take_the_reading_from_the_others(
    tenants: WatchedTenants, directory: Directory
) -> None:
    tenants.may_answer.clear()
    first, second = (asyncio.create_task(directory.refresh()) for _ in range(2))
    await tenants.begun.wait()
    first.cancel()
    await asyncio.wait([first])
    tenants.may_answer.set()
    async with asyncio.timeout(5):
        await second
    assert tenants.asked.count("changes") == 1


async def test_a_broadcast_is_followed_at_once(tenants: WatchedTenants, directory: Directory) -> None:
    bus = DeafBus()
    await directory.listen(bus.as_bus())
    running = asyncio.create_task(directory.run())
    await tenants.put(TenantRecord(id="acme", priority="batch"))
    bus.listeners[subjects.TENANT_ALL](subjects.tenant_changed("acme"), b"")
    async with asyncio.timeout(1):
        await tenants.begun.wait()
        await directory.refresh()
    assert tenants.asked == ["changes", "page"]
    assert directory.of("acme").priority == "batch"
    running.cancel()
    await asyncio.wait([running])
