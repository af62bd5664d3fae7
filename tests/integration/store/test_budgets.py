"""Budgets, on the twin and on both drivers."""

import asyncio
import uuid
from collections.abc import Mapping

import pytest

from integration.store.backends import Backend
from kitemesh_contracts.errors import Bug, Unavailable
from kitemesh_runtime.budgets import Ask, Budgets, Grant, RateAsk, RateGrant, SlotsAsk, SlotsGrant
from kitemesh_runtime.budgets_mongo import GROUP_MAX
from kitemesh_runtime.driver_mongo import open_database
from kitemesh_runtime.stores_mongo import open_stores

SLOW = 0.001
"""So few a second that what a test takes is not felt."""

GATEWAYS = ("one", "two", "three")


@pytest.fixture
def subject() -> str:
    return f"k:{uuid.uuid4().hex[:12]}"


@pytest.fixture
def budgets(backend: Backend) -> Budgets:
    return backend.stores.budgets


def rate(
    capacity: float, *, per_s: float = SLOW, back: float = 0, need: float = 0, piece: float = 1, want: float = 0
) -> RateAsk:
    return RateAsk(per_s=per_s, capacity=capacity, back=back, need=need, piece=piece, want=want)


class Gateway:
    """Asks about one subject, and counts its questions."""

    def __init__(self, budgets: Budgets, name: str, subject: str) -> None:
        self._budgets = budgets
        self._name = name
        self._subject = subject
        self.seq = 0

    async def ask(
        self,
        *,
        requests: RateAsk | None = None,
        tokens: RateAsk | None = None,
        slots: SlotsAsk | None = None,
        gateways: int = 3,
        seq: int | None = None,
    ) -> Grant | None:
        self.seq += 1
        ask = Ask(
            subject=self._subject,
            seq=self.seq if seq is None else seq,
            gateways=gateways,
            requests=requests,
            tokens=tokens,
            slots=slots,
        )
        return (await self._budgets.exchange(self._name, [ask])).get(self._subject)

    async def draw(self, asked: RateAsk) -> RateGrant:
        grant = await self.ask(requests=asked)
        assert grant is not None
        assert grant.requests is not None
        return grant.requests

    async def sit(self, limit: int, used: int, want: int) -> SlotsGrant:
        grant = await self.ask(slots=SlotsAsk(limit=limit, used=used, want=want))
        assert grant is not None
        assert grant.slots is not None
        return grant.slots


@pytest.fixture
def gateway(budgets: Budgets, subject: str) -> Gateway:
    return Gateway(budgets, "one", subject)


@pytest.fixture
def three(budgets: Budgets, subject: str) -> list[Gateway]:
    return [Gateway(budgets, name, subject) for name in GATEWAYS]


async def test_a_subject_that_nobody_asked_about_is_full(gateway: Gateway) -> None:
    grant = await gateway.draw(rate(10, need=4))
    assert (grant.granted, round(grant.level)) == (4, 6)


async def test_what_is_needed_is_given_whole_or_in_pieces(gateway: Gateway) -> None:
    assert (await gateway.draw(rate(10, need=12, piece=4))).granted == 8
    assert (await gateway.draw(rate(10, need=4, piece=4))).granted == 0
    assert (await gateway.draw(rate(10, need=2, piece=2))).granted == 2


async def test_beyond_what_is_needed_a_gateway_gets_whole_units_of_its_share(gateway: Gateway) -> None:
    assert (await gateway.draw(rate(21, need=1, want=50))).granted == 1 + 6
    assert (await gateway.draw(rate(21, want=2))).granted == 2
    assert (await gateway.draw(rate(21, want=50))).granted == 4
    grant = await gateway.ask(requests=rate(21, want=50), gateways=1)
    assert grant is not None
    assert grant.requests is not None
    assert (grant.requests.granted, round(grant.requests.level)) == (8, 0)


async def test_the_level_rises_with_the_servers_time_up_to_the_capacity(backend: Backend, gateway: Gateway) -> None:
    assert (await gateway.draw(rate(10, per_s=0.5, need=10))).granted == 10
    assert (await gateway.draw(rate(10, per_s=0.5, need=1))).granted == 0
    await backend.age(6.2)
    assert (await gateway.draw(rate(10, per_s=0.5, need=10))).granted == 3
    await backend.age(600)
    grant = await gateway.draw(rate(10, per_s=0.5))
    assert grant.level == 10


async def test_what_is_returned_is_there_for_others_and_what_is_owed_is_paid(three: list[Gateway]) -> None:
    one, two, _ = three
    assert (await one.draw(rate(10, need=10))).granted == 10
    assert (await one.draw(rate(10, back=4))).granted == 0
    assert (await two.draw(rate(10, need=5))).granted == 4
    owing = await one.draw(rate(10, back=-3, need=1, want=5))
    assert (owing.granted, round(owing.level)) == (0, -3)
    assert round((await two.draw(rate(10, back=50))).level) == 10


async def test_a_debt_is_paid_by_time(backend: Backend, gateway: Gateway) -> None:
    assert (await gateway.draw(rate(10, per_s=1, back=-20))).level == -10
    await backend.age(9)
    assert (await gateway.draw(rate(10, per_s=1, need=1))).granted == 0
    await backend.age(2.5)
    assert (await gateway.draw(rate(10, per_s=1, need=1))).granted == 1


async def test_another_limit_holds_from_the_next_question(gateway: Gateway) -> None:
    assert (await gateway.draw(rate(100, need=10))).granted == 10
    grant = await gateway.draw(rate(20, need=1))
    assert (grant.granted, round(grant.level)) == (1, 19)


async def test_requests_and_tokens_are_apart(gateway: Gateway) -> None:
    grant = await gateway.ask(requests=rate(5, need=5), tokens=rate(1000, need=400, piece=400))
    assert grant is not None
    assert grant.requests is not None
    assert grant.tokens is not None
    assert grant.slots is None
    assert (grant.requests.granted, grant.tokens.granted, round(grant.tokens.level)) == (5, 400, 600)
    grant = await gateway.ask(tokens=rate(1000, need=600, piece=600))
    assert grant is not None
    assert grant.requests is None
    assert grant.tokens is not None
    assert grant.tokens.granted == 600
    assert (await gateway.draw(rate(5, need=1))).granted == 0


@pytest.mark.requirement("limits:a-lease-is-given-once")
async def test_the_same_question_is_answered_as_it_was_and_an_older_one_not_at_all(three: list[Gateway]) -> None:
    one, two, _ = three
    asked, slots = rate(10, need=3), SlotsAsk(limit=4, used=1, want=2)
    first = await one.ask(requests=asked, slots=slots, seq=7)
    assert first is not None
    await two.draw(rate(10, need=1))
    assert await one.ask(requests=asked, slots=slots, seq=7) == first
    assert await one.ask(requests=asked, seq=6) is None
    assert round((await two.draw(rate(10))).level) == 6


@pytest.mark.requirement("limits:turns-at-once-are-exact")
async def test_slots_go_to_whoever_asks_first_and_never_beyond_the_limit(three: list[Gateway]) -> None:
    one, two, _ = three
    assert await one.sit(5, 2, 3) == SlotsGrant(held=3, others=0)
    assert await two.sit(5, 1, 4) == SlotsGrant(held=2, others=3)
    assert await one.sit(5, 2, 9) == SlotsGrant(held=3, others=2)
    assert await two.sit(5, 1, 1) == SlotsGrant(held=1, others=3)
    assert await one.sit(5, 2, 9) == SlotsGrant(held=4, others=1)


async def test_slots_in_use_are_kept_when_the_limit_falls(three: list[Gateway]) -> None:
    one, two, _ = three
    await one.sit(10, 6, 6)
    assert await one.sit(2, 6, 7) == SlotsGrant(held=6, others=0)
    assert await two.sit(2, 0, 1) == SlotsGrant(held=0, others=6)


async def test_slots_of_a_gateway_that_is_gone_are_free_after_ten_seconds(
    backend: Backend, three: list[Gateway]
) -> None:
    one, two, three_ = three
    await one.sit(3, 3, 3)
    await backend.age(7)
    assert (await two.sit(3, 0, 1)).held == 0
    await backend.age(4)
    assert (await two.sit(3, 0, 1)).held == 1
    assert (await three_.sit(3, 0, 3)) == SlotsGrant(held=2, others=1)
    # Whoever was away uses what it uses; there is no room beside it until some have ended.
    assert (await one.sit(3, 3, 4)) == SlotsGrant(held=3, others=3)


async def test_a_question_about_rates_leaves_the_slots_as_they_are(backend: Backend, three: list[Gateway]) -> None:
    one, two, _ = three
    await one.sit(2, 0, 2)
    await backend.age(6)
    await one.ask(requests=rate(5))
    assert await two.sit(2, 0, 2) == SlotsGrant(held=0, others=2)
    await backend.age(5)
    assert await two.sit(2, 0, 2) == SlotsGrant(held=2, others=0)


async def test_slots_that_are_not_wanted_are_free_at_once(three: list[Gateway]) -> None:
    one, two, _ = three
    await one.sit(2, 0, 2)
    await one.sit(2, 0, 0)
    assert (await two.sit(2, 0, 2)).held == 2


async def test_a_gateway_silent_for_a_minute_is_forgotten(backend: Backend, three: list[Gateway]) -> None:
    one, two, _ = three
    await one.ask(requests=rate(10, need=1), seq=5)
    await backend.age(61)
    await two.draw(rate(10))
    grant = await one.ask(requests=rate(10, need=1), seq=1)
    assert grant is not None


@pytest.mark.requirement("limits:gateways-together-spend-no-more")
async def test_three_gateways_at_once_never_get_more_than_there_is(three: list[Gateway]) -> None:
    async def ask_often(gateway: Gateway) -> tuple[float, list[SlotsGrant]]:
        drawn, seats = 0.0, []
        for n in range(20):
            grant = await gateway.ask(
                requests=rate(50, need=2, want=3), slots=SlotsAsk(limit=7, used=0, want=1 + n % 5)
            )
            # Those who are the first about a subject may meet, and one asks again.
            if grant is not None:
                assert grant.requests is not None
                assert grant.slots is not None
                drawn += grant.requests.granted
                seats.append(grant.slots)
        return drawn, seats

    told = await asyncio.gather(*(ask_often(gateway) for gateway in three))
    assert sum(drawn for drawn, _ in told) == 50
    assert all(seat.held + seat.others <= 7 for _, seats in told for seat in seats)
    assert all(seats for _, seats in told)


async def test_questions_about_many_subjects_are_one_call(budgets: Budgets, subject: str) -> None:
    count = GROUP_MAX + 20
    asks = [
        Ask(subject=f"{subject}-{n}", seq=1, gateways=1, requests=rate(10, need=n % 12, piece=1)) for n in range(count)
    ]
    grants: Mapping[str, Grant] = await budgets.exchange("one", asks)
    assert len(grants) == count
    for n in range(count):
        granted = grants[f"{subject}-{n}"].requests
        assert granted is not None
        assert granted.granted == min(10, n % 12)
    assert await budgets.exchange("one", []) == {}


async def test_a_store_that_is_away_says_so_and_a_name_that_is_no_id_is_refused(subject: str) -> None:
    async with (
        open_database("mongodb://127.0.0.1:1", name="x", timeout_s=0.3, select_timeout_s=0.2) as database,
        open_stores(database) as stores,
    ):
        ask = Ask(subject=subject, seq=1, gateways=1)
        with pytest.raises(Unavailable):
            await stores.budgets.exchange("one", [ask])
        with pytest.raises(Bug):
            await stores.budgets.exchange("a.b", [ask])
