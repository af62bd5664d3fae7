"""Whatever happens, in whatever order and however often: what a turn never does."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kitemesh_contracts.content import CallResult, Usage
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_contracts.events import StepCancelled, StepFailed
from kitemesh_orchestrator.happenings import (
    Answered,
    Command,
    Event,
    Finish,
    HoldAnswered,
    JobReleased,
    OpenHold,
    Pause,
    Publish,
    StepAnswered,
    TurnCancelled,
    TurnRefused,
    TurnSeated,
    WorkLost,
)
from kitemesh_orchestrator.states import Accepted, Calling, Ended, Generating, Limits, State, outstanding
from kitemesh_orchestrator.turn import decide, pending
from unit.orchestrator.pairs import EVENTS
from unit.orchestrator.turns import ERROR, IDS, START, answered, asks, returned, verdict

change: Final = msgspec.structs.replace
Draw = Callable[[st.SearchStrategy[Any]], Any]

CLIENTS: Final = "draw"
LIMITS: Final = Limits(steps=4, tokens=40)
FAILED: Final = ErrorInfo(code=ErrorCode.TOOL_FAILED, message="The tool failed")

_FATES: Final = st.sampled_from(["run", "run", "hold", "hold", "client", "refused"])
_wishes: Final = st.lists(st.tuples(_FATES, st.sampled_from(["default", "slow"])), max_size=4)
_attempts: Final = st.integers(1, 7)
_verdicts: Final = st.sampled_from(["approve", "deny", "edit", "alter", "leave"])


class Watch:
    """Follows a turn and fails at whatever must never be."""

    def __init__(self) -> None:
        self.state: State = Accepted(start=START)
        self.past: list[Event] = []
        self.published: Counter[tuple[str, int, int, int]] = Counter()
        self.job_of: dict[str, tuple[int, int]] = {}
        self.held: set[str] = set()
        self.approved: set[str] = set()
        self.refused: set[str] = set()
        self.finishes = 0
        self.holds: Counter[str] = Counter()

    def take(self, event: Event) -> None:
        before = self.state
        if isinstance(event, HoldAnswered) and isinstance(before, Calling) and event.hold == before.hold:
            self._note_verdicts(before, event)
        self.state, commands = decide(before, event)
        self.past.append(event)
        if isinstance(before, Ended):
            assert (self.state, commands) == (before, ())
        for command in commands:
            self._follow(command)
        self._look()

    def _note_verdicts(self, state: Calling, event: HoldAnswered) -> None:
        hashes = {call.id: call.sha256 for call in state.undecided}
        for answer in event.answers:
            if hashes.get(answer.call) == answer.sha256:
                (self.approved if answer.approved else self.refused).add(answer.call)
            elif answer.call in hashes:
                self.refused.add(answer.call)
        if event.expired:
            self.refused |= hashes.keys() - {answer.call for answer in event.answers}

    def _follow(self, command: Command) -> None:
        match command:
            case Publish(job=job):
                self.published[job.kind, job.step, job.index, job.attempt] += 1
                assert job in outstanding(self.state)
                for name in job.calls:
                    self._runs(name, (job.step, job.index))
            case OpenHold(hold=hold):
                self.holds[hold] += 1
            case Pause():
                assert isinstance(self.state, Calling)
                assert self.state.paused
            case Finish():
                self.finishes += 1
                assert isinstance(self.state, Ended)
                self._complete(command)

    def _runs(self, name: str, job: tuple[int, int]) -> None:
        assert isinstance(self.state, Calling)
        (asked,) = [each for each in self.state.asked if each.id == name]
        assert asked.do == "run"
        assert name not in self.refused
        assert name not in self.held or name in self.approved
        # Again only as the same job: a second one would be a second run.
        assert self.job_of.setdefault(name, job) == job

    def _complete(self, finish: Finish) -> None:
        if finish.said is None:
            return
        have = {each.call for each in finish.said.results}
        # Providers refuse a history in which a call has no result; only what the client is handed may still get one.
        assert have == {each.id for each in finish.said.calls} - {each.id for each in finish.calls}

    def _look(self) -> None:
        state = self.state
        assert max(self.published.values(), default=1) == 1
        assert max(self.holds.values(), default=1) == 1
        assert self.finishes == (1 if isinstance(state, Ended) and self.past else 0)
        assert sum(kind == "model" and attempt == 1 for kind, _, _, attempt in self.published) <= LIMITS.steps
        if isinstance(state, Calling):
            self.held |= {call.id for call in state.undecided}
            assert not self.refused & {call.id for call in state.asked if call.do == "run"}
            assert len(state.jobs) <= 1 or state.durable
            assert not state.undecided or (state.durable and state.held and state.hold is not None)
            assert max(Counter(result.call for result in state.said.results).values(), default=1) == 1
        if isinstance(state, Generating):
            for step in state.steps:
                assert sorted(result.call for result in step.results) == sorted(call.id for call in step.calls)
        published = [command for command in pending(state) if isinstance(command, Publish)]
        assert [command.job for command in published] == list(outstanding(state))


def a_model_answers(draw: Draw, step: int, attempt: int) -> StepAnswered:
    """Return an answer with calls that the step has never had before, however often it is drawn."""
    rulings = []
    for number, (do, pool) in enumerate(draw(_wishes)):
        name = CLIENTS if do == "client" else "act"
        wish, ruling = asks(do, f"{name}-{step}-{attempt}-", '{"n":1}', number, pool)
        rulings.append((change(wish, name=name), change(ruling, asked=change(ruling.asked, name=name))))
    event = answered(*rulings, step=step, attempt=attempt, usage=Usage(output_tokens=draw(st.integers(0, 15))))
    return change(event, limits=LIMITS)


def a_job_returns(draw: Draw, state: Calling) -> Event:
    job = draw(st.sampled_from(state.jobs))
    results = [
        CallResult(call=name, error=FAILED) if draw(st.booleans()) else CallResult(call=name, text="42")
        for name in draw(st.permutations(job.calls))
    ]
    reason = "the client went away" if draw(st.integers(0, 9)) == 0 else None
    return returned(*results, step=job.step, job=job.index, attempt=draw(_attempts), cancelled=reason)


def a_person_answers(draw: Draw, state: Calling) -> Event:
    answers: list[Answered] = []
    for call in state.undecided:
        match draw(_verdicts):
            case "approve":
                answers.append(verdict(call.id, approved=True, arguments=call.arguments))
            case "deny":
                answers.append(verdict(call.id, approved=False, arguments=call.arguments))
            case "edit":
                answer = verdict(call.id, approved=True, arguments=call.arguments)
                answers.append(change(answer, arguments='{"n":2}', edited_sha256="e"))
            case "alter":
                answers.append(verdict(call.id, approved=True, arguments='{"n":3}'))
    assert state.hold is not None
    return HoldAnswered(hold=state.hold, answers=tuple(answers), expired=draw(st.booleans()))


def what_fits(draw: Draw, state: State) -> Event:
    """Return what may well happen to a turn in that state."""
    match state:
        case Accepted():
            return TurnSeated(ordinal=1)
        case Generating():
            if draw(st.integers(0, 3)) == 0:
                return JobReleased(kind="model", step=state.step, index=0, attempt=draw(_attempts))
            return a_model_answers(draw, state.step, state.attempt)
        case Calling():
            if state.undecided and (not state.jobs or draw(st.booleans())):
                return a_person_answers(draw, state)
            if draw(st.integers(0, 4)) == 0:
                job = draw(st.sampled_from(state.jobs))
                return JobReleased(kind="tool", step=job.step, index=job.index, attempt=draw(_attempts))
            return a_job_returns(draw, state)
        case Ended():
            return draw(st.sampled_from(list(EVENTS.values())))


_ENDINGS: Final = [
    TurnRefused(error=ERROR),
    TurnCancelled(reason="on request"),
    WorkLost(error=ERROR),
    StepFailed(**IDS, error=ERROR),
    StepCancelled(**IDS, reason="on request"),
]


@pytest.mark.requirement("classic:one-ending")
@settings(deadline=None, max_examples=300)
@given(st.data())
def test_whatever_comes_in_whatever_order_nothing_happens_twice_or_unasked(data: st.DataObject) -> None:
    watch = Watch()
    for _ in range(data.draw(st.integers(1, 20))):
        kind = data.draw(st.integers(0, 9))
        if kind < 6:
            watch.take(what_fits(data.draw, watch.state))
        elif kind < 8 and watch.past:
            watch.take(data.draw(st.sampled_from(watch.past)))
        elif kind == 8:
            watch.take(data.draw(st.sampled_from(list(EVENTS.values()))))
        else:
            watch.take(data.draw(st.sampled_from(_ENDINGS)))


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_every_event_delivered_twice_leads_where_it_leads_once(data: st.DataObject) -> None:
    state: State = Accepted(start=START)
    for _ in range(12):
        event = what_fits(data.draw, state)
        after, _ = decide(state, event)
        again = decide(after, event)
        assert again == (after, ())
        assert again.state is after
        state = after


@pytest.mark.requirement("classic:one-ending")
@settings(deadline=None)
@given(st.lists(st.sampled_from(list(EVENTS.values())), max_size=15))
def test_a_turn_ends_once(events: list[Event]) -> None:
    state: State = Accepted(start=START)
    endings = 0
    for event in events:
        state, commands = decide(state, event)
        endings += sum(isinstance(command, Finish) for command in commands)
    assert endings == (1 if isinstance(state, Ended) else 0)
