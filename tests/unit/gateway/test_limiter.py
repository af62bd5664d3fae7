import asyncio
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kitemesh_contracts.errors import ErrorCode
from kitemesh_gateway.limiter import FREE, Limited, Limiter, Permit, estimate
from kitemesh_gateway.limiter_headers import duration
from kitemesh_runtime.tenancy import Limits
from unit.gateway.limited import BUDGET_S, BURST_S, Asker, Fleet

PER_MINUTE = 600
PER_S = PER_MINUTE / 60


def requests(per_minute: int) -> Asker:
    return Asker(limits=Limits(requests_per_minute=per_minute))


def turns(at_once: int) -> Asker:
    return Asker(limits=Limits(concurrent_turns=at_once))


async def refusal(limiter: Limiter, asker: Asker) -> Limited:
    with pytest.raises(Limited) as caught:
        await limiter.admit(asker)
    return caught.value


async def test_whoever_has_no_limits_is_let_through_without_anything() -> None:
    fleet = Fleet(1)
    (limiter,) = fleet.gateways
    permit = await limiter.admit(Asker())
    assert permit is FREE
    assert not permit.is_limited
    assert permit.headers() == {}
    await limiter.reserve(permit, "turn", 10_000)
    limiter.release(permit)
    limiter.ended("turn", 5)
    assert fleet.store.calls == []


async def test_a_small_limit_is_exact_over_three_gateways() -> None:
    fleet = Fleet()
    asker = requests(60)
    told = [await fleet.attempt(fleet.gateways[n % 3], asker) for n in range(15)]
    assert [permit is not None for permit in told] == [True] * 10 + [False] * 5
    assert all(0 < wait <= 1 for wait in fleet.waits)


async def test_a_large_limit_does_not_wait_for_the_store() -> None:
    fleet = Fleet()
    asker = requests(60_000)
    for limiter in fleet.gateways:
        assert await fleet.attempt(limiter, asker)
    assert fleet.store.calls == []
    await fleet.pass_s(6)
    assert fleet.store.calls == [1, 1, 1]


async def test_a_burst_at_one_gateway_gets_what_a_burst_may_and_is_asked_for_in_few_calls() -> None:
    fleet = Fleet()
    told = await asyncio.gather(*(fleet.attempt(fleet.gateways[0], requests(PER_MINUTE)) for _ in range(150)))
    assert sum(permit is not None for permit in told) == PER_S * BURST_S
    assert len(fleet.store.calls) < 8


@pytest.mark.requirement("promise:P18")
@pytest.mark.parametrize(
    ("shares", "seconds"),
    [((1 / 3, 1 / 3, 1 / 3), 90), ((1, 0, 0), 90), ((0.8, 0.15, 0.05), 90)],
    ids=["even", "at one gateway", "uneven"],
)
async def test_ten_times_the_limit_gets_the_limit_and_no_more(shares: tuple[float, ...], seconds: int) -> None:
    fleet = Fleet()
    await fleet.load(requests(PER_MINUTE), seconds, lambda _: [10 * PER_S * share for share in shares], step_ms=50)
    most = PER_MINUTE * 1.05 + PER_S * BURST_S
    assert fleet.most_in_a_minute() <= most
    assert len(fleet.admitted_ms) >= PER_S * seconds


async def test_bursts_and_the_loss_of_a_gateway_do_not_let_more_through() -> None:
    fleet = Fleet()
    rng = random.Random(5)

    def rates(passed_s: float) -> list[float]:
        alive = 3 if passed_s < 40 else 2
        return [rng.choice((0, 0, 30, 120)) for _ in range(alive)]

    await fleet.load(requests(PER_MINUTE), 90, rates, step_ms=50)
    assert fleet.most_in_a_minute() <= PER_MINUTE * 1.05 + PER_S * BURST_S
    assert len(fleet.admitted_ms) >= 0.9 * PER_S * 90


async def test_who_stays_below_the_limit_is_not_refused() -> None:
    fleet = Fleet()
    await fleet.load(requests(PER_MINUTE), 60, lambda _: [0.3 * PER_S, 0.3 * PER_S, 0.3 * PER_S], step_ms=50)
    assert fleet.waits == []
    assert len(fleet.admitted_ms) > 0.85 * PER_MINUTE


@pytest.mark.requirement("promise:P18")
@pytest.mark.parametrize("per_minute", [6, 60, 600])
async def test_who_waits_as_told_is_let_through_and_who_waits_a_second_less_is_not(per_minute: int) -> None:
    fleet = Fleet()
    asker = requests(per_minute)
    rng = random.Random(per_minute)
    for _ in range(12):
        while await fleet.attempt(rng.choice(fleet.gateways), asker):
            pass
        told_s = fleet.waits[-1]
        if told_s > 1:
            await fleet.pass_s(told_s - 1)
            assert await fleet.attempt(rng.choice(fleet.gateways), asker) is None
            told_s = fleet.waits[-1]
        await fleet.pass_s(math.ceil(told_s))
        assert await fleet.attempt(rng.choice(fleet.gateways), asker)


async def test_tokens_are_reserved_before_and_settled_after() -> None:
    fleet = Fleet(1)
    (limiter,) = fleet.gateways
    asker = Asker(limits=Limits(tokens_per_minute=6000))
    permit = await limiter.admit(asker)
    await limiter.reserve(permit, "one", 800)
    assert permit.headers()["x-ratelimit-remaining-tokens"] == "200"
    assert "one" in limiter
    limiter.ended("one", 100)
    limiter.ended("one", 900)
    assert "one" not in limiter
    assert permit.headers()["x-ratelimit-remaining-tokens"] == "900"
    await fleet.pass_s(1)
    permit = await limiter.admit(asker)
    await limiter.reserve(permit, "two", 50_000_000)
    assert permit.headers()["x-ratelimit-remaining-tokens"] == "0"


@pytest.mark.requirement("limits:tokens")
async def test_a_turn_that_gets_another_id_is_settled_under_that() -> None:
    fleet = Fleet(1)
    (limiter,) = fleet.gateways
    asker = Asker(limits=Limits(tokens_per_minute=6000, concurrent_turns=2))
    permits = [await limiter.admit(asker) for _ in range(2)]
    for permit, turn in zip(permits, ("one", "two"), strict=True):
        await limiter.reserve(permit, turn, 400)
    # What was counted under it before is over.
    limiter.renamed("two", "one")
    limiter.renamed("never", "three")
    assert limiter.open_turns() == [("acme", "one")]
    limiter.ended("two", 0)
    limiter.ended("one", 100)
    assert limiter.open_turns() == []
    assert permits[0].headers()["x-ratelimit-remaining-tokens"] == "500"
    for turn in ("four", "five"):
        await limiter.reserve(await limiter.admit(asker), turn, 1)


async def test_a_turn_that_used_more_than_was_thought_is_paid_for() -> None:
    fleet = Fleet(1)
    (limiter,) = fleet.gateways
    asker = Asker(limits=Limits(tokens_per_minute=6000))
    permit = await limiter.admit(asker)
    await limiter.reserve(permit, "one", 1000)
    limiter.ended("one", 3000)
    await fleet.pass_s(1)
    with pytest.raises(Limited) as caught:
        await limiter.reserve(await limiter.admit(asker), "two", 500)
    assert caught.value.code is ErrorCode.RATE_LIMITED
    assert caught.value.retry_after_s == pytest.approx(24, abs=0.5)
    await fleet.pass_s(24.25)
    await limiter.reserve(await limiter.admit(asker), "two", 500)


async def test_ten_times_the_tokens_get_the_limit_and_no_more() -> None:
    fleet = Fleet()
    asker = Asker(tenant_limits=Limits(tokens_per_minute=60_000))
    await fleet.load(asker, 90, lambda _: [7, 7, 6], tokens=500, used=400, step_ms=50)
    used = 400 * fleet.most_in_a_minute()
    assert used <= 60_000 * 1.05 + 10_000
    assert 400 * len(fleet.admitted_ms) >= 0.95 * 90_000


async def test_a_refusal_of_the_tenant_takes_nothing_of_the_key() -> None:
    fleet = Fleet(1)
    (limiter,) = fleet.gateways
    asker = Asker(limits=Limits(requests_per_minute=60), tenant_limits=Limits(requests_per_minute=6))
    permit = await limiter.admit(asker)
    assert permit.headers()["x-ratelimit-limit-requests"] == "6"
    for _ in range(20):
        assert "tenant" in (await refusal(limiter, asker)).message
    own = await limiter.admit(Asker(limits=Limits(requests_per_minute=60)))
    assert own.headers()["x-ratelimit-remaining-requests"] == "8"


async def test_a_turn_that_is_refused_gives_its_request_back() -> None:
    fleet = Fleet(1)
    (limiter,) = fleet.gateways
    asker = Asker(limits=Limits(requests_per_minute=60, concurrent_turns=1))
    permit = await limiter.admit(asker)
    await limiter.reserve(permit, "one", 0)
    for _ in range(30):
        refused = await limiter.admit(asker)
        with pytest.raises(Limited) as caught:
            await limiter.reserve(refused, "two", 0)
        assert caught.value.code is ErrorCode.CONCURRENCY_LIMITED
        limiter.release(refused)
    assert permit.headers()["x-ratelimit-remaining-requests"] == "9"
    assert caught.value.headers["x-ratelimit-remaining-requests"] == "8"


async def test_what_is_released_can_be_taken_again_and_only_once() -> None:
    fleet = Fleet(1)
    (limiter,) = fleet.gateways
    asker = Asker(limits=Limits(requests_per_minute=6, concurrent_turns=1, tokens_per_minute=6000))
    for n in range(5):
        permit = await limiter.admit(asker)
        await limiter.reserve(permit, f"turn-{n}", 900)
        limiter.release(permit)
        limiter.release(permit)
        limiter.ended(f"turn-{n}", 900)
    permit = await limiter.admit(asker)
    assert permit.headers()["x-ratelimit-remaining-tokens"] == "1000"
    assert permit.headers()["x-ratelimit-remaining-requests"] == "0"
    assert len(limiter) == 0


async def test_what_was_taken_long_ago_is_given_back_where_it_counts() -> None:
    fleet = Fleet(1)
    (limiter,) = fleet.gateways
    asker = Asker(limits=Limits(requests_per_minute=1, tokens_per_minute=60))
    permit = await limiter.admit(asker)
    await fleet.pass_s(20)
    limiter.release(permit)
    await limiter.admit(asker)


@pytest.mark.requirement("limits:turns-at-once-are-exact")
async def test_turns_at_once_are_exact_over_three_gateways() -> None:
    fleet = Fleet()
    asker = turns(5)
    permits = [await fleet.attempt(fleet.gateways[n % 3], asker, 1) for n in range(9)]
    assert [permit is not None for permit in permits] == [True] * 5 + [False] * 4
    assert all(wait >= 1 for wait in fleet.waits)
    assert permits[0] is not None
    fleet.gateways[0].ended(permits[0].turn)
    await fleet.pass_s(0.25)
    assert await fleet.attempt(fleet.gateways[2], asker, 1)
    assert await fleet.attempt(fleet.gateways[0], asker, 1) is None


async def test_slots_of_turns_that_run_are_kept_for_as_long_as_they_run() -> None:
    fleet = Fleet()
    asker = turns(3)
    for limiter in fleet.gateways:
        assert await fleet.attempt(limiter, asker, 1)
    await fleet.pass_s(60)
    for limiter in fleet.gateways:
        assert await fleet.attempt(limiter, asker, 1) is None


async def test_slots_of_a_gateway_that_died_are_free_after_ten_seconds() -> None:
    fleet = Fleet()
    asker = turns(2)
    dead = fleet.gateways.pop(0)
    for _ in range(2):
        assert await fleet.attempt(dead, asker, 1)
    await fleet.pass_s(9)
    assert await fleet.attempt(fleet.gateways[0], asker, 1) is None
    await fleet.pass_s(1.5)
    assert await fleet.attempt(fleet.gateways[0], asker, 1)


async def test_a_gateway_that_slept_does_not_use_slots_that_others_have_meanwhile() -> None:
    fleet = Fleet()
    asker = turns(60)
    asleep, awake, _ = fleet.gateways
    assert await fleet.attempt(asleep, asker, 1)
    await asleep.sync()
    fleet.clock.ms += 11_000
    permits = await asyncio.gather(*(fleet.attempt(awake, asker, 1) for _ in range(70)))
    assert sum(permit is not None for permit in permits) == 60
    assert await fleet.attempt(asleep, asker, 1) is None


async def test_a_slot_that_nobody_frees_is_free_a_minute_after_the_budget() -> None:
    fleet = Fleet(1)
    (limiter,) = fleet.gateways
    assert await fleet.attempt(limiter, turns(1), 1)
    await fleet.pass_s(30)
    fleet.clock.ms += int((BUDGET_S + 28) * 1000)
    await fleet.sync()
    assert await fleet.attempt(limiter, turns(1), 1) is None
    await fleet.pass_s(4)
    assert await fleet.attempt(limiter, turns(1), 1)
    assert len(limiter) == 1


async def test_a_gateway_that_stops_gives_back_what_it_has() -> None:
    fleet = Fleet()
    asker = Asker(limits=Limits(concurrent_turns=2, requests_per_minute=6000))
    leaving, other, _ = fleet.gateways
    permit = await fleet.attempt(leaving, asker, 1)
    assert permit is not None
    await fleet.attempt(leaving, asker, 1)
    running = asyncio.create_task(leaving.run())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await fleet.attempt(other, asker, 1)


@pytest.mark.requirement("promise:P18")
async def test_without_the_store_each_gateway_allows_its_share_and_no_more() -> None:
    fleet = Fleet()
    fleet.store.is_down = True
    seconds = 60
    await fleet.load(requests(PER_MINUTE), seconds, lambda _: [10 * PER_S / 3] * 3, step_ms=50)
    bound = PER_S * (seconds + BURST_S)
    assert 0.9 * PER_S * seconds <= len(fleet.admitted_ms) <= bound * 1.02
    assert max(fleet.waits) <= 1


@pytest.mark.requirement("promise:P18")
async def test_the_limit_holds_through_an_outage_and_after_it() -> None:
    fleet = Fleet()
    asker = requests(PER_MINUTE)

    def rates(passed_s: float) -> list[float]:
        fleet.store.is_down = 20 < passed_s < 50
        fleet.store.is_mute = 60 < passed_s < 70
        return [10 * PER_S / 3] * 3

    await fleet.load(asker, 120, rates, step_ms=50)
    assert fleet.most_in_a_minute() <= PER_MINUTE * 1.05 + PER_S * BURST_S
    assert len(fleet.admitted_ms) >= 0.9 * PER_S * 120


async def test_without_the_store_turns_at_once_are_bounded_by_the_share() -> None:
    fleet = Fleet()
    fleet.store.is_down = True
    permits = [await fleet.attempt(fleet.gateways[0], turns(6), 1) for _ in range(5)]
    assert [permit is not None for permit in permits] == [True, True, False, False, False]
    fleet.store.is_down = False
    await fleet.pass_s(0.5)
    permits = [await fleet.attempt(fleet.gateways[1], turns(6), 1) for _ in range(5)]
    assert [permit is not None for permit in permits] == [True] * 4 + [False]


async def test_a_lease_whose_answer_was_lost_is_asked_for_again_and_not_given_twice() -> None:
    fleet = Fleet(1)
    (limiter,) = fleet.gateways
    asker = Asker(limits=Limits(tokens_per_minute=6000))
    fleet.store.is_mute = True
    permit = await limiter.admit(asker)
    await limiter.reserve(permit, "one", 600)
    fleet.store.is_mute = False
    await fleet.pass_s(0.5)
    # 600 were leased by the lost answer and are here, 600 were spent without the store and are owed.
    assert int(permit.headers()["x-ratelimit-remaining-tokens"]) == pytest.approx(450, abs=60)
    await fleet.pass_s(6)
    assert permit.headers()["x-ratelimit-remaining-tokens"] == "1000"


async def test_a_limit_that_changes_holds_from_the_next_request() -> None:
    fleet = Fleet(1)
    (limiter,) = fleet.gateways
    for _ in range(3):
        assert await fleet.attempt(limiter, requests(60))
    assert await fleet.attempt(limiter, requests(6))
    assert await fleet.attempt(limiter, requests(6)) is None
    assert await fleet.attempt(limiter, requests(0)) is None
    assert fleet.waits[-1] == 60
    assert await fleet.attempt(limiter, turns(0), 1) is None
    assert await fleet.attempt(limiter, Asker())


async def test_keys_tenants_and_anonymous_clients_are_counted_apart() -> None:
    fleet = Fleet(1)
    (limiter,) = fleet.gateways
    limits = Limits(requests_per_minute=6)
    for key, tenant in (("k1", "a"), ("k2", "a"), ("", "a"), ("", "b"), ("a", "a")):
        asker = Asker(tenant=tenant, key=key, limits=limits)
        assert await fleet.attempt(limiter, asker)
        assert await fleet.attempt(limiter, asker) is None
    assert await fleet.attempt(limiter, Asker(tenant="a", tenant_limits=limits))


async def test_idle_subjects_are_forgotten() -> None:
    fleet = Fleet(1)
    (limiter,) = fleet.gateways
    for n in range(50):
        await fleet.attempt(limiter, Asker(key=f"k{n}", limits=Limits(requests_per_minute=600)))
    await fleet.pass_s(15)
    calls = len(fleet.store.calls)
    await fleet.pass_s(5)
    assert len(fleet.store.calls) == calls
    assert limiter._leases._subjects == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0121, "12ms"), (1, "1s"), (1.5, "1.5s"), (59.9999, "1m0s"), (360, "6m0s"), (3690, "1h1m30s")],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


async def test_the_headers_are_those_of_the_tighter_limit() -> None:
    fleet = Fleet(1)
    (limiter,) = fleet.gateways
    asker = Asker(
        limits=Limits(requests_per_minute=60, tokens_per_minute=60_000),
        tenant_limits=Limits(requests_per_minute=600, tokens_per_minute=6000),
    )
    permit = await limiter.admit(asker)
    await limiter.reserve(permit, "one", 500)
    assert permit.headers() == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "500",
        "x-ratelimit-reset-tokens": "5s",
    }


def test_tokens_are_estimated_from_characters_and_the_longest_answer() -> None:
    assert estimate(400, None) == 100 + 256
    assert estimate(400, 50) == 150


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["begin", "begin", "end", "release", "rename", "cancel", "pass", "down", "mute", "up", "again"]
        ),
        st.integers(0, 2),
        st.integers(0, 900),
    ),
    max_size=40,
)


@pytest.mark.requirement("limits:no-slot-leaks")
@settings(max_examples=60, deadline=None)
@given(ACTIONS)
def test_no_slot_is_left_behind_whatever_happens(actions: list[tuple[str, int, int]]) -> None:
    asyncio.run(play(actions))


async def play(actions: list[tuple[str, int, int]]) -> None:
    fleet = Fleet()
    limits = Limits(requests_per_minute=600, tokens_per_minute=60_000, concurrent_turns=4)
    asker = Asker(limits=limits, tenant_limits=Limits(concurrent_turns=6))
    opened: list[tuple[Limiter, Permit]] = []
    for action, n, amount in actions:
        limiter = fleet.gateways[n]
        if action == "begin":
            permit = await fleet.attempt(limiter, asker, amount + 1)
            if permit is not None:
                opened.append((limiter, permit))
        elif action == "cancel":
            attempt = asyncio.create_task(fleet.attempt(limiter, asker, amount + 1))
            for _ in range(amount % 5):
                await asyncio.sleep(0)
            attempt.cancel()
            (done,) = await asyncio.gather(attempt, return_exceptions=True)
            if isinstance(done, Permit):
                opened.append((limiter, done))
        elif action in ("end", "release", "again") and opened:
            limiter, permit = opened[amount % len(opened)]
            if action == "release":
                limiter.release(permit)
            else:
                limiter.ended(permit.turn, amount)
            if action != "again":
                opened.remove((limiter, permit))
        elif action == "rename" and opened:
            limiter, permit = opened[amount % len(opened)]
            limiter.renamed(permit.turn, f"{permit.turn}-again")
        elif action == "pass":
            await fleet.pass_s(0.25 * (1 + amount % 8))
        else:
            fleet.store.is_down, fleet.store.is_mute = action == "down", action == "mute"
    for limiter, permit in opened:
        limiter.ended(permit.turn)
    fleet.store.is_down = fleet.store.is_mute = False
    await fleet.pass_s(90)
    assert [len(limiter) for limiter in fleet.gateways] == [0, 0, 0]
    permits = [await fleet.attempt(fleet.gateways[n % 3], asker, 1) for n in range(5)]
    assert [permit is not None for permit in permits] == [True] * 4 + [False]
    assert permits[0] is not None
    assert permits[0].headers()["x-ratelimit-remaining-tokens"] in {str(10_000 - n) for n in range(5)}


async def test_however_many_are_looked_after_requests_are_served_between_them() -> None:
    fleet = Fleet(1)
    (limiter,) = fleet.gateways
    askers = [Asker(key=f"k{n}", limits=Limits(requests_per_minute=100_000, concurrent_turns=100)) for n in range(1000)]
    for n, asker in enumerate(askers):
        await limiter.reserve(await limiter.admit(asker), f"turn-{n}", 1)
    fleet.store.calls.clear()
    fleet.clock.ms += 6000
    looking = asyncio.create_task(limiter.sync())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not fleet.store.calls
    await limiter.admit(askers[-1])
    await looking
    assert len(fleet.store.calls) > 1
    assert sum(fleet.store.calls) == len(askers)
    for n in range(len(askers)):
        limiter.ended(f"turn-{n}", 1)
    await fleet.pass_s(30)
    fleet.store.calls.clear()
    await fleet.pass_s(30)
    assert fleet.store.calls == []
