"""What comes twice, too late or in a shape nobody knows: no lock is held for nobody, and every client is told."""

import asyncio
from typing import Any

import msgspec
import pytest

from integration.orchestrator.rig import Rig, given, start
from kitemesh_contracts import codec, subjects, topology
from kitemesh_contracts.commands import INLINE_MAX_BYTES, CancelTurn, Generate
from kitemesh_contracts.errors import Bug, ErrorCode, KitemeshError, Unavailable
from kitemesh_contracts.events import StepGenerated, StepReleased
from kitemesh_orchestrator.app import follow_cancels
from kitemesh_runtime.conversations import Promoted, Seat

DOWN = Unavailable(ErrorCode.STORE_DOWN, "down")


async def continued(rig: Rig, conversation: str) -> None:
    """Make a conversation with one turn in it."""
    await rig.start(start("first", conversation=conversation, fresh=True))
    await rig.answer(await rig.job(), "Hello.")
    await rig.closing()


class Failing:
    """A store whose named calls fail, before or after they took effect."""

    def __init__(self, inner: object, *calls: str, after: bool = False, error: KitemeshError = DOWN) -> None:
        self._inner = inner
        self.calls = set(calls)
        self.after = after
        self.error = error

    def __getattr__(self, name: str) -> Any:
        async def call(*args: object, **more: object) -> object:
            if name in self.calls and not self.after:
                raise self.error
            result = await getattr(self._inner, name)(*args, **more)
            if name in self.calls:
                raise self.error
            return result

        return call


def fail(rig: Rig, *calls: str, store: str = "conversations", **how: Any) -> Failing:
    """Let calls to a store fail from now on."""
    failing = Failing(getattr(rig.stores, store), *calls, **how)
    stores = rig.stores._replace(**{store: failing})
    rig.endings._stores = rig.engine._seating._stores = stores  # type: ignore[misc]
    return failing


@pytest.mark.parametrize("again", ["redelivered", "promoted"])
async def test_a_start_that_comes_again_after_its_turn_has_ended_takes_no_lock(rig: Rig, again: str) -> None:
    conversation = f"c-again-{again}"
    await continued(rig, conversation)
    turn = start("second", conversation=conversation)
    await rig.start(turn)
    await rig.answer(await rig.job(), "Yes.")
    await rig.closing()
    await (rig.start(turn, deliveries=2) if again == "redelivered" else rig.take_up(turn))
    await rig.bus.barrier()
    assert rig.jobs.empty()
    assert await rig.holder(conversation) is None


async def test_a_start_that_comes_again_while_its_turn_runs_goes_on(rig: Rig) -> None:
    await continued(rig, "c-still")
    turn = start("second", conversation="c-still")
    await rig.start(turn)
    await rig.start(turn, deliveries=2)
    first, second = await rig.job(), await rig.job()
    assert first == msgspec.structs.replace(second, timings=first.timings)
    await rig.answer(first, "Yes.")
    assert (await rig.closing()).text == "Yes."
    assert await rig.holder("c-still") is None


async def test_a_turn_that_is_cancelled_as_it_is_promoted_hands_the_lock_on(rig: Rig) -> None:
    conversation = "c-overlap"
    await rig.start(start("one", conversation=conversation, fresh=True))
    job = await rig.job()
    left, waits = (start(text, conversation=conversation) for text in ("two", "three"))
    await rig.start(left)
    await rig.start(waits)
    await rig.answer(job, "1")
    await rig.closing()
    await rig.cancels.listen(rig.bus)
    cancel = CancelTurn(turn=left.turn, tenant="acme", reason="the client is gone", conversation=conversation)
    rig.bus.publish(subjects.cancel(left.turn), codec.encode(cancel))
    await rig.bus.barrier()
    await rig.engine.on_cancel(cancel)  # too late to leave the queue
    assert (await rig.promote()).turn == left.turn
    assert (await rig.closing()).outcome == "cancelled"
    assert (await rig.promote()).turn == waits.turn
    assert (await rig.job()).turn == waits.turn


@pytest.mark.parametrize("place", ["active", "waiting"])
async def test_a_seat_taken_by_a_write_that_was_reported_as_failed_is_given_up(rig: Rig, place: str) -> None:
    conversation = f"c-ambiguous-{place}"
    await rig.start(start("one", conversation=conversation, fresh=True))
    job = await rig.job()
    if place == "active":
        await rig.answer(job, "1")
        await rig.closing()
    failing = fail(rig, "take", after=True)
    refused = start("two", conversation=conversation)
    await rig.start(refused)
    closing = await rig.closing()
    assert closing.error is not None
    assert closing.error.code is ErrorCode.STORE_DOWN
    failing.calls.clear()
    seat = await rig.stores.conversations.take("acme", conversation, "next", b"", max_waiting=5)
    assert seat == (Seat("active", 3) if place == "active" else Seat("waiting"))
    found = await rig.stores.conversations.get("acme", conversation)
    assert found is not None
    assert refused.turn not in {entry.turn for entry in found.waiting}


@pytest.mark.parametrize("error", [DOWN, Bug("never seen before")])
async def test_a_lock_that_could_not_be_given_up_is_given_up_later(rig: Rig, error: KitemeshError) -> None:
    conversation = f"c-kept-{error.code.value.replace('.', '-')}"
    await continued(rig, conversation)
    await rig.start(start("two", conversation=conversation))
    waits = start("three", conversation=conversation)
    await rig.start(waits)
    failing = fail(rig, "release", error=error)
    job = await rig.job()
    await rig.answer(job, "2")
    assert (await rig.closing()).stored
    await rig.endings.flush()
    assert await rig.holder(conversation) == job.turn
    failing.calls.clear()
    await rig.endings.flush()
    assert (await rig.promote()).turn == waits.turn


async def test_a_cancel_that_the_store_could_not_take_is_carried_out_when_it_is_back(rig: Rig) -> None:
    conversation = "c-later"
    await rig.start(start("one", conversation=conversation, fresh=True))
    waits = start("two", conversation=conversation)
    await rig.start(waits)
    failing = fail(rig, "get")
    rig.store_state.mark_down("gone")
    cancels: asyncio.Queue[CancelTurn] = asyncio.Queue()
    cancels.put_nowait(CancelTurn(turn=waits.turn, tenant="acme", reason="gone", conversation=conversation))
    following = asyncio.create_task(follow_cancels(cancels, rig.engine, rig.store_state))
    await rig.bus.barrier()
    assert rig.closings.empty()
    failing.calls.clear()
    rig.store_state.mark_up()
    assert (await rig.closing()).outcome == "cancelled"
    following.cancel()
    found = await rig.stores.conversations.get("acme", conversation)
    assert found is not None
    assert found.waiting == ()


async def test_a_turn_that_ends_again_and_again_without_a_store_waits_for_it_once(rig: Rig) -> None:
    fail(rig, "put", store="turns")
    turn = start("Hi", conversation="c-once", fresh=True)
    await rig.start(turn)
    job = await rig.job()
    for _ in range(3):
        await rig.answer(job, "Hello.")
        assert not (await rig.closing()).stored
    assert list(rig.endings._unstored) == [turn.turn]


@pytest.mark.parametrize(("size", "outcome"), [(INLINE_MAX_BYTES, "completed"), (1024 * 1024, "failed")])
async def test_an_answer_too_large_to_travel_keeps_nobody_waiting_while_the_store_is_down(
    rig: Rig, size: int, outcome: str
) -> None:
    await rig.start(start())
    job = await rig.job()
    failing = Failing(rig.stores.blobs, "put")
    rig.endings._parcels._blobs = failing  # type: ignore[assignment]
    await rig.answer(job, "x" * size)
    closing = await rig.closing()
    assert closing.outcome == outcome
    assert len(closing.text) == (size if outcome == "completed" else 0)
    assert (closing.error is None) == (outcome == "completed")


def unknown(data: bytes) -> bytes:
    """Return a message as a version that is not written yet would send it."""
    return data.replace(b'"type":"turn.start"', b'"type":"turn.begin"').replace(b'"type":"step.', b'"type":"phase.')


async def test_whoever_waits_for_a_message_that_nobody_can_read_is_told(rig: Rig) -> None:
    turn = start()
    await rig.start(turn)
    job = await rig.job()
    generated = StepGenerated(
        turn=job.turn, tenant="acme", step=1, attempt=1, model="a", finish="stop", carry=job.carry
    )
    released = StepReleased(
        turn=job.turn, tenant="acme", step=1, attempt=1, reason="stop", job=msgspec.Raw(codec.encode(job))
    )
    for stream, subject, message in (
        (topology.TURN, subjects.turn_start(turn.turn), turn),
        (topology.CONTROL, subjects.control_start(turn.turn), turn),
        (topology.MODEL, subjects.model_job("engine", "interactive", 0, turn.turn), job),
        (topology.EVENT, subjects.event("step.generated", turn.turn), generated),
        (topology.EVENT, subjects.event("step.released", turn.turn), released),
    ):
        delivery = given(subject, unknown(codec.encode(message)))
        await rig.giving_up.on_reject(stream)(delivery, "unknown")
        closing = await rig.closing()
        assert (closing.turn, closing.outcome) == (turn.turn, "failed")
        assert closing.error is not None
        assert closing.error.code is ErrorCode.TURN_EXHAUSTED
    for nothing in (b"", b"\xff", b"[]", b'{"turn":7}', b'{"turn":"other","gateway":"engine-test"}'):
        await rig.giving_up.on_reject(topology.EVENT)(given(subjects.event("step.generated", turn.turn), nothing), "x")
    await rig.bus.barrier()
    assert rig.closings.empty()


async def test_a_turn_that_is_given_up_is_stopped_where_it_still_runs(rig: Rig) -> None:
    await rig.cancels.listen(rig.bus)
    await continued(rig, "c-exhausted")
    turn = start("second", conversation="c-exhausted")
    await rig.start(turn)
    job: Generate = await rig.job()
    await rig.giving_up.on_dead(topology.TURN, subjects.turn_start(turn.turn), codec.encode(turn), "delivered 5 times")
    assert (await rig.closing()).outcome == "failed"
    await rig.bus.barrier()
    assert rig.cancels.reason(job.turn) == "it was given up"
    assert await rig.holder("c-exhausted") is None


async def test_an_agent_that_the_catalog_no_longer_has_is_not_left_out(rig: Rig) -> None:
    turn = start()
    await rig.start(msgspec.structs.replace(turn, route=msgspec.structs.replace(turn.route, agent="gone")))
    closing = await rig.closing()
    assert closing.error is not None
    assert closing.error.code is ErrorCode.MODEL_UNKNOWN
    assert rig.jobs.empty()


async def test_a_promotion_that_cannot_be_published_is_left_to_the_sweep(rig: Rig) -> None:
    too_large = Promoted("acme", "c", "turn-x", b"x" * 2 * 1024 * 1024, 1)
    await rig.endings.promote(too_large)
    assert rig.promoted.empty()
