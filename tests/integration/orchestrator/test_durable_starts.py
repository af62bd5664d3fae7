"""A turn accepted as durable begins from its start, is driven on when that is lost, and is never begun twice."""

import asyncio

import pytest
from msgspec.structs import replace

from integration.orchestrator.rig import Rig, given, start
from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.errors import ErrorCode
from kitemesh_orchestrator.noting import Noting
from kitemesh_runtime.live_turns import Job, LiveTurn
from kitemesh_runtime.turns import TurnRecord


async def document(rig: Rig, turn: str) -> LiveTurn:
    found = await rig.stores.live_turns.get("acme", turn)
    assert isinstance(found, LiveTurn)
    return found


async def running(rig: Rig, turn: str) -> LiveTurn:
    """Return a turn's document once it is noted that it runs."""
    async with asyncio.timeout(5):
        while (found := await document(rig, turn)).status == "queued":
            await rig.bus.barrier()
    return found


async def record(rig: Rig, turn: str) -> TurnRecord:
    found = await rig.stores.live_turns.get("acme", turn)
    assert isinstance(found, TurnRecord)
    return found


async def purge(rig: Rig, stream: str) -> None:
    await rig.bus.request(f"$JS.API.STREAM.PURGE.{stream}", b"{}", timeout_s=2.0)


async def sweep(rig: Rig) -> None:
    rig.later(7.0)
    await rig.sweeper.sweep()


async def test_the_first_job_goes_out_without_another_version_and_says_where_its_state_is(rig: Rig) -> None:
    begun = await rig.accept(start("Fly", fresh=True, conversation="kites", stream=True))
    await rig.start(begun)
    job = await rig.job()
    assert (job.mode, job.stored, bytes(job.carry)) == ("durable", True, b"null")
    assert (job.step, job.attempt, job.stream) == (1, 1, True)
    assert job.timings.orchestrator_ms > 0
    found = await running(rig, begun.turn)
    assert (found.version, found.status, found.ordinal) == (1, "running", 1)
    assert await rig.holder("kites") == begun.turn


async def test_its_answer_is_stored_closed_and_gives_up_the_conversation(rig: Rig) -> None:
    begun = await rig.accept(start("Fly", fresh=True, conversation="lines", dialect="completions", include_usage=True))
    await rig.start(begun)
    await rig.answer(await rig.job(), "Up it goes.")
    closing = await rig.closing()
    assert (closing.outcome, closing.text, closing.stored) == ("completed", "Up it goes.", True)
    ended = await record(rig, begun.turn)
    assert (ended.status, ended.mode, ended.dialect, ended.include_usage) == (
        "completed",
        "durable",
        "completions",
        True,
    )
    assert await rig.holder("lines") is None


async def test_a_start_that_comes_again_publishes_nothing_while_its_job_is_in_a_queue(rig: Rig) -> None:
    begun = await rig.accept(start())
    await rig.start(begun)
    await rig.job()
    await rig.start(begun, deliveries=2)
    await rig.bus.barrier()
    assert rig.jobs.empty()
    assert (await document(rig, begun.turn)).version == 1


async def test_a_start_that_comes_again_after_its_end_closes_the_stream_again(rig: Rig) -> None:
    begun = await rig.accept(start())
    await rig.start(begun)
    await rig.answer(await rig.job(), "Done.")
    await rig.closing()
    await rig.start(begun, deliveries=2)
    assert (await rig.closing()).text == "Done."
    assert rig.jobs.empty()


async def test_a_start_whose_job_was_lost_after_it_ran_is_a_new_attempt(rig: Rig) -> None:
    begun = await rig.accept(start())
    await rig.start(begun)
    first = await rig.job()
    await purge(rig, "KM_MODEL")
    await rig.start(begun, deliveries=2)
    again = await rig.job()
    assert again.attempt == 2
    await rig.answer(first, "From the first.")
    assert rig.closings.empty()
    await rig.answer(again, "From the second.")
    assert (await rig.closing()).text == "From the second."


async def test_a_sweep_starts_a_turn_whose_start_was_never_published(rig: Rig) -> None:
    begun = await rig.accept(start())
    await sweep(rig)
    await rig.promote()
    # Nobody knows that its first job was not published after all.
    assert (await rig.job()).attempt == 2
    assert (await document(rig, begun.turn)).status == "running"


async def test_a_sweep_leaves_alone_what_waits_in_a_queue(rig: Rig) -> None:
    begun = await rig.accept(start())
    await rig.bus.send(subjects.turn_start(begun.turn), codec.encode(begun), msg_id=begun.turn)
    await sweep(rig)
    await rig.bus.barrier()
    assert rig.promoted.empty()
    assert (await document(rig, begun.turn)).status == "queued"


async def test_a_sweep_leaves_alone_what_waits_for_its_conversation(rig: Rig) -> None:
    first = await rig.accept(start(fresh=True, conversation="busy"))
    await rig.start(first)
    job = await rig.job()
    second = await rig.accept(start(conversation="busy"))
    await rig.start(second)
    await sweep(rig)
    await rig.bus.barrier()
    assert rig.promoted.empty()
    assert (await document(rig, second.turn)).status == "queued"
    await rig.answer(job, "Yours.")
    await rig.promote()
    assert (await rig.job()).turn == second.turn
    found = await document(rig, second.turn)
    assert (found.status, found.ordinal) == ("running", 2)


async def test_a_sweep_drives_on_everything_after_every_queue_was_wiped(rig: Rig) -> None:
    queued = await rig.accept(start())
    begun = await rig.accept(start())
    await rig.start(begun)
    await rig.job()
    await running(rig, begun.turn)
    for stream in ("KM_TURN", "KM_MODEL", "KM_EVENT", "KM_CONTROL"):
        await purge(rig, stream)
    await sweep(rig)
    again = await rig.job()
    assert (again.turn, again.attempt) == (begun.turn, 2)
    assert (await rig.promote()).turn == queued.turn
    assert (await rig.job()).turn == queued.turn


async def test_a_sweep_notes_that_a_turn_runs_whose_orchestrator_did_not_live_to(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Noting, "later", lambda *_: None)
    begun = await rig.accept(start(fresh=True, conversation="c-unnoted"))
    await rig.start(begun)
    await rig.job()
    assert (await document(rig, begun.turn)).status == "queued"
    await sweep(rig)
    found = await document(rig, begun.turn)
    assert (found.status, found.version, found.ordinal) == ("running", 1, 1)
    assert rig.promoted.empty()


async def test_a_turn_that_is_over_at_once_is_not_noted_as_running(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[str] = []
    monkeypatch.setattr(Noting, "_begin", lambda _, __, turn, ___: noted.append(turn))
    begun = await rig.accept(start())
    await rig.start(begun)
    await rig.answer(await rig.job(), "Done.")
    assert (await rig.closing()).text == "Done."
    lasting = await rig.accept(start())
    await rig.start(lasting)
    async with asyncio.timeout(5):
        while not noted:
            await rig.bus.barrier()
    assert noted == [lasting.turn]


async def test_an_answer_of_a_claimed_attempt_counts_and_the_one_before_does_not(rig: Rig) -> None:
    begun = await rig.accept(start())
    await rig.start(begun)
    job = await rig.job()
    assert await rig.stores.live_turns.claim("acme", begun.turn, Job(kind="model", step=1, pool="engine"))
    await rig.answer(job, "A frozen worker's.")
    await rig.bus.barrier()
    assert rig.closings.empty()
    await rig.answer(replace(job, attempt=2), "The true one.")
    assert (await rig.closing()).text == "The true one."


async def test_calls_of_a_durable_turn_are_saved_before_they_run_and_its_steps_follow(rig: Rig) -> None:
    route = replace(start().route, agent="doer")
    begun = await rig.accept(start(route=route))
    await rig.start(begun)
    await rig.call(await rig.job(), ("look", "{}"))
    tools = await rig.tool_job()
    assert tools.stored
    assert tools.mode == "durable"
    found = await document(rig, begun.turn)
    assert (found.version, found.status, len(found.steps)) == (2, "running", 1)
    await rig.returned(tools, "Clear sky.")
    second = await rig.job()
    assert (second.step, second.stored) == (2, True)
    await rig.answer(second, "It is clear.")
    assert (await rig.closing()).text == "It is clear."
    assert len((await record(rig, begun.turn)).steps) == 1


@pytest.mark.parametrize("deliveries", [1, 2])
async def test_a_cancelled_turn_that_was_not_begun_ends_and_never_begins(rig: Rig, deliveries: int) -> None:
    begun = await rig.accept(start())
    await rig.cancel(begun.turn)
    assert (await rig.closing()).outcome == "cancelled"
    await rig.hear(begun.turn)
    await rig.start(begun, deliveries)
    await rig.bus.barrier()
    assert rig.jobs.empty()
    assert (await record(rig, begun.turn)).status == "cancelled"


async def test_a_lost_client_does_not_keep_it_from_beginning(rig: Rig) -> None:
    begun = await rig.accept(start())
    await rig.hear(begun.turn, disconnect=True)
    await rig.start(begun)
    assert (await rig.job()).turn == begun.turn


async def test_a_turn_that_may_not_run_ends_in_the_store_and_tells_its_client(rig: Rig) -> None:
    nowhere = await rig.accept(start(conversation="nowhere"))
    await rig.start(nowhere)
    closing = await rig.closing()
    assert closing.error is not None
    assert closing.error.code is ErrorCode.CONVERSATION_UNKNOWN
    gone = await rig.accept(start(route=replace(start().route, agent="nobody")))
    await rig.start(gone)
    closing = await rig.closing()
    assert closing.error is not None
    assert closing.error.code is ErrorCode.MODEL_UNKNOWN
    assert [(await record(rig, each.turn)).status for each in (nowhere, gone)] == ["failed", "failed"]


async def test_a_start_of_a_turn_that_was_refused_and_removed_begins_nothing(rig: Rig) -> None:
    begun: StartTurn = await rig.accept(start())
    assert await rig.stores.live_turns.discard("acme", begun.turn)
    delivery = given(subjects.turn_start(begun.turn), codec.encode(begun), 2)
    async with asyncio.timeout(5):
        await rig.engine.on_start(delivery)
    await rig.bus.barrier()
    assert rig.jobs.empty()


async def test_a_start_that_was_given_up_fails_its_turn_in_the_store(rig: Rig) -> None:
    begun = await rig.accept(start())
    await rig.giving_up.on_dead("KM_TURN", subjects.turn_start(begun.turn), codec.encode(begun), "max deliveries")
    closing = await rig.closing()
    assert closing.error is not None
    assert closing.error.code is ErrorCode.TURN_EXHAUSTED
    assert (await record(rig, begun.turn)).status == "failed"
