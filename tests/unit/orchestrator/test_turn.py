"""Every state met by every event: what follows, and what changes nothing."""

from typing import Any, Final, get_args

import pytest

from kitemesh_contracts.content import CallResult, Usage
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_contracts.events import StepTimings
from kitemesh_orchestrator import calls, turn
from kitemesh_orchestrator.happenings import (
    Event,
    Finish,
    OpenHold,
    Pause,
    Publish,
)
from kitemesh_orchestrator.states import Calling, Generating, State
from kitemesh_orchestrator.turn import Decision, decide
from kitemesh_runtime.live_turns import Job
from unit.orchestrator.pairs import (
    BOTH,
    ENDED,
    EVENTS,
    PAUSED,
    PAY_JOB,
    READ_JOB,
    RUNNING,
    RUNNING_STORED,
    STATES,
    STORED,
    change,
)
from unit.orchestrator.turns import (
    ERROR,
    FIRST,
    GENERATING,
    HOLD,
    START,
    asks,
    calling,
)

GONE = ErrorInfo(code=ErrorCode.TURN_CANCELLED, message="The turn was cancelled: the client went away")
NOT_RUN = ErrorInfo(code=ErrorCode.TOOL_CANCELLED, message="The turn ended before the call had a result")
DENIED = ErrorInfo(code=ErrorCode.TOOL_DENIED, message="A person denied the call", approval=HOLD)

MODEL_JOB = Job(kind="model", step=2, attempt=2, pool="fast")


def ended(outcome: str, error: ErrorInfo | None, **more: Any) -> Decision:
    """Say that the turn ends in its second step, after what had been used before it."""
    finish: dict[str, Any] = {"usage": GENERATING.usage, "timings": GENERATING.timings, "earlier": (FIRST,), **more}
    return Decision(ENDED, (Finish(outcome=outcome, step=2, error=error, **finish),))


def said_and_ended(state: Calling, outcome: str, error: ErrorInfo | None, *results: CallResult) -> Decision:
    """Say that the turn ends between two answers of the model, with what the calls have brought."""
    return ended(
        outcome,
        error,
        attempt=2,
        last=4,
        model="a",
        text="Let me see.",
        usage=state.usage,
        timings=state.timings,
        said=change(state.said, results=results),
    )


def lost_calls(*names: str) -> tuple[CallResult, ...]:
    return tuple(CallResult(call=name, error=NOT_RUN) for name in names)


def took(state: Calling, *results: CallResult, total_s: float = 0.2, **more: Any) -> Any:
    """Return a state with more results, and the calls that have them marked as done."""
    has = {result.call for result in results}
    return change(
        state,
        **{
            "said": change(state.said, results=(*state.said.results, *results)),
            "asked": tuple(change(each, do="done") if each.id in has else each for each in state.asked),
            "spent_s": state.spent_s + total_s,
            **more,
        },
    )


def next_step(state: Calling, *results: CallResult, total_s: float = 0.2) -> Decision:
    """Say that the third step begins with the results."""
    following = Generating(
        start=START,
        ordinal=3,
        durable=state.durable,
        held=state.held,
        steps=(FIRST, change(state.said, results=(*state.said.results, *results))),
        usage=state.usage,
        spent_s=state.spent_s + total_s,
        timings=state.timings,
        shown=state.shown,
        calls_made=state.calls_made,
        step=3,
        attempt=1,
    )
    return Decision(following, (Publish(job=Job(kind="model", step=3, pool="fast")),))


def while_generating(state: Generating) -> dict[str, Decision]:
    """Return what a model's result, and everything else, leads to."""
    used = {"usage": Usage(input_tokens=10, output_tokens=6)}
    kept = {"durable": state.durable}
    more = {"timings": StepTimings(queued_ms=1.0, first_token_ms=20.0, total_ms=500.0), **used}
    answer: dict[str, Any] = {"attempt": 2, "last": 4, "model": "a"}
    fresh = change(RUNNING, jobs=(change(READ_JOB, attempt=1),), **kept)
    both = change(BOTH, jobs=(change(READ_JOB, attempt=1),))
    again = change(state, attempt=3)
    newest = change(state, attempt=5)
    return {
        "cancelled": ended("cancelled", GONE),
        "lost": ended("failed", ERROR),
        "answer": ended("completed", None, **answer, text="Done.", finish="stop", **more),
        "calls that run": Decision(fresh, (Publish(job=change(READ_JOB, attempt=1)),)),
        "calls that are held": Decision(PAUSED, (OpenHold(hold=HOLD), Pause())),
        "calls that run beside held ones": Decision(
            both, (OpenHold(hold=HOLD), Publish(job=change(READ_JOB, attempt=1)))
        ),
        "calls that are refused": next_step(change(calling(asks("refused", "rm")), **kept), total_s=0.0),
        "calls to a turn without tools": ended("failed", turn.NOT_OFFERED, **answer, text="Let me see.", **more),
        "failure": ended("failed", ERROR, attempt=2, last=2, text="Do", **used),
        "stop": ended("cancelled", GONE, attempt=2, last=2, text="Do"),
        "model job handed back": Decision(again, (Publish(job=change(MODEL_JOB, attempt=3)),)),
        "model job handed back, newer attempt": Decision(newest, (Publish(job=change(MODEL_JOB, attempt=5)),)),
        "model job handed back, last attempt": ended("failed", turn.HANDED_BACK),
    }


GOT = CallResult(call="read1", text="42")
SILENT = CallResult(call="read1", error=calls.NOTHING)
NOT_PAID = CallResult(call="pay1", error=DENIED)
TOO_LATE = CallResult(call="pay1", error=change(calls.EXPIRED, approval=HOLD))


def while_running(state: Calling) -> dict[str, Decision]:
    """Return what leads on when one job runs and nothing is held."""
    raised = change(READ_JOB, attempt=3)
    return {
        "cancelled": said_and_ended(state, "cancelled", GONE, *lost_calls("read1")),
        "lost": said_and_ended(state, "failed", ERROR, *lost_calls("read1")),
        "tool job handed back": Decision(change(state, jobs=(raised,)), (Publish(job=raised),)),
        "tool job handed back, last attempt": said_and_ended(state, "failed", turn.HANDED_BACK, *lost_calls("read1")),
        "results": next_step(state, GOT),
        # Whoever ran it: what a tool returned is true, and no delta of it was shown.
        "results of an old attempt": next_step(state, GOT),
        "results of a job that was stopped": said_and_ended(state, "cancelled", GONE, SILENT),
    }


_approved = change(BOTH.asked[1], do="run")
_second = change(PAY_JOB, index=1)
_raised = change(READ_JOB, attempt=3)

LEADS: Final[dict[str, dict[str, Decision]]] = {
    "accepted": {
        "seated": Decision(
            Generating(start=START, ordinal=3, step=1, attempt=1), (Publish(job=change(MODEL_JOB, step=1, attempt=1)),)
        ),
        "refused": Decision(ENDED, (Finish(outcome="failed", error=ERROR),)),
        "cancelled": Decision(ENDED, (Finish(outcome="cancelled", error=GONE),)),
        "lost": Decision(ENDED, (Finish(outcome="failed", error=ERROR),)),
    },
    "generating": {
        **while_generating(GENERATING),
        # The first result of a carried step counts, whichever attempt it is of.
        "answer of an old attempt": ended(
            "completed",
            None,
            attempt=1,
            last=4,
            model="a",
            text="Done.",
            finish="stop",
            usage=Usage(input_tokens=10, output_tokens=6),
            timings=StepTimings(queued_ms=1.0, first_token_ms=20.0, total_ms=500.0),
        ),
        "failure of an old attempt": ended(
            "failed", ERROR, attempt=1, last=2, text="Do", usage=Usage(input_tokens=10, output_tokens=6)
        ),
        "stop of an old attempt": ended("cancelled", GONE, attempt=1, last=2, text="Do"),
    },
    "generating, stored": while_generating(STORED),
    "calling, running": while_running(RUNNING),
    "calling, running, stored": while_running(RUNNING_STORED),
    "calling, paused": {
        "cancelled": said_and_ended(PAUSED, "cancelled", GONE, *lost_calls("pay1")),
        "lost": said_and_ended(PAUSED, "failed", ERROR, *lost_calls("pay1")),
        "approval": Decision(
            change(PAUSED, asked=(change(PAUSED.asked[0], do="run"),), jobs=(PAY_JOB,), jobs_made=1),
            (Publish(job=PAY_JOB),),
        ),
        "denial": next_step(PAUSED, NOT_PAID, total_s=0.0),
        "expiry": next_step(PAUSED, TOO_LATE, total_s=0.0),
    },
    "calling, both": {
        "cancelled": said_and_ended(BOTH, "cancelled", GONE, *lost_calls("read1", "pay1")),
        "lost": said_and_ended(BOTH, "failed", ERROR, *lost_calls("read1", "pay1")),
        "tool job handed back": Decision(change(BOTH, jobs=(_raised,)), (Publish(job=_raised),)),
        "tool job handed back, last attempt": said_and_ended(
            BOTH, "failed", turn.HANDED_BACK, *lost_calls("read1", "pay1")
        ),
        "results": Decision(took(BOTH, GOT, jobs=(), longest_s=0.2), (Pause(),)),
        "results of an old attempt": Decision(took(BOTH, GOT, jobs=(), longest_s=0.2), (Pause(),)),
        "results of a job that was stopped": said_and_ended(BOTH, "cancelled", GONE, SILENT, *lost_calls("pay1")),
        "approval": Decision(
            change(BOTH, asked=(BOTH.asked[0], _approved), jobs=(READ_JOB, _second), jobs_made=2),
            (Publish(job=_second),),
        ),
        "denial": Decision(took(BOTH, NOT_PAID, total_s=0.0)),
        "expiry": Decision(took(BOTH, TOO_LATE, total_s=0.0)),
    },
    "ended": {},
}

_SEATS = {"seated", "refused"}
_FOREIGN_STEPS = {
    "answer of the step before",
    "answer of the step after",
    "failure of the step before",
    "stop of the step after",
    "model job handed back, step before",
    "tool job handed back, step before",
    "results of the step before",
}
_MODEL = {
    "answer",
    "calls that run",
    "calls that are held",
    "calls that run beside held ones",
    "calls that are refused",
    "calls to a turn without tools",
    "failure",
    "stop",
    "model job handed back",
    "model job handed back, newer attempt",
    "model job handed back, last attempt",
}
_OLD_MODEL = {"answer of an old attempt", "failure of an old attempt", "stop of an old attempt"}
_OLD_HAND_BACKS = {"model job handed back, old attempt", "tool job handed back, old attempt"}
_TOOLS = {
    "tool job handed back",
    "tool job handed back, last attempt",
    "results",
    "results of an old attempt",
    "results of a job that was stopped",
}
_FOREIGN_JOBS = {"tool job handed back, unknown job", "results of an unknown job"}
_DECISIONS = {"approval", "denial", "expiry"}
_FOREIGN_DECISIONS = {"answer of an unknown hold", "answer about an unknown call", "empty answer"}
_FOREIGN = _FOREIGN_STEPS | _FOREIGN_JOBS | _FOREIGN_DECISIONS | _OLD_HAND_BACKS
_WORK = _MODEL | _OLD_MODEL | _TOOLS

STAYS: Final[dict[str, set[str]]] = {
    "accepted": _FOREIGN | _WORK | _DECISIONS,
    "generating": _FOREIGN | _SEATS | _TOOLS | _DECISIONS,
    "generating, stored": _FOREIGN | _SEATS | _TOOLS | _DECISIONS | _OLD_MODEL,
    "calling, running": _FOREIGN | _SEATS | _MODEL | _OLD_MODEL | _DECISIONS,
    "calling, running, stored": _FOREIGN | _SEATS | _MODEL | _OLD_MODEL | _DECISIONS,
    "calling, paused": _FOREIGN | _SEATS | _MODEL | _OLD_MODEL | _TOOLS,
    "calling, both": _FOREIGN | _SEATS | _MODEL | _OLD_MODEL,
    "ended": set(EVENTS),
}


@pytest.mark.requirement("classic:table-is-total")
@pytest.mark.parametrize(
    ("state", "event"), [(state, event) for state, leads in LEADS.items() for event in leads], ids=lambda name: name
)
def test_what_follows_from_an_event(state: str, event: str) -> None:
    assert decide(STATES[state], EVENTS[event]) == LEADS[state][event]


@pytest.mark.parametrize(
    ("state", "event"), [(state, event) for state, stays in STAYS.items() for event in sorted(stays)]
)
def test_an_event_that_is_late_or_foreign_changes_nothing(state: str, event: str) -> None:
    decision = decide(STATES[state], EVENTS[event])
    assert decision.state is STATES[state]
    assert decision.commands == ()


@pytest.mark.requirement("classic:table-is-total")
def test_the_table_meets_every_state_with_every_event() -> None:
    assert {type(state) for state in STATES.values()} == set(get_args(State))
    assert {type(event) for event in EVENTS.values()} == set(get_args(Event))
    assert LEADS.keys() == STAYS.keys() == STATES.keys()
    for state in STATES:
        assert LEADS[state].keys() | STAYS[state] == EVENTS.keys()
        assert LEADS[state].keys() & STAYS[state] == set()


def test_the_states_of_the_table_are_what_they_are_called() -> None:
    assert (RUNNING.paused, PAUSED.paused, BOTH.paused) == (False, True, False)
    assert [bool(state.jobs) for state in (RUNNING, PAUSED, BOTH)] == [True, False, True]
    assert [bool(state.undecided) for state in (RUNNING, PAUSED, BOTH)] == [False, True, True]
