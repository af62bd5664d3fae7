"""Between a hold's write and its turn's anything may happen: nothing is lost, and nothing stays open for nobody."""

from typing import Any

import pytest

from integration.orchestrator.held_turns import decide, held, hold_of, live_of, record_of, results_in, with_tools
from integration.orchestrator.rig import Rig, generated
from kitemesh_contracts.commands import Generate
from kitemesh_contracts.ids import hold_id
from kitemesh_runtime.holds import Hold, Verdict
from kitemesh_runtime.live_turns import Job, LiveTurn


async def second_step(rig: Rig) -> Generate:
    """Run a turn to its second step, with its state in the store."""
    begun = with_tools()
    await held(rig, begun, ("wipe", "{}"))
    hold = await decide(rig, await hold_of(rig, begun.turn), wipe=Verdict(approved=False))
    await rig.apply(begun.turn, hold.id)
    job = await rig.job()
    assert job.stored
    return job


class Between:
    """Does something once, between the next write of a hold and that of its turn."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self._open = rig.stores.holds.open
        monkeypatch.setattr(rig.stores.holds, "open", self.open)

    async def open(self, tenant: str, hold: Hold, *, expires_after_s: float) -> Hold:
        kept = await self._open(tenant, hold, expires_after_s=expires_after_s)
        happen, self.happen = self.happen, self.nothing
        await happen(kept)
        return kept

    async def nothing(self, _: Hold) -> None:
        pass

    happen: Any = nothing


@pytest.fixture
def between(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Between:
    return Between(rig, monkeypatch)


@pytest.mark.parametrize("ahead_s", [0.0, 3600.0])
async def test_what_is_decided_before_its_turn_is_saved_is_applied_as_soon_as_it_is(
    rig: Rig, between: Between, ahead_s: float
) -> None:
    begun = with_tools()
    await rig.start(begun)
    job = await rig.job()
    # However wrong this machine's clock is.
    rig.clock.ahead_s = ahead_s

    async def approve(hold: Hold) -> None:
        await decide(rig, hold, wipe=Verdict(approved=True))
        await rig.apply(begun.turn, hold.id, gateway="g2")

    between.happen = approve
    await rig.call(job, ("wipe", '{"id": 7}'))
    assert (await rig.closing()).outcome == "held"
    await rig.take_decision()
    assert [call.arguments for call in (await rig.tool_job()).calls] == ['{"id":7}']
    hold = await hold_of(rig, begun.turn)
    assert (hold.status, hold.applied) == ("decided", hold.version)


@pytest.mark.parametrize("stored", [False, True])
async def test_what_is_decided_before_its_turn_is_saved_stays_due_until_the_turn_has_it(
    rig: Rig, between: Between, *, stored: bool
) -> None:
    if stored:
        job = await second_step(rig)
    else:
        await rig.start(with_tools())
        job = await rig.job()

    async def approve(hold: Hold) -> None:
        await decide(rig, hold, wipe=Verdict(approved=True))
        await rig.apply(job.turn, hold.id)

    between.happen = approve
    await rig.call(job, ("wipe", "{}"))
    # The message that asks to have it applied is lost, and so is the broadcast.
    rig.later(6.0)
    await rig.sweeper.sweep()
    assert (await rig.tool_job()).calls[0].name == "wipe"


async def test_a_hold_whose_time_comes_before_its_turn_is_saved_is_applied_as_soon_as_it_is(
    rig: Rig, between: Between
) -> None:
    begun = with_tools()
    await rig.start(begun)
    job = await rig.job()

    async def run_out(hold: Hold) -> None:
        rig.later(3600.0)
        await rig.apply(begun.turn, hold.id)

    between.happen = run_out
    await rig.call(job, ("wipe", "{}"))
    await rig.take_decision()
    assert "tool.denied" in results_in(await rig.job())[0]
    assert rig.tools.empty()


async def test_a_cancel_between_a_hold_and_its_turn_leaves_no_hold_that_could_be_approved(
    rig: Rig, between: Between
) -> None:
    job = await second_step(rig)

    async def cancel(_: Hold) -> None:
        found = await rig.stores.live_turns.cancel("acme", job.turn, "on request")
        assert isinstance(found, LiveTurn)
        assert found.hold is None

    between.happen = cancel
    await rig.call(job, ("wipe", "{}"))
    assert (await record_of(rig, job.turn)).status == "cancelled"
    orphan = await hold_of(rig, job.turn, job.step)
    assert orphan.status == "cancelled"
    late = await rig.stores.holds.decide("acme", orphan.id, {orphan.calls[0].id: Verdict(approved=True)})
    assert not late.won


class SecondAttempt:
    """A step whose first answer was held, and which was asked again before that was saved."""

    def __init__(self, rig: Rig, between: Between) -> None:
        self._rig = rig
        self._between = between

    async def reach(self, *, decided: bool) -> Generate:
        """Return the job whose second attempt is outstanding."""
        job = await second_step(self._rig)

        async def claim(hold: Hold) -> None:
            if decided:
                await decide(self._rig, hold, wipe=Verdict(approved=True))
            model = Job(kind="model", step=2, attempt=1, pool="engine")
            assert await self._rig.stores.live_turns.claim("acme", job.turn, model)

        self._between.happen = claim
        await self._rig.event(generated(job, ("wipe", '{"id":1}')))
        assert (await live_of(self._rig, job.turn)).status == "running"
        return job


@pytest.fixture
def second_attempt(rig: Rig, between: Between) -> SecondAttempt:
    return SecondAttempt(rig, between)


@pytest.mark.parametrize("decided", [True, False])
async def test_other_calls_of_a_second_attempt_get_a_hold_of_their_own(
    rig: Rig, second_attempt: SecondAttempt, *, decided: bool
) -> None:
    job = await second_attempt.reach(decided=decided)
    await rig.event(generated(job, ("wipe", '{"id":2}'), attempt=2))
    assert (await hold_of(rig, job.turn, 2)).status == "cancelled"
    live = await live_of(rig, job.turn)
    assert (live.status, live.hold) == ("held", hold_id(job.turn, 2, 2))
    # What was approved was another call.
    await rig.apply(job.turn, hold_id(job.turn, 2))
    assert (await live_of(rig, job.turn)).status == "held"
    assert rig.tools.empty()
    hold = await rig.stores.holds.get("acme", hold_id(job.turn, 2, 2))
    assert hold is not None
    await decide(rig, hold, wipe=Verdict(approved=True))
    await rig.apply(job.turn, hold.id)
    assert [call.arguments for call in (await rig.tool_job()).calls] == ['{"id":2}']


async def test_the_same_calls_of_a_second_attempt_are_what_was_decided_of_the_first(
    rig: Rig, second_attempt: SecondAttempt
) -> None:
    job = await second_attempt.reach(decided=True)
    await rig.event(generated(job, ("wipe", '{"id":1}'), attempt=2))
    assert (await live_of(rig, job.turn)).hold == hold_id(job.turn, 2)
    await rig.take_decision()
    assert [call.arguments for call in (await rig.tool_job()).calls] == ['{"id":1}']


async def test_a_cancel_ends_the_hold_of_a_second_attempt_that_its_turn_does_not_know_yet(
    rig: Rig, second_attempt: SecondAttempt, between: Between
) -> None:
    job = await second_attempt.reach(decided=True)

    async def cancel_at_the_second(hold: Hold) -> None:
        if hold.id == hold_id(job.turn, 2):
            between.happen = cancel_at_the_second
            return
        await rig.stores.live_turns.cancel("acme", job.turn, "on request")

    between.happen = cancel_at_the_second
    await rig.event(generated(job, ("wipe", '{"id":2}'), attempt=2))
    assert (await record_of(rig, job.turn)).status == "cancelled"
    assert await rig.stores.holds.count_open() == 0


async def test_a_second_attempt_whose_hold_was_cancelled_is_held_under_a_new_one(
    rig: Rig, second_attempt: SecondAttempt
) -> None:
    job = await second_attempt.reach(decided=False)
    await rig.stores.holds.cancel("acme", hold_id(job.turn, 2), "the model was asked again")
    await rig.event(generated(job, ("wipe", '{"id":1}'), attempt=2))
    live = await live_of(rig, job.turn)
    assert (live.status, live.hold) == ("held", hold_id(job.turn, 2, 2))


@pytest.mark.parametrize("calls", [(), (("look", "{}"),), (("no_such_tool", "{}"),)])
async def test_a_second_attempt_that_asks_for_nothing_to_be_held_leaves_no_hold_open(
    rig: Rig, second_attempt: SecondAttempt, calls: tuple[tuple[str, str], ...]
) -> None:
    job = await second_attempt.reach(decided=False)
    await rig.event(generated(job, *calls, text="So be it.", attempt=2))
    assert (await hold_of(rig, job.turn, 2)).status == "cancelled"
    if not calls:
        assert (await record_of(rig, job.turn)).status == "completed"
    else:
        assert (await live_of(rig, job.turn)).hold is None
