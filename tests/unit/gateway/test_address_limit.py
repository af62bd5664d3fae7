import contextlib

import pytest

from kitemesh_contracts.errors import Busy
from kitemesh_gateway import address_limit
from kitemesh_gateway.address_limit import BURST_S, AddressLimit
from kitemesh_gateway.peers import Peer
from unit.gateway.rig import ManualClock


def peer(n: int) -> Peer:
    return Peer(f"192.0.{n // 250}.{n % 250}")


@pytest.mark.requirement("keys:address-limit")
def test_an_address_has_its_rate_and_a_burst() -> None:
    clock = ManualClock()
    limit = AddressLimit(4, 0, clock)
    passed = 0
    for _ in range(600):
        clock.now_s += 0.1
        with contextlib.suppress(Busy):
            limit.take(lambda: peer(1))
            passed += 1
    assert passed == pytest.approx(4 * 60 + 4 * BURST_S, abs=2)


def test_who_waits_as_told_is_let_in() -> None:
    clock = ManualClock()
    limit = AddressLimit(0.5, 0, clock)
    for _ in range(2):
        limit.take(lambda: peer(1))
    with pytest.raises(Busy) as refused:
        limit.take(lambda: peer(1))
    assert refused.value.retry_after_s is not None
    clock.now_s += refused.value.retry_after_s
    limit.take(lambda: peer(1))


def test_what_is_given_back_was_never_counted() -> None:
    limit = AddressLimit(1, 0, ManualClock())
    for _ in range(100):
        limit.give_back(limit.take(lambda: peer(1)))
    assert len(limit) == 1


def test_without_a_rate_nobody_is_counted() -> None:
    limit = AddressLimit(0, 0, ManualClock())
    for _ in range(1000):
        limit.take(lambda: peer(1))
    assert len(limit) == 0


def test_the_table_is_bounded_and_forgets_whom_it_saw_least_lately(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_limit, "ADDRESSES_MAX", 3)
    limit = AddressLimit(1, 0, ManualClock())
    for n in (1, 2, 3, 1, 4):
        limit.take(lambda n=n: peer(n))  # type: ignore[misc]
    assert len(limit) == 3
    assert list(limit._levels) == ["192.0.0.3", "192.0.0.1", "192.0.0.4"]
