"""The conversations' lock and queue, on the twin and on both drivers."""

import asyncio
import random

import pytest

from integration.store.backends import Backend
from kitemesh_contracts.errors import Bug
from kitemesh_runtime.conversations import Promoted, Seat, Waiting
from kitemesh_runtime.stores import Stores


async def _own(backend: Backend, tenant: str) -> list[Promoted]:
    """Sweep, and keep what is this test's: a sweep goes over all tenants."""
    return [promoted for promoted in await backend.stores.conversations.sweep() if promoted.tenant == tenant]


async def test_a_created_conversation_is_locked_by_its_first_turn(
    stores: Stores, tenant: str, conversation: str
) -> None:
    await stores.conversations.create(tenant, conversation, "one", agent="guide")
    kept = await stores.conversations.get(tenant, conversation)
    assert kept is not None
    assert (kept.id, kept.tenant, kept.agent) == (conversation, tenant, "guide")
    assert (kept.active, kept.active_started, kept.turns, kept.waiting, kept.promotions) == ("one", True, 1, (), 0)
    assert kept.active_until_s is not None
    assert kept.active_until_s == pytest.approx(kept.created_at_s + 30, abs=1)
    assert kept.updated_at_s == kept.created_at_s


async def test_creating_twice_is_the_same_as_once(stores: Stores, tenant: str, conversation: str) -> None:
    assert await stores.conversations.create(tenant, conversation, "one", agent=None) is True
    before = await stores.conversations.get(tenant, conversation)
    assert await stores.conversations.create(tenant, conversation, "one", agent=None) is False
    assert await stores.conversations.create(tenant, conversation, "two", agent="late") is False
    assert await stores.conversations.get(tenant, conversation) == before


@pytest.mark.requirement("conversation:created-and-released-in-any-order")
async def test_many_creations_at_once_are_one(stores: Stores, tenant: str, conversation: str) -> None:
    create = stores.conversations.create
    made = await asyncio.gather(*(create(tenant, conversation, "one", agent=None) for _ in range(20)))
    assert made.count(True) == 1
    kept = await stores.conversations.get(tenant, conversation)
    assert kept is not None
    assert (kept.active, kept.turns) == ("one", 1)


@pytest.mark.requirement("store:values-are-values")
async def test_values_that_look_like_expressions_are_kept_as_text(
    stores: Stores, tenant: str, conversation: str
) -> None:
    await stores.conversations.create(tenant, conversation, "$tenant", agent="$$ROOT")
    assert await stores.conversations.take(tenant, conversation, "$_id", b"$start", max_waiting=5) == Seat("waiting")
    kept = await stores.conversations.get(tenant, conversation)
    assert kept is not None
    assert (kept.active, kept.agent, kept.waiting) == ("$tenant", "$$ROOT", (Waiting(turn="$_id", start=b"$start"),))
    assert await stores.conversations.take(tenant, conversation, "$_id", b"", max_waiting=5) == Seat("waiting")


async def test_an_unlocked_conversation_is_taken_with_the_next_ordinal(
    stores: Stores, tenant: str, conversation: str
) -> None:
    await stores.conversations.create(tenant, conversation, "one", agent=None)
    assert await stores.conversations.release(tenant, conversation, "one") is None
    assert await stores.conversations.take(tenant, conversation, "two", b"2", max_waiting=5) == Seat("active", 2)
    assert await stores.conversations.take(tenant, conversation, "two", b"2", max_waiting=5) == Seat("active", 2)
    kept = await stores.conversations.get(tenant, conversation)
    assert kept is not None
    assert (kept.active, kept.active_started, kept.turns) == ("two", True, 2)


async def test_an_unknown_conversation_cannot_be_taken(stores: Stores, tenant: str, conversation: str) -> None:
    assert await stores.conversations.take(tenant, conversation, "one", b"", max_waiting=5) == Seat("unknown")
    assert await stores.conversations.get(tenant, conversation) is None


@pytest.mark.requirement("conversation:queue-in-order")
async def test_turns_queue_in_order_up_to_the_bound_and_keep_their_place(
    stores: Stores, tenant: str, conversation: str
) -> None:
    take = stores.conversations.take
    await stores.conversations.create(tenant, conversation, "one", agent=None)
    assert await take(tenant, conversation, "two", b"\x00\xff2", max_waiting=2) == Seat("waiting")
    assert await take(tenant, conversation, "three", b"3", max_waiting=2) == Seat("waiting")
    assert await take(tenant, conversation, "four", b"4", max_waiting=2) == Seat("full")
    assert await take(tenant, conversation, "two", b"again", max_waiting=2) == Seat("waiting")
    assert await take(tenant, conversation, "one", b"", max_waiting=0) == Seat("active", 1)
    kept = await stores.conversations.get(tenant, conversation)
    assert kept is not None
    assert kept.waiting == (Waiting(turn="two", start=b"\x00\xff2"), Waiting(turn="three", start=b"3"))


@pytest.mark.requirement("conversation:queue-in-order")
async def test_releasing_promotes_the_first_who_waits_and_taking_it_up_starts_it(
    stores: Stores, tenant: str, conversation: str
) -> None:
    conversations = stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    for turn in ("two", "three"):
        await conversations.take(tenant, conversation, turn, turn.encode(), max_waiting=5)
    promoted = await conversations.release(tenant, conversation, "one")
    assert promoted == Promoted(tenant, conversation, "two", b"two", 1)
    kept = await conversations.get(tenant, conversation)
    assert kept is not None
    assert (kept.active, kept.active_started, kept.turns, kept.promotions) == ("two", False, 2, 1)
    assert [entry.turn for entry in kept.waiting] == ["three"]
    assert await conversations.take(tenant, conversation, "two", b"two", max_waiting=5) == Seat("active", 2)
    kept = await conversations.get(tenant, conversation)
    assert kept is not None
    assert kept.active_started
    assert await conversations.release(tenant, conversation, "two") == Promoted(
        tenant, conversation, "three", b"three", 2
    )
    assert await conversations.release(tenant, conversation, "three") is None
    kept = await conversations.get(tenant, conversation)
    assert kept is not None
    assert (kept.active, kept.active_until_s, kept.active_started, kept.turns) == (None, None, False, 3)


async def test_a_turn_that_does_not_hold_the_lock_releases_nothing(
    stores: Stores, tenant: str, conversation: str
) -> None:
    conversations = stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    await conversations.take(tenant, conversation, "two", b"2", max_waiting=5)
    before = await conversations.get(tenant, conversation)
    assert await conversations.release(tenant, conversation, "two") is None
    assert await conversations.release(tenant, conversation, "never") is None
    assert await conversations.get(tenant, conversation) == before


async def test_a_repeated_release_changes_nothing(stores: Stores, tenant: str, conversation: str) -> None:
    conversations = stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    await conversations.release(tenant, conversation, "one")
    before = await conversations.get(tenant, conversation)
    assert await conversations.release(tenant, conversation, "one") is None
    assert await conversations.get(tenant, conversation) == before


@pytest.mark.requirement("conversation:created-and-released-in-any-order")
async def test_a_release_before_the_creation_inserts_it_unlocked_and_the_creation_is_harmless(
    stores: Stores, tenant: str, conversation: str
) -> None:
    conversations = stores.conversations
    assert await conversations.release(tenant, conversation, "one", agent="guide") is None
    kept = await conversations.get(tenant, conversation)
    assert kept is not None
    assert (kept.active, kept.waiting, kept.turns, kept.agent) == (None, (), 1, "guide")
    await conversations.create(tenant, conversation, "one", agent="guide")
    assert await conversations.get(tenant, conversation) == kept
    assert await conversations.take(tenant, conversation, "two", b"", max_waiting=5) == Seat("active", 2)


@pytest.mark.requirement("conversation:created-and-released-in-any-order")
async def test_a_creation_and_its_release_at_once_end_unlocked(stores: Stores, tenant: str, conversation: str) -> None:
    names = [f"{conversation}-{n}" for n in range(20)]
    await asyncio.gather(
        *(stores.conversations.create(tenant, name, "one", agent="guide") for name in names),
        *(stores.conversations.release(tenant, name, "one", agent="guide") for name in names),
    )
    for name in names:
        kept = await stores.conversations.get(tenant, name)
        assert kept is not None
        assert (kept.active, kept.turns, kept.agent, kept.waiting) == (None, 1, "guide", ())


@pytest.mark.requirement("conversation:waiting-turn-can-leave")
async def test_a_waiting_turn_can_leave(stores: Stores, tenant: str, conversation: str) -> None:
    conversations = stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    for turn in ("two", "three"):
        await conversations.take(tenant, conversation, turn, turn.encode(), max_waiting=5)
    assert await conversations.leave(tenant, conversation, "two") is True
    assert await conversations.leave(tenant, conversation, "two") is False
    assert await conversations.leave(tenant, conversation, "one") is False
    promoted = await conversations.release(tenant, conversation, "one")
    assert promoted is not None
    assert promoted.turn == "three"


@pytest.mark.requirement("conversation:renewed-by-its-gateway")
async def test_renewing_puts_the_end_of_a_held_lock_ahead(backend: Backend, tenant: str, conversation: str) -> None:
    conversations = backend.stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    await backend.age(25)
    await conversations.renew(tenant, conversation, "one")
    await conversations.renew(tenant, conversation, "two")
    await backend.age(25)
    assert await _own(backend, tenant) == []
    assert await conversations.take(tenant, conversation, "two", b"", max_waiting=5) == Seat("waiting")


async def test_extending_puts_the_end_of_a_held_lock_as_far_ahead_as_asked_be_it_nearer(
    backend: Backend, tenant: str, conversation: str
) -> None:
    conversations = backend.stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    await conversations.extend(tenant, conversation, "one", for_s=3600)
    await conversations.extend(tenant, conversation, "two", for_s=1)
    await backend.age(3500)
    assert await conversations.take(tenant, conversation, "two", b"2", max_waiting=5) == Seat("waiting")
    assert await _own(backend, tenant) == []
    await conversations.extend(tenant, conversation, "one", for_s=7200)
    await conversations.extend(tenant, conversation, "one", for_s=30)
    await backend.age(31)
    assert await _own(backend, tenant) == [Promoted(tenant, conversation, "two", b"2", 1)]


async def _until_s(stores: Stores, tenant: str, conversation: str) -> float:
    kept = await stores.conversations.get(tenant, conversation)
    assert kept is not None
    assert kept.active_until_s is not None
    return kept.active_until_s


async def test_a_locks_end_is_set_by_the_databases_clock_be_it_nearer(
    stores: Stores, tenant: str, conversation: str
) -> None:
    conversations = stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    first_s = await _until_s(stores, tenant, conversation)
    for ahead_s in (86_400.0, 0.25):
        await conversations.extend(tenant, conversation, "one", until_s=first_s + ahead_s)
        await conversations.extend(tenant, conversation, "two", until_s=first_s + 1)
        assert await _until_s(stores, tenant, conversation) == pytest.approx(first_s + ahead_s, abs=0.001)


async def test_a_locks_end_is_set_either_from_now_or_by_the_clock(
    stores: Stores, tenant: str, conversation: str
) -> None:
    await stores.conversations.create(tenant, conversation, "one", agent=None)
    before = await stores.conversations.get(tenant, conversation)
    with pytest.raises(Bug):
        await stores.conversations.extend(tenant, conversation, "one")
    with pytest.raises(Bug):
        await stores.conversations.extend(tenant, conversation, "one", for_s=1.0, until_s=1.0)
    assert await stores.conversations.get(tenant, conversation) == before


@pytest.mark.requirement("conversation:renewed-by-its-gateway")
@pytest.mark.parametrize("again", ["renew", "take"])
async def test_a_holder_that_renews_or_takes_its_lock_never_shortens_it(
    backend: Backend, tenant: str, conversation: str, again: str
) -> None:
    stores, conversations = backend.stores, backend.stores.conversations

    async def repeat() -> None:
        if again == "renew":
            await conversations.renew(tenant, conversation, "one")
        else:
            assert await conversations.take(tenant, conversation, "one", b"", max_waiting=5) == Seat("active", 1)

    await conversations.create(tenant, conversation, "one", agent=None)
    created_s = await _until_s(stores, tenant, conversation)
    await repeat()
    assert await _until_s(stores, tenant, conversation) >= created_s
    await conversations.extend(tenant, conversation, "one", for_s=3600)
    extended_s = await _until_s(stores, tenant, conversation)
    await repeat()
    assert await _until_s(stores, tenant, conversation) == extended_s
    await backend.age(3590)
    await repeat()
    await backend.age(25)
    assert await conversations.take(tenant, conversation, "two", b"2", max_waiting=5) == Seat("waiting")
    assert await _own(backend, tenant) == []
    await backend.age(6)
    assert await _own(backend, tenant) == [Promoted(tenant, conversation, "two", b"2", 1)]


async def test_who_takes_over_a_lock_that_ran_out_gets_no_more_of_it(
    backend: Backend, tenant: str, conversation: str
) -> None:
    conversations = backend.stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    await conversations.extend(tenant, conversation, "one", for_s=3600)
    await conversations.release(tenant, conversation, "one")
    assert await conversations.take(tenant, conversation, "two", b"2", max_waiting=5) == Seat("active", 2)
    await backend.age(31)
    assert await conversations.take(tenant, conversation, "three", b"3", max_waiting=5) == Seat("active", 3)


async def test_extending_does_not_put_off_a_promotion_that_was_not_taken_up(
    backend: Backend, tenant: str, conversation: str
) -> None:
    conversations = backend.stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    await conversations.take(tenant, conversation, "two", b"2", max_waiting=5)
    await conversations.release(tenant, conversation, "one")
    await conversations.extend(tenant, conversation, "two", for_s=3600)
    await backend.age(6)
    assert await _own(backend, tenant) == [Promoted(tenant, conversation, "two", b"2", 2)]


@pytest.mark.requirement("conversation:renewed-by-its-gateway")
async def test_renewing_does_not_put_off_a_promotion_that_was_not_taken_up(
    backend: Backend, tenant: str, conversation: str
) -> None:
    conversations = backend.stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    await conversations.take(tenant, conversation, "two", b"2", max_waiting=5)
    await conversations.release(tenant, conversation, "one")
    await backend.age(6)
    await conversations.renew(tenant, conversation, "two")
    assert await _own(backend, tenant) == [Promoted(tenant, conversation, "two", b"2", 2)]


@pytest.mark.requirement("conversation:lock-runs-out")
async def test_a_lock_that_ran_out_with_nobody_waiting_is_taken_over(
    backend: Backend, tenant: str, conversation: str
) -> None:
    conversations = backend.stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    await backend.age(32)
    assert await conversations.take(tenant, conversation, "two", b"2", max_waiting=5) == Seat("active", 2)
    assert await conversations.release(tenant, conversation, "one") is None
    assert await conversations.take(tenant, conversation, "three", b"3", max_waiting=5) == Seat("waiting")


async def test_a_lock_may_be_made_to_last_when_the_conversation_is_created(
    backend: Backend, tenant: str, conversation: str
) -> None:
    conversations = backend.stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None, for_s=600.0)
    kept = await conversations.get(tenant, conversation)
    assert kept is not None
    assert kept.active_until_s == pytest.approx(kept.created_at_s + 600, abs=2)
    await backend.age(590)
    assert await conversations.take(tenant, conversation, "two", b"2", max_waiting=5) == Seat("waiting")
    assert await _own(backend, tenant) == []
    await conversations.renew(tenant, conversation, "one")
    await backend.age(20)
    assert await _own(backend, tenant) == []
    await backend.age(40)
    assert [each.turn for each in await _own(backend, tenant)] == ["two"]


async def test_a_holder_that_comes_back_in_time_keeps_a_lock_that_ran_out(
    backend: Backend, tenant: str, conversation: str
) -> None:
    conversations = backend.stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    await conversations.take(tenant, conversation, "two", b"2", max_waiting=5)
    await backend.age(32)
    assert await conversations.take(tenant, conversation, "one", b"1", max_waiting=5) == Seat("active", 1)
    assert await _own(backend, tenant) == []


@pytest.mark.requirement("conversation:lock-runs-out")
async def test_a_lock_that_ran_out_goes_to_the_first_who_waits_not_to_who_asks(
    backend: Backend, tenant: str, conversation: str
) -> None:
    conversations = backend.stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    await conversations.take(tenant, conversation, "two", b"2", max_waiting=1)
    await backend.age(32)
    assert await conversations.take(tenant, conversation, "three", b"3", max_waiting=1) == Seat("waiting")
    kept = await conversations.get(tenant, conversation)
    assert kept is not None
    assert (kept.active, kept.active_started) == ("two", False)
    assert [entry.turn for entry in kept.waiting] == ["three"]
    await backend.age(0.1)
    assert await _own(backend, tenant) == [Promoted(tenant, conversation, "two", b"2", 1)]


async def test_the_first_who_waits_takes_a_lock_that_ran_out_by_asking_again(
    backend: Backend, tenant: str, conversation: str
) -> None:
    conversations = backend.stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    for turn in ("two", "three"):
        await conversations.take(tenant, conversation, turn, b"", max_waiting=5)
    await backend.age(32)
    assert await conversations.take(tenant, conversation, "two", b"", max_waiting=5) == Seat("active", 2)
    kept = await conversations.get(tenant, conversation)
    assert kept is not None
    assert [entry.turn for entry in kept.waiting] == ["three"]


@pytest.mark.requirement("conversation:sweep-frees-it")
async def test_a_sweep_frees_a_lock_that_ran_out(backend: Backend, tenant: str, conversation: str) -> None:
    conversations = backend.stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    assert await _own(backend, tenant) == []
    await backend.age(32)
    assert await _own(backend, tenant) == []
    kept = await conversations.get(tenant, conversation)
    assert kept is not None
    assert kept.active is None


@pytest.mark.requirement("conversation:sweep-frees-it")
async def test_a_sweep_hands_a_lock_that_ran_out_to_the_first_who_waits(
    backend: Backend, tenant: str, conversation: str
) -> None:
    conversations = backend.stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    await conversations.take(tenant, conversation, "two", b"2", max_waiting=5)
    await backend.age(32)
    assert await _own(backend, tenant) == [Promoted(tenant, conversation, "two", b"2", 1)]
    assert await _own(backend, tenant) == []


@pytest.mark.requirement("conversation:promotion-is-repeated")
async def test_a_promotion_not_taken_up_is_repeated_and_at_last_passed_on(
    backend: Backend, tenant: str, conversation: str
) -> None:
    conversations = backend.stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    for turn in ("two", "three"):
        await conversations.take(tenant, conversation, turn, turn.encode(), max_waiting=5)
    await conversations.release(tenant, conversation, "one")
    for n in range(2, 7):
        assert await _own(backend, tenant) == []
        await backend.age(5.1)
        assert await _own(backend, tenant) == [Promoted(tenant, conversation, "two", b"two", n)]
    await backend.age(5.1)
    assert await _own(backend, tenant) == [Promoted(tenant, conversation, "three", b"three", 7)]
    assert await conversations.take(tenant, conversation, "three", b"", max_waiting=5) == Seat("active", 3)
    await backend.age(5.1)
    assert await _own(backend, tenant) == []


@pytest.mark.requirement("conversation:promotion-is-repeated")
async def test_many_sweeps_at_once_produce_each_promotion_once(
    backend: Backend, tenant: str, conversation: str
) -> None:
    conversations = backend.stores.conversations
    names = [f"{conversation}-{n}" for n in range(5)]
    for name in names:
        await conversations.create(tenant, name, "one", agent=None)
        await conversations.take(tenant, name, "two", b"2", max_waiting=5)
    await backend.age(32)
    swept = await asyncio.gather(*(_own(backend, tenant) for _ in range(8)))
    found = sorted(promoted.conversation for sweep in swept for promoted in sweep)
    assert found == names
    assert {promoted.n for sweep in swept for promoted in sweep} == {1}


async def test_a_sweep_stops_at_its_limit(backend: Backend, tenant: str, conversation: str) -> None:
    conversations = backend.stores.conversations
    for n in range(3):
        await conversations.create(tenant, f"{conversation}-{n}", "one", agent=None)
        await conversations.take(tenant, f"{conversation}-{n}", "two", b"2", max_waiting=5)
    await conversations.sweep()
    await backend.age(32)
    assert len(await conversations.sweep(limit=2)) == 2


@pytest.mark.requirement("conversation:one-turn-at-a-time")
async def test_of_twenty_takes_at_once_one_is_active_and_the_rest_queue_up_to_the_bound(
    stores: Stores, tenant: str, conversation: str
) -> None:
    await stores.conversations.release(tenant, conversation, "zero")
    seats = await asyncio.gather(
        *(stores.conversations.take(tenant, conversation, f"turn-{n}", b"%d" % n, max_waiting=8) for n in range(20)),
    )
    places = [seat.place for seat in seats]
    assert (places.count("active"), places.count("waiting"), places.count("full")) == (1, 8, 11)
    kept = await stores.conversations.get(tenant, conversation)
    assert kept is not None
    assert kept.active == f"turn-{places.index('active')}"
    queued = {f"turn-{n}" for n, place in enumerate(places) if place == "waiting"}
    assert {entry.turn for entry in kept.waiting} == queued
    assert all(entry.start == entry.turn.removeprefix("turn-").encode() for entry in kept.waiting)


@pytest.mark.requirement("conversation:one-turn-at-a-time")
async def test_releases_and_takes_at_once_run_every_turn_once_and_leave_nothing_locked(
    stores: Stores, tenant: str, conversation: str
) -> None:
    """Every turn takes, works, and releases; a promoted one is taken up by who got its start."""
    conversations, ran, running = stores.conversations, list[int](), 0
    ended, rng = asyncio.Event(), random.Random(7)

    async def work(turn: str) -> None:
        nonlocal running
        seat = await conversations.take(tenant, conversation, turn, turn.encode(), max_waiting=40)
        if seat.place == "waiting":
            return
        assert seat.place == "active"
        running += 1
        assert running == 1, "two turns held the lock at once"
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        ran.append(seat.ordinal)
        running -= 1
        promoted = await conversations.release(tenant, conversation, turn)
        if promoted is not None:
            assert promoted.start.decode() == promoted.turn
            await work(promoted.turn)
        if len(ran) == 40:
            ended.set()

    await conversations.release(tenant, conversation, "zero")
    async with asyncio.timeout(20):
        await asyncio.gather(*(work(f"turn-{n}") for n in range(40)))
        await ended.wait()
    assert ran == list(range(2, 42))
    kept = await conversations.get(tenant, conversation)
    assert kept is not None
    assert (kept.active, kept.waiting, kept.turns) == (None, (), 41)


@pytest.mark.requirement("conversation:waiting-turn-can-leave")
async def test_leaving_against_releasing_never_runs_a_turn_that_left(
    stores: Stores, tenant: str, conversation: str
) -> None:
    conversations = stores.conversations
    for n in range(10):
        name = f"{conversation}-{n}"
        await conversations.create(tenant, name, "one", agent=None)
        await conversations.take(tenant, name, "two", b"2", max_waiting=5)
        left, promoted = await asyncio.gather(
            conversations.leave(tenant, name, "two"),
            conversations.release(tenant, name, "one"),
        )
        assert left is (promoted is None)
        kept = await conversations.get(tenant, name)
        assert kept is not None
        assert kept.active == (None if left else "two")


@pytest.mark.requirement("conversation:foreign-is-unknown")
async def test_another_tenants_conversation_is_as_if_it_did_not_exist_and_stays_untouched(
    backend: Backend, tenant: str, other: str, conversation: str
) -> None:
    conversations = backend.stores.conversations
    await conversations.create(tenant, conversation, "one", agent=None)
    await conversations.take(tenant, conversation, "two", b"2", max_waiting=5)
    await conversations.change(tenant, conversation, title="Mine")
    await backend.age(1)
    before = await conversations.get(tenant, conversation)
    assert before is not None
    assert before.active_until_s is not None
    assert await conversations.get(other, conversation) is None
    assert await conversations.take(other, conversation, "one", b"", max_waiting=5) == Seat("unknown")
    assert await conversations.take(other, conversation, "new", b"", max_waiting=5) == Seat("unknown")
    assert await conversations.leave(other, conversation, "two") is False
    assert await conversations.change(other, conversation, title="Yours") is None
    assert await conversations.delete(other, conversation) is None
    assert await conversations.page(other, before=None, limit=5) == []
    assert await conversations.search(other, ["mine"], before=None, limit=5) == []
    await conversations.renew(other, conversation, "one")
    await conversations.extend(other, conversation, "one", for_s=3600)
    await conversations.extend(other, conversation, "one", until_s=before.active_until_s + 3600)
    await conversations.cleared(other, conversation)
    assert await conversations.get(tenant, conversation) == before


@pytest.mark.requirement("conversation:ids-are-a-tenants-own")
async def test_two_tenants_may_choose_the_same_id(stores: Stores, tenant: str, other: str, conversation: str) -> None:
    conversations = stores.conversations
    assert await conversations.create(tenant, conversation, "one", agent=None) is True
    assert await conversations.create(other, conversation, "two", agent=None) is True
    await conversations.take(tenant, conversation, "waits", b"w", max_waiting=5)
    assert await conversations.release(other, conversation, "one") is None
    assert await conversations.release(other, conversation, "two") is None
    await conversations.delete(other, conversation)
    kept = await conversations.get(tenant, conversation)
    assert kept is not None
    assert (kept.id, kept.active, [entry.turn for entry in kept.waiting]) == (conversation, "one", ["waits"])
    assert await conversations.release(tenant, conversation, "one") == Promoted(tenant, conversation, "waits", b"w", 1)


async def test_the_latest_turn_of_a_conversation_can_take_its_lock_back_under_its_number(
    stores: Stores, tenant: str, conversation: str
) -> None:
    conversations = stores.conversations
    assert await conversations.retake(tenant, conversation, "one", ordinal=1) is False
    await conversations.create(tenant, conversation, "one", agent=None)
    await conversations.release(tenant, conversation, "one")
    assert await conversations.retake(tenant, conversation, "one", ordinal=2) is False
    assert await conversations.retake(tenant, conversation, "one", ordinal=1) is True
    assert await conversations.retake(tenant, conversation, "one", ordinal=1) is True
    kept = await conversations.get(tenant, conversation)
    assert kept is not None
    assert (kept.active, kept.active_started, kept.turns) == ("one", True, 1)
    assert await conversations.take(tenant, conversation, "two", b"", max_waiting=5) == Seat("waiting")
    assert await conversations.retake(tenant, conversation, "one", ordinal=1) is False
    promoted = await conversations.release(tenant, conversation, "one")
    assert promoted is not None
    assert promoted.turn == "two"
    assert await conversations.retake(tenant, conversation, "one", ordinal=1) is False
    assert await conversations.retake(tenant, conversation, "one", ordinal=2) is False
    await conversations.delete(tenant, conversation)
    assert await conversations.retake(tenant, conversation, "two", ordinal=2) is False
