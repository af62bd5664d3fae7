"""Every kind of state and of event, with the variants that matter: what the table test and docs/turn.md go through."""

from typing import Any, Final

import msgspec

from kitemesh_contracts.content import CallResult, Usage
from kitemesh_contracts.events import StepCancelled, StepFailed
from kitemesh_orchestrator.happenings import (
    Event,
    HoldAnswered,
    JobReleased,
    TurnCancelled,
    TurnRefused,
    TurnSeated,
    WorkLost,
)
from kitemesh_orchestrator.states import Accepted, Ended, State
from unit.orchestrator.turns import (
    ERROR,
    GENERATING,
    HOLD,
    IDS,
    START,
    answered,
    asks,
    calling,
    decided,
    returned,
    tool_job,
    verdict,
)

change: Final = msgspec.structs.replace

READ, PAY = asks("run", "read"), asks("hold", "pay")
READ_JOB, PAY_JOB = tool_job("read1", attempt=2), tool_job("pay1")

ACCEPTED = Accepted(start=START)
STORED = change(GENERATING, durable=True)
RUNNING = calling(READ, jobs=(READ_JOB,))
RUNNING_STORED = change(RUNNING, durable=True)
PAUSED = calling(PAY)
BOTH = calling(READ, PAY, jobs=(READ_JOB,))
ENDED = Ended(start=START)

STATES: Final[dict[str, State]] = {
    "accepted": ACCEPTED,
    "generating": GENERATING,
    "generating, stored": STORED,
    "calling, running": RUNNING,
    "calling, running, stored": RUNNING_STORED,
    "calling, paused": PAUSED,
    "calling, both": BOTH,
    "ended": ENDED,
}

_answer = answered(text="Done.")
_failure = StepFailed(**IDS, error=ERROR, text="Do", last=2, usage=Usage(output_tokens=1))
_stop = StepCancelled(**IDS, reason="the client went away", text="Do", last=2)
_model_released = JobReleased(kind="model", step=2, index=0, attempt=2)
_tool_released = JobReleased(kind="tool", step=2, index=0, attempt=2)
_result = returned(CallResult(call="read1", text="42"))


def of(event: Any, **changes: Any) -> Any:
    """Return an event with its step's answer changed."""
    return change(event, generated=change(event.generated, **changes))


EVENTS: Final[dict[str, Event]] = {
    "seated": TurnSeated(ordinal=3),
    "refused": TurnRefused(error=ERROR),
    "cancelled": TurnCancelled(reason="the client went away"),
    "lost": WorkLost(error=ERROR),
    "answer": _answer,
    "answer of the step before": of(_answer, step=1),
    "answer of the step after": of(_answer, step=3),
    "answer of an old attempt": of(_answer, attempt=1),
    "calls that run": answered(READ),
    "calls that are held": answered(PAY),
    "calls that run beside held ones": answered(READ, PAY),
    "calls that are refused": answered(asks("refused", "rm")),
    "calls to a turn without tools": change(answered(READ), offered=False),
    "failure": _failure,
    "failure of the step before": change(_failure, step=1),
    "failure of an old attempt": change(_failure, attempt=1),
    "stop": _stop,
    "stop of the step after": change(_stop, step=3),
    "stop of an old attempt": change(_stop, attempt=1),
    "model job handed back": _model_released,
    "model job handed back, old attempt": change(_model_released, attempt=1),
    "model job handed back, newer attempt": change(_model_released, attempt=4),
    "model job handed back, last attempt": change(_model_released, attempt=6),
    "model job handed back, step before": change(_model_released, step=1),
    "tool job handed back": _tool_released,
    "tool job handed back, old attempt": change(_tool_released, attempt=1),
    "tool job handed back, last attempt": change(_tool_released, attempt=6),
    "tool job handed back, unknown job": change(_tool_released, index=7),
    "tool job handed back, step before": change(_tool_released, step=1),
    "results": _result,
    "results of an old attempt": change(_result, attempt=1),
    "results of an unknown job": change(_result, job=7),
    "results of the step before": change(_result, step=1),
    "results of a job that was stopped": returned(cancelled="the client went away"),
    "approval": decided(pay1=verdict("pay1", approved=True)),
    "denial": decided(pay1=verdict("pay1", approved=False)),
    "expiry": HoldAnswered(hold=HOLD, expired=True),
    "answer of an unknown hold": HoldAnswered(hold="hold-1", answers=(verdict("pay1", approved=True),), expired=True),
    "answer about an unknown call": decided(c9=verdict("c9", approved=True)),
    "empty answer": HoldAnswered(hold=HOLD),
}
