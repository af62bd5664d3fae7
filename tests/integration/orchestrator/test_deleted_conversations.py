"""Conversations that clients make under ids of their own, and those that are deleted while turns are under way."""

import asyncio

import pytest

from integration.orchestrator.held_turns import decide, held, hold_of, with_tools
from integration.orchestrator.rig import Rig, generated, start
from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.content import AssistantMessage
from kitemesh_contracts.errors import ErrorCode
from kitemesh_runtime.holds import Verdict
from kitemesh_runtime.turns import TurnRecord


async def delete(rig: Rig, conversation: str) -> None:
    """Delete a conversation as a gateway does that has waited long enough, and dies before it clears it."""
    assert await rig.stores.conversations.delete("acme", conversation, also_unknown=True) is not None


async def clear(rig: Rig) -> None:
    """Have the sweep do what such a gateway left."""
    rig.later(6)
    await rig.sweeper.sweep()


async def assert_nothing_is_left(rig: Rig, conversation: str, *turns: StartTurn) -> None:
    assert await rig.stores.conversations.get("acme", conversation) is None
    assert await rig.stores.live_turns.page("acme", conversation=conversation, limit=9) == []
    for each in turns:
        assert await rig.stores.live_turns.get("acme", each.turn) is None
    assert [
        hold
        for hold in await rig.stores.holds.page("acme", status=None, before=None, limit=99)
        if hold.conversation == conversation
    ] == []


@pytest.mark.requirement("conversation:made-under-a-clients-id")
@pytest.mark.parametrize("mode", ["classic", "durable"])
async def test_a_conversation_is_made_under_the_id_that_its_client_chose_and_gone_on_with(rig: Rig, mode: str) -> None:
    name = f"c-chosen-{mode}"
    first, second = (start(conversation=name, creates=True) for _ in range(2))
    for asked, ordinal in ((first, 1), (second, 2)):
        begun = await rig.accept(asked) if mode == "durable" else asked
        await rig.start(begun)
        job = await rig.job()
        assert job.turn == begun.turn
        said = [message.text for message in job.messages if isinstance(message, AssistantMessage)]
        assert said == ["Hello"] * (ordinal - 1)
        await rig.answer(job, "Hello")
        assert (await rig.closing()).outcome == "completed"
        record = await rig.stores.turns.get("acme", begun.turn)
        assert record is not None
        assert (record.conversation, record.ordinal) == (name, ordinal)
    kept = await rig.stores.conversations.get("acme", name)
    assert kept is not None
    assert (kept.first, kept.agent, kept.model, kept.turns) == (first.turn, "helper", first.route.requested, 2)


@pytest.mark.requirement("conversation:made-under-a-clients-id")
async def test_of_two_starts_that_make_the_same_conversation_one_makes_it_and_the_other_waits_its_turn(
    rig: Rig,
) -> None:
    both = [start(conversation="c-twice", creates=True) for _ in range(2)]
    await asyncio.gather(*(rig.start(begun) for begun in both))
    job = await rig.job()
    assert rig.jobs.empty()
    kept = await rig.stores.conversations.get("acme", "c-twice")
    assert kept is not None
    (other,) = (begun for begun in both if begun.turn != job.turn)
    assert (kept.active, [entry.turn for entry in kept.waiting]) == (job.turn, [other.turn])
    await rig.answer(job, "Hello")
    assert (await rig.promote()).turn == other.turn
    assert (await rig.job()).turn == other.turn


async def test_a_start_that_comes_again_does_not_make_its_conversation_twice(rig: Rig) -> None:
    begun = start(conversation="c-again", creates=True)
    await rig.start(begun)
    await rig.start(begun, deliveries=2)
    kept = await rig.stores.conversations.get("acme", "c-again")
    assert kept is not None
    assert (kept.active, kept.turns, kept.waiting) == (begun.turn, 1, ())


async def test_a_conversation_that_nobody_makes_stays_unknown(rig: Rig) -> None:
    await rig.start(start(conversation="c-nobodys"))
    closing = await rig.closing()
    assert closing.error is not None
    assert closing.error.code is ErrorCode.CONVERSATION_UNKNOWN


@pytest.mark.requirement("conversation:deleted-for-good")
async def test_a_deleted_conversation_is_not_made_again_by_a_start(rig: Rig) -> None:
    await rig.start(start(conversation="c-dead", creates=True))
    await rig.job()
    await delete(rig, "c-dead")
    late = start(conversation="c-dead", creates=True)
    await rig.start(late)
    closing = await rig.closing()
    assert (closing.turn, closing.outcome) == (late.turn, "failed")
    assert closing.error is not None
    assert closing.error.code is ErrorCode.CONVERSATION_UNKNOWN
    await assert_nothing_is_left(rig, "c-dead", late)


@pytest.mark.requirement("conversation:deleted-for-good")
async def test_a_classic_turn_that_ends_after_the_deletion_is_answered_and_leaves_nothing(rig: Rig) -> None:
    begun = start(conversation="c-late", fresh=True)
    await rig.start(begun)
    job = await rig.job()
    await delete(rig, "c-late")
    await rig.stores.turns.bury("acme", begun.turn)
    await rig.answer(job, "Hello")
    assert (await rig.closing()).text == "Hello"
    await assert_nothing_is_left(rig, "c-late", begun)


@pytest.mark.requirement("conversation:deletion-is-finished-by-the-sweep")
async def test_what_a_zombie_stores_after_the_deletion_is_cleared_by_the_next_sweep(rig: Rig) -> None:
    begun = start(conversation="c-zombie", fresh=True)
    await rig.start(begun)
    job = await rig.job()
    await delete(rig, "c-zombie")
    await clear(rig)
    await rig.answer(job, "Hello")
    await rig.closing()
    assert await rig.stores.turns.get("acme", begun.turn) is not None
    await rig.sweeper.sweep()
    await assert_nothing_is_left(rig, "c-zombie", begun)


@pytest.mark.requirement("conversation:deletion-is-finished-by-the-sweep")
async def test_a_running_durable_turn_of_a_deleted_conversation_is_stopped_and_its_answer_refused(rig: Rig) -> None:
    begun = await rig.accept(start(conversation="c-running", fresh=True))
    await rig.start(begun)
    job = await rig.job()
    await rig.cancels.listen(rig.bus)
    await delete(rig, "c-running")
    await clear(rig)
    closing = await rig.closing()
    assert (closing.turn, closing.outcome) == (begun.turn, "cancelled")
    await rig.bus.barrier()
    assert rig.cancels.reason(begun.turn, durable=True) is not None
    await rig.answer(job, "Hello")
    await rig.sweeper.sweep()
    await assert_nothing_is_left(rig, "c-running", begun)


@pytest.mark.requirement("conversation:deleted-for-good")
async def test_a_redelivered_start_of_an_erased_turn_begins_nothing(rig: Rig) -> None:
    begun = await rig.accept(start(conversation="c-redelivered", creates=True))
    await delete(rig, "c-redelivered")
    await clear(rig)
    await rig.closing()
    for deliveries in (1, 2):
        await rig.start(begun, deliveries=deliveries)
    await rig.take_up(begun)
    await rig.bus.barrier()
    assert rig.jobs.empty()
    await assert_nothing_is_left(rig, "c-redelivered", begun)


@pytest.mark.requirement("conversation:deleted-for-good")
async def test_a_turn_that_waits_in_a_deleted_conversation_never_runs(rig: Rig) -> None:
    begun = start(conversation="c-queue", fresh=True)
    await rig.start(begun)
    job = await rig.job()
    waits = await rig.accept(start(conversation="c-queue"))
    await rig.start(waits)
    await delete(rig, "c-queue")
    await rig.answer(job, "Hello")
    await rig.closing()
    await clear(rig)
    assert (await rig.closing()).turn == waits.turn
    await rig.bus.barrier()
    assert rig.promoted.empty()
    assert rig.jobs.empty()
    await assert_nothing_is_left(rig, "c-queue", begun, waits)


@pytest.mark.requirement("conversation:deleted-with-its-holds")
async def test_a_hold_of_a_deleted_conversation_that_is_decided_at_the_same_time_runs_nothing(rig: Rig) -> None:
    begun = with_tools(conversation="c-held", fresh=True)
    await held(rig, begun, ("wipe", "{}"))
    hold = await hold_of(rig, begun.turn)
    await delete(rig, "c-held")
    decided = await decide(rig, hold, wipe=Verdict(approved=True))
    await clear(rig)
    assert (await rig.closing()).outcome == "cancelled"
    await rig.apply(begun.turn, decided.id)
    rig.later(10)
    await rig.sweeper.sweep()
    await rig.bus.barrier()
    assert rig.tools.empty()
    assert await rig.stores.holds.get("acme", hold.id) is None
    await assert_nothing_is_left(rig, "c-held", begun)


async def test_a_sweep_does_not_drive_an_erased_turn_on(rig: Rig) -> None:
    begun = await rig.accept(start(conversation="c-lost", fresh=True))
    await delete(rig, "c-lost")
    await clear(rig)
    await rig.closing()
    rig.later(60)
    await rig.sweeper.sweep()
    await rig.bus.barrier()
    assert rig.promoted.empty()
    await assert_nothing_is_left(rig, "c-lost", begun)


@pytest.mark.requirement("conversation:deletion-is-finished-by-the-sweep")
async def test_a_turn_whose_calls_were_about_to_run_when_its_conversation_was_deleted_runs_none(rig: Rig) -> None:
    begun = await rig.accept(with_tools(conversation="c-calls", fresh=True))
    await rig.start(begun)
    job = await rig.job()
    await rig.call(job, ("post", "{}"))
    order = await rig.tool_job()
    await delete(rig, "c-calls")
    await clear(rig)
    row = await rig.stores.ledger.get("acme", order.calls[0].id)
    assert row is not None
    assert row.state == "cancelled"
    await rig.returned(order, "done")
    await rig.event(generated(job, ("post", "{}")))
    await assert_nothing_is_left(rig, "c-calls", begun)


async def test_an_ended_turns_claim_and_record_outlive_nothing_but_the_claim(rig: Rig) -> None:
    begun = start(conversation="c-claim", fresh=True, message="m-1")
    await rig.stores.claims.claim("acme", "message", "m-1", begun.turn)
    await rig.start(begun)
    await rig.answer(await rig.job(), "Hello")
    await rig.closing()
    assert isinstance(await rig.stores.live_turns.get("acme", begun.turn), TurnRecord)
    await delete(rig, "c-claim")
    await clear(rig)
    rig.later(3600)
    claimed = await rig.stores.claims.claim("acme", "message", "m-1", "another")
    assert (claimed.won, claimed.turn) == (False, begun.turn)
    await assert_nothing_is_left(rig, "c-claim", begun)
