"""Every state met by every event: what follows, and what changes nothing."""

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.messages import GENERATE, START, TURN
from kitemesh_contracts.codec import encode
from kitemesh_contracts.content import ToolCall, Usage
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_contracts.events import CallsReturned, StepCancelled, StepFailed, StepGenerated, StepReleased
from kitemesh_orchestrator import turn
from kitemesh_orchestrator.turn import (
    Accepted,
    CallModel,
    Decision,
    Ended,
    Finish,
    Generating,
    TurnCancelled,
    TurnRefused,
    TurnSeated,
    WorkLost,
    decide,
)

ERROR = ErrorInfo(code=ErrorCode.UPSTREAM_FAILED, message="The model failed")
IDS = {"turn": TURN, "tenant": "acme", "step": 1, "attempt": 1}

ACCEPTED = Accepted(start=START)
GENERATING = Generating(start=START, ordinal=3, step=1, attempt=1)
ENDED = Ended(start=START)

SEATED = TurnSeated(ordinal=3)
REFUSED = TurnRefused(error=ERROR)
CANCELLED = TurnCancelled(reason="the client went away")
LOST = WorkLost(error=ERROR)
GENERATED = StepGenerated(**IDS, model="a", finish="stop", text="Hi", usage=Usage(output_tokens=1), last=2)
CALLED = StepGenerated(**IDS, model="a", finish="tool_calls", calls=(ToolCall(id="c", name="rm", arguments="{}"),))
FAILED = StepFailed(**IDS, error=ERROR, text="H", last=1)
STOPPED = StepCancelled(**IDS, reason="the client went away", text="H", last=1)
RELEASED = StepReleased(**IDS, reason="the worker stops", job=msgspec.Raw(encode(GENERATE)))
RETURNED = CallsReturned(**IDS, results=())

NOTHING: tuple[()] = ()
GONE = ErrorInfo(code=ErrorCode.TURN_CANCELLED, message="The turn was cancelled: the client went away")

TABLE = [
    (ACCEPTED, SEATED, GENERATING, (CallModel(step=1, attempt=1),)),
    (ACCEPTED, REFUSED, ENDED, (Finish(outcome="failed", error=ERROR),)),
    (ACCEPTED, CANCELLED, ENDED, (Finish(outcome="cancelled", error=GONE),)),
    (ACCEPTED, LOST, ENDED, (Finish(outcome="failed", error=ERROR),)),
    (ACCEPTED, GENERATED, ACCEPTED, NOTHING),
    (ACCEPTED, FAILED, ACCEPTED, NOTHING),
    (ACCEPTED, STOPPED, ACCEPTED, NOTHING),
    (ACCEPTED, RELEASED, ACCEPTED, NOTHING),
    (ACCEPTED, RETURNED, ACCEPTED, NOTHING),
    (GENERATING, SEATED, GENERATING, NOTHING),
    (GENERATING, REFUSED, GENERATING, NOTHING),
    (GENERATING, CANCELLED, ENDED, (Finish(outcome="cancelled", step=1, error=GONE),)),
    (GENERATING, LOST, ENDED, (Finish(outcome="failed", step=1, error=ERROR),)),
    (
        GENERATING,
        GENERATED,
        ENDED,
        (
            Finish(
                outcome="completed",
                step=1,
                attempt=1,
                last=2,
                model="a",
                text="Hi",
                finish="stop",
                usage=Usage(output_tokens=1),
            ),
        ),
    ),
    (
        GENERATING,
        CALLED,
        ENDED,
        (
            Finish(
                outcome="failed",
                step=1,
                attempt=1,
                model="a",
                error=ErrorInfo(code=ErrorCode.TOOL_UNKNOWN, message="The model called a tool it was not given"),
            ),
        ),
    ),
    (GENERATING, FAILED, ENDED, (Finish(outcome="failed", step=1, attempt=1, last=1, text="H", error=ERROR),)),
    (GENERATING, STOPPED, ENDED, (Finish(outcome="cancelled", step=1, attempt=1, last=1, text="H", error=GONE),)),
    (
        GENERATING,
        RELEASED,
        Generating(start=START, ordinal=3, step=1, attempt=2),
        (CallModel(step=1, attempt=2),),
    ),
    (GENERATING, RETURNED, GENERATING, NOTHING),
    *(
        (ENDED, event, ENDED, NOTHING)
        for event in (SEATED, REFUSED, CANCELLED, LOST, GENERATED, FAILED, STOPPED, RELEASED, RETURNED)
    ),
]


@pytest.mark.requirement("classic:table-is-total")
@pytest.mark.parametrize(("state", "event", "after", "commands"), TABLE)
def test_what_follows_from_an_event(
    state: turn.State, event: turn.Event, after: turn.State, commands: tuple[turn.Command, ...]
) -> None:
    assert decide(state, event) == Decision(after, commands)


@pytest.mark.requirement("classic:table-is-total")
def test_the_table_meets_every_state_with_every_event() -> None:
    met = {(type(state), type(event)) for state, event, _, _ in TABLE}
    assert met == {(state, event) for state in get_args(turn.State) for event in get_args(turn.Event)}


@pytest.mark.parametrize("event", [GENERATED, FAILED, STOPPED, RELEASED])
def test_an_event_of_another_step_changes_nothing(event: StepGenerated) -> None:
    foreign = msgspec.structs.replace(event, step=2)
    assert decide(GENERATING, foreign) == Decision(GENERATING)


def test_a_hand_back_of_an_older_attempt_changes_nothing() -> None:
    newer = msgspec.structs.replace(GENERATING, attempt=3)
    assert decide(newer, RELEASED) == Decision(newer)


@pytest.mark.requirement("classic:first-result-wins")
def test_the_first_result_wins_whatever_its_attempt() -> None:
    late = msgspec.structs.replace(GENERATED, attempt=4)
    state, commands = decide(GENERATING, late)
    assert isinstance(state, Ended)
    assert decide(state, GENERATED) == Decision(state)
    assert [type(command) for command in commands] == [Finish]


@pytest.mark.requirement("classic:too-many-hand-backs")
def test_a_step_handed_back_too_often_fails_the_turn() -> None:
    state: turn.State = GENERATING
    commands: tuple[turn.Command, ...] = ()
    for attempt in range(1, turn.MAX_ATTEMPTS + 1):
        state, commands = decide(state, msgspec.structs.replace(RELEASED, attempt=attempt))
    assert isinstance(state, Ended)
    (finish,) = commands
    assert isinstance(finish, Finish)
    assert finish.error is not None
    assert finish.error.code is ErrorCode.TURN_EXHAUSTED


@pytest.mark.requirement("classic:one-ending")
@given(st.lists(st.sampled_from([event for _, event, _, _ in TABLE]), max_size=12))
def test_whatever_comes_in_whatever_order_a_turn_ends_once(events: list[turn.Event]) -> None:
    state: turn.State = ACCEPTED
    endings = 0
    for event in events:
        state, commands = decide(state, event)
        endings += sum(isinstance(command, Finish) for command in commands)
    assert endings == (1 if isinstance(state, Ended) else 0)
