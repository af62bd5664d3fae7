"""Turns that were given up and are requeued: what they did is not done again, whichever process dies in between."""

import asyncio
from typing import Any

import msgspec
import pytest

from integration.orchestrator.held_turns import decide, held, hold_of, live_of, record_of, results_in, with_tools
from integration.orchestrator.rig import Rig, accepted, generated
from kitemesh_contracts import codec, subjects, topology
from kitemesh_contracts.commands import RunCalls, StartTurn
from kitemesh_contracts.content import CallResult
from kitemesh_contracts.errors import Conflict, ErrorCode, ErrorInfo
from kitemesh_contracts.events import CallsReturned
from kitemesh_gateway import requeueing
from kitemesh_gateway.requeueing import Requeueing
from kitemesh_orchestrator import turn as turns
from kitemesh_runtime.administration import Actor
from kitemesh_runtime.conversations import Seat
from kitemesh_runtime.dead_letters import Letter
from kitemesh_runtime.holds import Verdict
from kitemesh_runtime.ledger import GIVEN_UP, LedgerRow
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.news import News
from kitemesh_runtime.retention import DAY_MS, Days
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.turns import TurnRecord

WHO = Actor(by="k1", origin="127.0.0.1")


class Letters:
    """The letters of one turn, in memory."""

    def __init__(self, turn: str) -> None:
        self.letter = Letter(
            number=7,
            stream=topology.EVENT,
            subject=subjects.event("call.returned", turn),
            turn=turn,
            deliveries=5,
            reason="poison",
            at="2026-01-01T00:00:00Z",
        )
        self.kept = True

    async def count(self) -> int:
        return int(self.kept)

    async def page(self, *, stream: str | None, before: int | None, limit: int) -> list[Letter]:
        raise NotImplementedError

    async def get(self, number: int) -> Letter | None:
        return self.letter if self.kept and number == self.letter.number else None

    async def remove(self, number: int) -> None:
        assert number == self.letter.number
        self.kept = False


class Died(BaseException):
    """The process is gone."""


class Dying:
    """A process's calls: the one of a given number is its last, and is done."""

    def __init__(self, last: int) -> None:
        self.left = last

    def over(self, inner: Any) -> Any:
        return _Dying(inner, self)


class _Dying:
    def __init__(self, inner: Any, life: Dying) -> None:
        self._inner, self._life = inner, life

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        async def call(*given: Any, **named: Any) -> Any:
            if self._life.left <= 0:
                raise Died
            self._life.left -= 1
            result = await found(*given, **named)
            if self._life.left == 0:
                raise Died
            return result

        return call


def requeueing_of(rig: Rig, letters: Letters, life: Dying | None = None) -> Requeueing:
    if life is None:
        return Requeueing(rig.stores, letters, News(rig.bus), rig.clock)
    return Requeueing(Stores(*(life.over(store) for store in rig.stores)), life.over(letters), News(rig.bus), rig.clock)


async def poison(rig: Rig, message: Any, stream: str = topology.EVENT) -> None:
    """Have a message given up, as the mover does that found it."""
    await rig.giving_up.on_dead(stream, f"km.v1.any.{message.turn}", codec.encode(message), "poison")


async def purge(rig: Rig, turn: str) -> None:
    """Empty the queues of a turn's jobs: nobody takes from them here."""
    for stream, filtered in (
        (topology.MODEL, subjects.model_jobs_of(turn)),
        (topology.TOOL, f"km.v1.tool.*.*.*.{turn}"),
    ):
        question = msgspec.json.encode({"filter": filtered})
        answer = msgspec.json.decode(await rig.bus.request(f"$JS.API.STREAM.PURGE.{stream}", question, timeout_s=2.0))
        assert "error" not in answer, answer


def returned(job: RunCalls, *texts: str) -> CallsReturned:
    results = tuple(CallResult(call=call.id, text=text) for call, text in zip(job.calls, texts, strict=True))
    return CallsReturned(
        turn=job.turn, tenant=job.tenant, step=job.step, attempt=job.attempt, results=results, job=job.job
    )


def row_of(job: RunCalls, index: int, by: str) -> LedgerRow:
    call = job.calls[index]
    return LedgerRow(
        id=call.id,
        tenant=job.tenant,
        turn=job.turn,
        tool=call.name,
        effect="keyed",
        state="dispatched",
        by=by,
        args_sha256=call.sha256,
    )


class Executor:
    """Runs calls with an effect as the ledger allows, and counts what was done in the world."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.effects: list[str] = []

    async def run(self, job: RunCalls, *, by: str, only: int | None = None) -> tuple[str, ...]:
        """Run a job's calls, or the first few, without telling anybody; return their results."""
        ledger, texts = self._rig.stores.ledger, []
        for index, call in enumerate(job.calls[:only]):
            row = await ledger.dispatch(job.tenant, row_of(job, index, by))
            if row.state == "dispatched" and row.by != by:
                row = await ledger.take_over(job.tenant, row, by)
            if row.state == "dispatched":
                self.effects.append(call.id)
                row = await ledger.finish(job.tenant, call.id, by, CallResult(call=call.id, text="done"))
            assert row.result is not None, row
            texts.append(row.result.text)
        return tuple(texts)


async def given_up(rig: Rig, executor: Executor, **more: object) -> tuple[StartTurn, RunCalls]:
    """Run a durable turn up to two calls, one of which finished, and have it given up before it hears of that."""
    begun = msgspec.structs.replace(with_tools(**more), mode="durable")
    assert await rig.stores.live_turns.insert("acme", accepted(begun))
    await rig.start(begun)
    await rig.call(await rig.job(), ("post", '{"n":1}'), ("post", '{"n":2}'), text="At once.")
    job = await rig.tool_job()
    await executor.run(job, by="first", only=1)
    await poison(rig, returned(job, "never", "heard"))
    closing = await rig.closing()
    assert closing.error is not None
    assert closing.error.code is ErrorCode.TURN_EXHAUSTED
    await purge(rig, begun.turn)
    return begun, job


async def go_on(rig: Rig, executor: Executor, turn: str) -> None:
    """Have a requeued turn driven on to its end."""
    await rig.sweeper.sweep()
    job = await rig.tool_job()
    while job.turn != turn:
        job = await rig.tool_job()
    await rig.event(returned(job, *await executor.run(job, by="second")))
    second = await rig.job()
    assert results_in(second) == ["done", "done"]
    await rig.answer(second, "All done.")
    closing = await rig.closing()
    assert (closing.turn, closing.outcome, closing.text) == (turn, "completed", "All done.")


@pytest.mark.requirement("dead:requeue")
async def test_a_requeued_turn_goes_on_from_where_it_stood_and_repeats_no_effect(rig: Rig) -> None:
    executor = Executor(rig)
    begun, job = await given_up(rig, executor)
    assert (await record_of(rig, begun.turn)).status == "failed"
    stopped = await rig.stores.ledger.get("acme", job.calls[1].id)
    assert stopped is not None
    assert (stopped.state, stopped.by) == ("cancelled", GIVEN_UP)
    letters = Letters(begun.turn)
    turn = await requeueing_of(rig, letters).requeue(WHO, letters.letter)
    assert (turn.status, turn.spared, letters.kept) == ("running", 1, False)
    live = await live_of(rig, begun.turn)
    assert [each.attempt for each in live.jobs] == [2]
    await go_on(rig, executor, begun.turn)
    assert sorted(executor.effects) == sorted(call.id for call in job.calls)
    record = await record_of(rig, begun.turn)
    assert (record.status, record.error, len(record.steps)) == ("completed", None, 1)
    (deed,) = await rig.stores.audit.about("acme", begun.turn)
    assert (deed.what, deed.by, deed.values) == ("dead.requeued", "k1", '{"letter":"7","stream":"KM_EVENT"}')


@pytest.mark.parametrize("last", range(1, 13))
async def test_a_process_that_dies_after_any_call_of_a_requeue_loses_and_doubles_nothing(rig: Rig, last: int) -> None:
    executor = Executor(rig)
    begun, job = await given_up(rig, executor, conversation=f"talk-{last}", fresh=True)
    await rig.stores.conversations.create("acme", f"talk-{last}", begun.turn, agent="doer")
    await rig.stores.conversations.release("acme", f"talk-{last}", begun.turn)
    letters = Letters(begun.turn)
    with pytest.raises(Died) if last < _calls_of_a_requeue else _nothing():
        await requeueing_of(rig, letters, Dying(last)).requeue(WHO, letters.letter)
    if letters.kept:
        # The operator tries again, at any gateway.
        is_live = isinstance(await rig.stores.live_turns.get("acme", begun.turn), LiveTurn)
        again = requeueing_of(rig, letters).requeue(WHO, letters.letter)
        if is_live:
            with pytest.raises(Conflict, match=requeueing.GOES_ON):
                await again
        else:
            await again
    assert not letters.kept
    assert await rig.holder(f"talk-{last}") == begun.turn
    await go_on(rig, executor, begun.turn)
    assert sorted(executor.effects) == sorted(call.id for call in job.calls)
    assert await rig.holder(f"talk-{last}") is None


_calls_of_a_requeue = 11
"""Turns, conversation, audit, usage, seat, two calls, turn, seat, letter: the one after these does not come."""


class _nothing:  # noqa: N801  stands where a context manager does
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


async def test_of_two_gateways_that_requeue_a_letter_at_once_one_wins(rig: Rig) -> None:
    executor = Executor(rig)
    begun, job = await given_up(rig, executor)
    letters = Letters(begun.turn)
    found = await asyncio.gather(
        *(requeueing_of(rig, letters).requeue(WHO, letters.letter) for _ in range(5)), return_exceptions=True
    )
    refusals = [each for each in found if isinstance(each, Conflict)]
    assert len(refusals) == 4
    assert {(each.code, each.message) for each in refusals} == {(ErrorCode.DEAD_REFUSED, requeueing.GOES_ON)}
    await go_on(rig, executor, begun.turn)
    assert len(executor.effects) == len(job.calls)


async def test_a_mover_that_comes_late_does_not_fail_what_was_requeued_meanwhile(rig: Rig) -> None:
    executor = Executor(rig)
    begun, job = await given_up(rig, executor)
    letters = Letters(begun.turn)
    await requeueing_of(rig, letters).requeue(WHO, letters.letter)
    await poison(rig, returned(job, "never", "heard"))
    assert isinstance(await rig.stores.live_turns.get("acme", begun.turn), LiveTurn)
    await poison(rig, begun, topology.TURN)
    assert isinstance(await rig.stores.live_turns.get("acme", begun.turn), LiveTurn)
    await go_on(rig, executor, begun.turn)


async def test_a_mover_that_comes_late_does_not_fail_what_has_gone_on_to_its_next_step(rig: Rig) -> None:
    executor = Executor(rig)
    begun, job = await given_up(rig, executor)
    letters = Letters(begun.turn)
    await requeueing_of(rig, letters).requeue(WHO, letters.letter)
    await rig.sweeper.sweep()
    again = await rig.tool_job()
    await rig.event(returned(again, *await executor.run(again, by="second")))
    second = await rig.job()
    assert second.step == 2
    await poison(rig, returned(job, "never", "heard"))
    await poison(rig, job, topology.TOOL)
    await poison(rig, begun, topology.CONTROL)
    assert isinstance(await rig.stores.live_turns.get("acme", begun.turn), LiveTurn)
    # What it does now fails it as ever, and so does what led there.
    await poison(rig, returned(again, "never", "heard"))
    assert (await rig.closing()).outcome == "failed"
    assert (await live_turn_before(rig, begun.turn)).steps[0].step == 1


async def live_turn_before(rig: Rig, turn: str) -> LiveTurn:
    before = (await rig.stores.live_turns.given_up([turn]))[turn].before
    assert before is not None
    return before


async def test_a_call_that_was_found_stopped_before_the_requeue_is_run_after_it(rig: Rig) -> None:
    executor = Executor(rig)
    begun, job = await given_up(rig, executor)
    letters = Letters(begun.turn)
    await requeueing_of(rig, letters).requeue(WHO, letters.letter)
    # A worker that took the job late, and had not heard that the turn had ended.
    stopped = CallResult(call=job.calls[1].id, error=ErrorInfo(code=ErrorCode.TOOL_CANCELLED, message="stopped"))
    told = returned(job, "done", "")
    await rig.event(msgspec.structs.replace(told, results=(told.results[0], stopped)))
    again = await rig.tool_job()
    assert again.attempt == job.attempt + 1
    await rig.event(returned(again, *await executor.run(again, by="second")))
    assert results_in(await rig.job()) == ["done", "done"]
    assert sorted(executor.effects) == sorted(call.id for call in job.calls)


async def test_a_letter_stays_whose_message_is_about_to_fail_its_turn(rig: Rig) -> None:
    executor = Executor(rig)
    begun = msgspec.structs.replace(with_tools(), mode="durable")
    await rig.stores.live_turns.insert("acme", accepted(begun))
    letters = Letters(begun.turn)
    # Its mover has kept the letter and died before it failed the turn.
    assert await refused_of(rig, letters) == requeueing.GOES_ON
    assert letters.kept
    await rig.start(begun)
    await rig.call(await rig.job(), ("post", '{"n":1}'), ("post", '{"n":2}'))
    job = await rig.tool_job()
    await executor.run(job, by="first", only=1)
    await poison(rig, returned(job, "never", "heard"))
    await rig.closing()
    await purge(rig, begun.turn)
    await requeueing_of(rig, letters).requeue(WHO, letters.letter)
    assert not letters.kept


def days_of(days: int) -> Days:
    return lambda _tenant, _kind: days


async def test_what_the_ledger_may_have_forgotten_is_not_requeued(rig: Rig) -> None:
    executor = Executor(rig)
    begun, _ = await given_up(rig, executor, accepted_at_ms=rig.clock.now_ms() - 2 * DAY_MS)
    letters = Letters(begun.turn)
    for kept_days, why in ((2, requeueing.FORGOTTEN), (3, "")):
        asked = Requeueing(rig.stores, letters, News(rig.bus), rig.clock, days_of(kept_days))
        (judged,) = await asked.judge([letters.letter], is_whole=False)
        assert judged.why == why


async def test_what_was_stopped_when_the_turn_was_given_up_does_not_cancel_it_later(rig: Rig) -> None:
    executor = Executor(rig)
    begun, job = await given_up(rig, executor)
    letters = Letters(begun.turn)
    await requeueing_of(rig, letters).requeue(WHO, letters.letter)
    await rig.event(msgspec.structs.replace(returned(job, "done", "stopped"), cancelled="it was given up"))
    # It is also what has the turn driven on at once.
    again = await rig.tool_job()
    assert again.attempt == job.attempt + 1
    await rig.event(returned(again, *await executor.run(again, by="second")))
    assert results_in(await rig.job()) == ["done", "done"]
    assert len(executor.effects) == len(job.calls)


async def test_a_requeued_turn_that_is_given_up_again_can_be_requeued_again(rig: Rig) -> None:
    executor = Executor(rig)
    begun, job = await given_up(rig, executor)
    for _ in range(2):
        letters = Letters(begun.turn)
        await requeueing_of(rig, letters).requeue(WHO, letters.letter)
        await rig.sweeper.sweep()
        again = await rig.tool_job()
        await poison(rig, returned(again, "never", "heard"))
        assert (await rig.closing()).outcome == "failed"
        await purge(rig, begun.turn)
    letters = Letters(begun.turn)
    await requeueing_of(rig, letters).requeue(WHO, letters.letter)
    await go_on(rig, executor, begun.turn)
    assert sorted(executor.effects) == sorted(call.id for call in job.calls)


async def test_a_requeued_step_has_all_its_attempts_and_its_whole_time_again(rig: Rig) -> None:
    begun = await rig.accept(with_tools())
    await rig.start(begun)
    job = await rig.job()
    await rig.call(job, ("look", "{}"))
    tool_job = await rig.tool_job()
    slow = msgspec.structs.replace(returned(tool_job, "seen"), total_ms=5_000.0)
    await rig.event(slow)
    second = await rig.job()
    assert second.budget_s < begun.budget_s - 4
    await poison(rig, second, topology.MODEL)
    await rig.closing()
    await purge(rig, begun.turn)
    letters = Letters(begun.turn)
    await requeueing_of(rig, letters).requeue(WHO, letters.letter)
    await rig.sweeper.sweep()
    again = await rig.job()
    assert (again.step, again.attempt, again.budget_s) == (2, 3, begun.budget_s)
    assert results_in(again) == ["seen"]
    # What the attempt of before says comes too late.
    await rig.event(generated(second, text="Stale."))
    await rig.answer(again, "Fresh.")
    assert (await rig.closing()).text == "Fresh."
    assert again.attempt < turns.MAX_ATTEMPTS


async def test_a_turn_that_was_never_begun_is_begun_when_it_is_requeued(rig: Rig) -> None:
    begun = await rig.accept(with_tools(conversation=None))
    await poison(rig, begun, topology.TURN)
    assert (await rig.closing()).outcome == "failed"
    letters = Letters(begun.turn)
    turn = await requeueing_of(rig, letters).requeue(WHO, letters.letter)
    assert turn.status == "queued"
    await rig.sweeper.sweep()
    await rig.promote()
    await rig.answer(await rig.job(), "Begun after all.")
    assert (await rig.closing()).text == "Begun after all."


async def test_a_turn_that_opens_its_conversation_has_its_place_there_when_it_is_requeued(rig: Rig) -> None:
    begun = await rig.accept(with_tools(conversation="talk-opened", fresh=True))
    await poison(rig, begun, topology.TURN)
    assert (await rig.closing()).outcome == "failed"
    letters = Letters(begun.turn)
    await requeueing_of(rig, letters).requeue(WHO, letters.letter)
    found = await rig.stores.conversations.get("acme", "talk-opened")
    assert found is not None
    assert (found.active, found.turns) == (begun.turn, 1)
    # However long nobody is there to drive it on.
    assert found.active_until_s is not None
    assert found.active_until_s - rig.clock.now_ms() / 1000 > requeueing.SEAT_S / 2
    await rig.sweeper.sweep()
    await rig.promote()
    await rig.answer(await rig.job(), "Opened after all.")
    assert (await rig.closing()).text == "Opened after all."
    assert await rig.holder("talk-opened") is None
    seat = await rig.stores.conversations.take("acme", "talk-opened", "next", b"", max_waiting=1)
    assert seat == Seat("active", 2)


async def refusal(rig: Rig, turn: str) -> str:
    return await refused_of(rig, Letters(turn))


async def refused_of(rig: Rig, letters: Letters) -> str:
    with pytest.raises(Conflict) as refused:
        await requeueing_of(rig, letters).requeue(WHO, letters.letter)
    assert refused.value.code is ErrorCode.DEAD_REFUSED
    return refused.value.message


async def test_what_cannot_go_on_is_refused_in_words(rig: Rig) -> None:
    executor = Executor(rig)
    assert await refusal(rig, "no-such-turn") == requeueing.NOT_STORED

    classic = with_tools(agent="helper", conversation="talk-classic", fresh=True)
    await rig.start(classic)
    await poison(rig, await rig.job(), topology.MODEL)
    await rig.closing()
    assert await refusal(rig, classic.turn) == requeueing.CLASSIC

    moved, _ = await given_up(rig, executor, conversation="talk-moved", fresh=True)
    await rig.stores.conversations.take("acme", "talk-moved", "a-later-turn", b"", max_waiting=1)
    assert await refusal(rig, moved.turn) == requeueing.MOVED_ON

    waiting = with_tools()
    await held(rig, waiting, ("wipe", "{}"))
    message = CallsReturned(turn=waiting.turn, tenant="acme", step=1, attempt=1, results=())
    await poison(rig, message)
    await rig.closing()
    assert await refusal(rig, waiting.turn) == requeueing.WAITED

    await rig.stores.turns.erase("acme", conversation="talk-moved")
    assert await refusal(rig, moved.turn) == requeueing.NOT_STORED


async def test_a_turn_whose_hold_was_decided_goes_on_with_what_was_approved(rig: Rig) -> None:
    begun = with_tools()
    await held(rig, begun, ("wipe", '{"id": 7}'))
    hold = await decide(rig, await hold_of(rig, begun.turn), wipe=Verdict(approved=True, by="k1"))
    await rig.apply(begun.turn, hold.id)
    job = await rig.tool_job()
    await poison(rig, job, topology.TOOL)
    assert (await rig.closing()).outcome == "failed"
    await purge(rig, begun.turn)
    letters = Letters(begun.turn)
    await requeueing_of(rig, letters).requeue(WHO, letters.letter)
    await rig.sweeper.sweep()
    again = await rig.tool_job()
    assert [call.arguments for call in again.calls] == ['{"id":7}']
    assert (again.mode, again.stored) == ("durable", True)
    await rig.returned(again, "wiped")
    await rig.answer(await rig.job(), "Wiped.")
    assert (await rig.closing()).text == "Wiped."
    assert isinstance(await rig.stores.live_turns.get("acme", begun.turn), TurnRecord)
