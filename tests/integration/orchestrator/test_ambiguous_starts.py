"""A durable turn whose conversation's store runs a call and reports a time-out: it waits, and is begun once."""

import pytest

from integration.orchestrator.rig import Rig, given, start
from integration.orchestrator.test_durable_starts import running
from integration.orchestrator.test_repeats import continued, fail
from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_runtime.worker import Retry


async def begin(rig: Rig, begun: StartTurn) -> object:
    return await rig.engine.on_start(given(subjects.turn_start(begun.turn), codec.encode(begun)))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("store", "call"), [("conversations", "take"), ("turns", "recent")])
async def test_a_store_that_does_not_answer_puts_a_durable_turn_off(
    rig: Rig, store: str, call: str, *, after: bool
) -> None:
    conversation = f"c-{call}-{after}"
    await continued(rig, conversation)
    begun = await rig.accept(start("second", conversation=conversation))
    failing = fail(rig, call, store=store, after=after)
    assert isinstance(await begin(rig, begun), Retry)
    failing.calls.clear()
    await rig.start(begun)
    job = await rig.job()
    assert (job.turn, len(job.messages)) == (begun.turn, len(await _history(rig, conversation)) + 2)
    await rig.answer(job, "Yes.")
    assert (await rig.closing()).outcome == "completed"
    assert await rig.holder(conversation) is None


async def test_a_start_tried_again_after_its_turn_was_promoted_and_ended_takes_no_lock(rig: Rig) -> None:
    await rig.start(start("one", conversation="c-twice", fresh=True))
    first = await rig.job()
    second = await rig.accept(start("two", conversation="c-twice"))
    failing = fail(rig, "take", after=True)
    assert isinstance(await begin(rig, second), Retry)
    failing.calls.clear()
    await rig.answer(first, "1")
    await rig.closing()
    assert (await rig.promote()).turn == second.turn
    await rig.answer(await rig.job(), "2")
    await rig.closing()
    await rig.start(second)
    assert (await rig.closing()).text == "2"
    assert rig.jobs.empty()
    assert await rig.holder("c-twice") is None


@pytest.mark.parametrize("how", ["tried again", "redelivered"])
async def test_a_start_that_comes_again_once_its_job_is_out_makes_its_conversation(rig: Rig, how: str) -> None:
    conversation = f"c-{how[:5]}"
    begun = await rig.accept(start(fresh=True, conversation=conversation))
    stores, drive = rig.stores, rig.engine._drive

    async def publish_and_die(*given: object, **named: object) -> None:
        await type(drive).begin(drive, *given, **named)  # type: ignore[arg-type]
        raise Unavailable(ErrorCode.STORE_DOWN, "the job was published")

    drive.begin = publish_and_die  # type: ignore[method-assign, assignment]
    assert isinstance(await begin(rig, begun), Retry)
    job = await rig.job()
    del drive.begin
    assert await stores.conversations.get("acme", conversation) is None
    await rig.start(begun, deliveries=2 if how == "redelivered" else 1)
    assert await rig.holder(conversation) == begun.turn
    found = await running(rig, begun.turn)
    assert (found.status, found.ordinal, found.version) == ("running", 1, 1)
    await rig.answer(job, "Yes.")
    assert (await rig.closing()).outcome == "completed"
    assert rig.jobs.empty()


async def _history(rig: Rig, conversation: str) -> list[object]:
    found = await rig.stores.turns.recent("acme", conversation, limit=10)
    return [message for record in found for message in (record.input, record.answer)]
