"""One turn after the other through the engine: asked, answered, stored, closed; queued, refused, cancelled."""

import asyncio

import msgspec
import pytest

from integration.orchestrator.rig import Rig, start
from kitemesh_contracts import codec, subjects, topology
from kitemesh_contracts.commands import CancelTurn
from kitemesh_contracts.content import SystemMessage
from kitemesh_contracts.errors import ErrorCode, ErrorInfo, Unavailable
from kitemesh_contracts.events import StepFailed, StepReleased
from kitemesh_runtime.turns import TurnRecord


@pytest.mark.requirement("conversation:stored-before-done")
async def test_a_turn_is_asked_answered_stored_and_closed_in_that_order(rig: Rig) -> None:
    turn = start("Hi", conversation="c-first", fresh=True)
    await rig.start(turn)
    job = await rig.job()
    assert job.messages == (SystemMessage(text="Be kind."), *turn.input)
    await rig.answer(job, "Hello.")
    closing = await rig.closing()
    assert (closing.outcome, closing.text, closing.stored) == ("completed", "Hello.", True)
    assert closing.store_ms > 0
    stored = await rig.stores.turns.get("acme", turn.turn)
    assert stored is not None
    assert (stored.ordinal, stored.answer.text if stored.answer else "") == (1, "Hello.")


@pytest.mark.requirement("classic:first-result-wins")
async def test_a_second_delivery_of_anything_changes_nothing(rig: Rig) -> None:
    turn = start("Hi", conversation="c-twice", fresh=True)
    await rig.start(turn)
    job = await rig.job()
    await rig.start(turn)
    await rig.answer(job, "Hello.")
    await rig.answer(job, "Hello.")
    closings = [await rig.closing() for _ in range(2)]
    # Only the clock has gone on.
    first, second = [msgspec.structs.replace(each, store_ms=0.0, ended_at_ms=0) for each in closings]
    assert first == second
    await rig.bus.barrier()
    assert [record.id for record in await rig.stores.turns.recent("acme", "c-twice", limit=9)] == [turn.turn]


async def test_a_continued_conversation_is_shown_its_history(rig: Rig) -> None:
    await rig.start(start("I am Ada", conversation="c-history", fresh=True))
    await rig.answer(await rig.job(), "Hello Ada.")
    await rig.closing()
    await rig.start(start("Who am I?", conversation="c-history"))
    job = await rig.job()
    assert [type(message).__name__ for message in job.messages] == [
        "SystemMessage",
        "UserMessage",
        "AssistantMessage",
        "UserMessage",
    ]


@pytest.mark.requirement("conversation:queue-in-order", "conversation:one-turn-at-a-time")
async def test_turns_of_one_conversation_run_in_order_one_at_a_time(rig: Rig) -> None:
    turns = [
        start("one", conversation="c-queue", fresh=True),
        *(start(t, conversation="c-queue") for t in ("two", "three")),
    ]
    await rig.start(turns[0])
    first = await rig.job()
    await rig.start(turns[1])
    await rig.start(turns[2])
    await rig.bus.barrier()
    assert rig.jobs.empty()
    await rig.answer(first, "1")
    for expected in turns[1:]:
        async with asyncio.timeout(5):
            promoted = await rig.promoted.get()
        assert promoted.turn == expected.turn
        await rig.start(promoted)
        job = await rig.job()
        assert job.turn == expected.turn
        await rig.answer(job, "next")
    ended = [await rig.closing() for _ in turns]
    assert [closing.turn for closing in ended] == [turn.turn for turn in turns]


async def test_a_full_queue_and_an_impatient_agent_refuse_in_words(rig: Rig) -> None:
    await rig.start(start("one", conversation="c-full", fresh=True))
    await rig.job()
    for _ in range(2):
        await rig.start(start("more", conversation="c-full"))
    await rig.start(start("too many", conversation="c-full"))
    refused = await rig.closing()
    assert refused.error is not None
    assert refused.error.code is ErrorCode.CONVERSATION_FULL
    brisk = start("now", conversation="c-full")
    await rig.start(msgspec.structs.replace(brisk, route=msgspec.structs.replace(brisk.route, agent="brisk")))
    busy = await rig.closing()
    assert busy.error is not None
    assert busy.error.code is ErrorCode.CONVERSATION_BUSY
    assert await rig.stores.turns.get("acme", refused.turn) is None


async def test_another_tenants_conversation_does_not_exist(rig: Rig) -> None:
    await rig.start(start("mine", conversation="c-mine", fresh=True))
    await rig.job()
    await rig.start(start("yours", conversation="c-mine", tenant="other"))
    refused = await rig.closing()
    assert refused.error is not None
    assert refused.error.code is ErrorCode.CONVERSATION_UNKNOWN


async def test_a_job_that_was_handed_back_is_sent_again_as_the_next_attempt(rig: Rig) -> None:
    await rig.start(start())
    job = await rig.job()
    released = StepReleased(
        turn=job.turn, tenant=job.tenant, step=1, attempt=1, reason="stop", job=msgspec.Raw(codec.encode(job))
    )
    await rig.event(released)
    again = await rig.job()
    assert again.attempt == 2
    assert again.messages == job.messages
    await rig.answer(again, "Hello.")
    assert (await rig.closing()).attempt == 2


async def test_a_cancelled_turn_never_reaches_a_model(rig: Rig) -> None:
    turn = start()
    await rig.cancels.listen(rig.bus)
    cancel = CancelTurn(turn=turn.turn, tenant=turn.tenant, reason="the client went away")
    rig.bus.publish(subjects.cancel(turn.turn), codec.encode(cancel))
    await rig.bus.barrier()
    await rig.start(turn)
    assert (await rig.closing()).outcome == "cancelled"
    await rig.bus.barrier()
    assert rig.jobs.empty()


@pytest.mark.requirement("conversation:waiting-turn-can-leave")
async def test_a_cancel_takes_a_waiting_turn_out_of_its_queue(rig: Rig) -> None:
    await rig.start(start("one", conversation="c-leave", fresh=True))
    job = await rig.job()
    waiting = start("two", conversation="c-leave")
    await rig.start(waiting)
    await rig.engine.on_cancel(
        CancelTurn(turn=waiting.turn, tenant="acme", reason="the client went away", conversation="c-leave")
    )
    assert (await rig.closing()).turn == waiting.turn
    await rig.answer(job, "1")
    await rig.closing()
    await rig.bus.barrier()
    assert rig.promoted.empty()


class FailingTurns:
    """Turns whose writes fail until told otherwise."""

    def __init__(self, inner: object) -> None:
        self._inner = inner
        self.down = True

    async def put(self, tenant: str, record: TurnRecord) -> None:
        if self.down:
            raise Unavailable(ErrorCode.STORE_DOWN, "down")
        await self._inner.put(tenant, record)  # type: ignore[attr-defined]


async def test_a_turn_that_cannot_be_stored_is_answered_and_stored_later(rig: Rig) -> None:
    failing = FailingTurns(rig.stores.turns)
    rig.endings._stores = rig.stores._replace(turns=failing)  # type: ignore[misc, arg-type]
    turn = start("Hi", conversation="c-unstored", fresh=True)
    await rig.start(turn)
    await rig.answer(await rig.job(), "Hello.")
    closing = await rig.closing()
    assert (closing.outcome, closing.stored) == ("completed", False)
    failing.down = False
    await rig.endings.flush()
    stored = await rig.stores.turns.get("acme", turn.turn)
    assert stored is not None
    conversation = await rig.stores.conversations.get("acme", "c-unstored")
    assert conversation is not None
    assert conversation.active is None


async def test_a_turn_whose_message_was_given_up_fails_in_words(rig: Rig) -> None:
    await rig.start(start())
    job = await rig.job()
    await rig.giving_up.on_dead(
        topology.MODEL, subjects.model_job("engine", "interactive", 0, job.turn), codec.encode(job), "x"
    )
    closing = await rig.closing()
    assert closing.error is not None
    assert closing.error.code is ErrorCode.TURN_EXHAUSTED


async def test_an_answer_with_an_upstreams_failure_keeps_its_words(rig: Rig) -> None:
    await rig.start(start())
    job = await rig.job()
    error = msgspec.convert({"code": "upstream.cut", "message": "The model's answer was cut"}, type=ErrorInfo)
    await rig.event(
        StepFailed(turn=job.turn, tenant=job.tenant, step=1, attempt=1, error=error, text="Hel", carry=job.carry)
    )
    closing = await rig.closing()
    assert (closing.outcome, closing.text) == ("failed", "Hel")
    assert closing.error == error
