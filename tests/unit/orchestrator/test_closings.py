"""What is stored of a turn that ends, what closes its stream, and the one made from the other."""

from typing import Any, Final

import msgspec
import pytest

from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.content import Alternative, AssistantMessage, CallResult, Logprob, Step, ToolCall, ToolSpec
from kitemesh_contracts.deltas import RESULT_SHOWN_CHARS, HoldRef, TurnOutcome
from kitemesh_orchestrator.closings import closing_of, held_closing_of, record_of, record_of_live
from kitemesh_orchestrator.happenings import Event, Finish
from kitemesh_orchestrator.states import Accepted, Calling, Ended, Generating, Limits, State
from kitemesh_orchestrator.stored import to_live
from kitemesh_orchestrator.turn import decide
from kitemesh_runtime.stored_endings import ended_from
from unit.orchestrator.pairs import EVENTS, STATES
from unit.orchestrator.turns import (
    FIRST,
    GENERATING,
    HOLD,
    START,
    answered,
    asks,
    call,
    calling,
    decided,
    returned,
    tool_job,
    verdict,
)

change: Final = msgspec.structs.replace
ONE_STEP: Final = Generating(start=START, ordinal=3, step=1, attempt=1)
NOW_MS: Final = 1_790_000_005_000


def finished(state: State, event: Event) -> Finish:
    after, (finish,) = decide(state, event)
    assert isinstance(after, Ended)
    assert isinstance(finish, Finish)
    return finish


def test_an_answer_is_stored_with_its_steps_and_where_it_came_from() -> None:
    start: StartTurn = change(START, key="k", request="r")
    state = change(GENERATING, start=start)
    record = record_of(state, finished(state, answered(text="Done.", reasoning="Because.")), NOW_MS)
    assert (record.id, record.tenant, record.status, record.mode) == (START.turn, "acme", "completed", "classic")
    assert (record.conversation, record.ordinal, record.key, record.request) == ("c-1", 3, "k", "r")
    assert (record.model, record.agent, record.served_by) == ("agent:helper", "helper", "a")
    assert (record.input, record.answer) == (START.input, AssistantMessage(text="Done.", reasoning="Because."))
    assert (record.finish, record.error, record.steps) == ("stop", None, (FIRST,))
    assert (record.accepted_at_ms, record.ended_at_ms) == (START.accepted_at_ms, NOW_MS)
    assert (record.usage.input_tokens, record.usage.output_tokens) == (10, 6)
    assert record.timings.total_ms == 500.0


@pytest.mark.parametrize(
    ("state", "mode", "gateway"),
    [
        (GENERATING, "classic", ""),
        (change(GENERATING, durable=True), "classic", "gateway-1"),
        (change(GENERATING, durable=True, held=True), "durable", "gateway-1"),
        (change(GENERATING, durable=True, start=change(START, mode="durable")), "durable", "gateway-1"),
    ],
)
def test_a_turn_that_was_held_is_durable_and_one_in_the_store_keeps_who_waits(
    state: Generating, mode: str, gateway: str
) -> None:
    record = record_of(state, finished(state, answered(text="Done.")), NOW_MS)
    assert (record.mode, record.gateway) == (mode, gateway)


def test_a_turn_that_never_ran_has_no_answer_no_ordinal_and_no_steps() -> None:
    accepted = Accepted(start=START)
    record = record_of(accepted, finished(accepted, EVENTS["refused"]), NOW_MS)
    assert (record.status, record.answer, record.ordinal, record.steps, record.gateway) == ("failed", None, 0, (), "")
    assert record.error is not None


def test_calls_of_the_callers_own_are_the_answer_and_their_step_is_the_last() -> None:
    state = calling(asks("run", "read"), asks("client", "draw", '{"x": 1}'), jobs=(tool_job("read1"),))
    finish = finished(state, returned(CallResult(call="read1", text="42")))
    record = record_of(state, finish, NOW_MS)
    assert record.answer == AssistantMessage(text="Let me see.", calls=(call("draw", '{"x": 1}'),))
    assert [step.step for step in record.steps] == [1, 2]
    assert record.steps[1].results == (CallResult(call="read1", text="42"),)
    closing = closing_of(state, finish, stored=True, store_ms=1.5, ended_at_ms=NOW_MS)
    assert (closing.step, closing.calls, closing.finish) == (2, record.answer.calls, "tool_calls")
    assert closing.earlier == (FIRST,)


def test_what_a_step_said_that_called_tools_is_stored_once() -> None:
    state = calling(asks("run", "read"), jobs=(tool_job("read1"),))
    record = record_of(state, finished(state, EVENTS["cancelled"]), NOW_MS)
    assert record.answer is None
    assert [(step.step, step.text) for step in record.steps] == [(1, ""), (2, "Let me see.")]


def test_a_closing_event_says_which_frames_it_follows_and_whether_the_turn_is_stored() -> None:
    finish = finished(GENERATING, answered(text="Done."))
    closing = closing_of(GENERATING, finish, stored=False, store_ms=2.5, ended_at_ms=NOW_MS)
    assert (closing.turn, closing.tenant, closing.outcome) == (START.turn, "acme", "completed")
    assert (closing.step, closing.attempt, closing.last) == (2, 2, 4)
    assert (closing.text, closing.model, closing.stored, closing.store_ms) == ("Done.", "a", False, 2.5)
    assert (closing.earlier, closing.hold) == ((FIRST,), None)


def ending(state: State, event: Event) -> Any:
    return pytest.param(state, event)


@pytest.mark.parametrize(
    ("state", "event"),
    [
        ending(ONE_STEP, answered(text="Done.", reasoning="Because.", step=1)),
        ending(ONE_STEP, answered(asks("client", "draw"), step=1)),
        ending(GENERATING, answered(text="Done.")),
        ending(GENERATING, EVENTS["failure"]),
        ending(GENERATING, EVENTS["stop"]),
        ending(GENERATING, answered(asks("client", "draw"), asks("client", "draw", number=2))),
        ending(
            calling(asks("run", "read"), asks("client", "draw"), jobs=(tool_job("read1"),)),
            returned(CallResult(call="read1", text="42")),
        ),
        ending(calling(asks("hold", "pay"), asks("client", "draw")), decided(pay1=verdict("pay1", approved=False))),
        ending(calling(asks("run", "read"), jobs=(tool_job("read1"),)), EVENTS["cancelled"]),
        ending(
            calling(asks("run", "read"), jobs=(tool_job("read1"),), spent_s=START.budget_s),
            returned(CallResult(call="read1", text="42")),
        ),
        ending(
            calling(asks("run", "read"), jobs=(tool_job("read1"),), limits=Limits(tokens=1)),
            returned(CallResult(call="read1", text="42")),
        ),
        ending(GENERATING, change(answered(asks("run", "read")), limits=Limits(steps=2))),
    ],
)
def test_the_stored_turn_closes_its_stream_again_as_it_was_closed(state: State, event: Event) -> None:
    finish = finished(state, event)
    closing = closing_of(state, finish, stored=True, store_ms=0.0, ended_at_ms=NOW_MS)
    again = ended_from(record_of(state, finish, NOW_MS))
    if finish.said is None:
        # No step was stored of it, so which attempt it was of is not known any more.
        closing = change(closing, attempt=0, last=0)
    assert again == closing


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (state, event)
        for state in STATES
        for event in EVENTS
        if any(isinstance(command, Finish) for command in decide(STATES[state], EVENTS[event]).commands)
    ],
)
def test_however_a_turn_ends_its_record_keeps_the_answer_and_the_reason(state: str, event: str) -> None:
    finish = finished(STATES[state], EVENTS[event])
    closing = closing_of(STATES[state], finish, stored=True, store_ms=0.0, ended_at_ms=NOW_MS)
    again = ended_from(record_of(STATES[state], finish, NOW_MS))
    assert (again.outcome, again.error, again.finish) == (closing.outcome, closing.error, closing.finish)
    assert (again.text, again.reasoning, again.calls) == (closing.text, closing.reasoning, closing.calls)
    assert (again.usage, again.timings, again.model) == (closing.usage, closing.timings, closing.model)


def test_a_held_closing_shows_what_is_to_be_decided_with_its_secrets_masked() -> None:
    secret, plain = '{"card_token":"4711"}', '{"amount":5}'
    state = calling(
        asks("run", "read"),
        asks("hold", "pay", secret),
        asks("hold", "drop", plain),
        asks("client", "draw"),
        expires_at_ms=123,
    )
    masked = change(state.asked[1], shown='{"card_token":"***"}')
    state = change(state, asked=(state.asked[0], masked, *state.asked[2:]))
    closing = held_closing_of(state)
    assert closing.calls == (
        ToolCall(id="pay1", name="pay", arguments='{"card_token":"***"}'),
        ToolCall(id="drop1", name="drop", arguments=plain),
    )
    assert (closing.outcome, closing.finish) == ("held", "tool_calls")
    assert closing.hold == HoldRef(id=HOLD, expires_at_ms=123)
    assert (closing.step, closing.attempt, closing.last, closing.text) == (2, 2, 4, "Let me see.")
    assert (closing.earlier, closing.error) == ((FIRST,), None)
    assert [(call.id, call.arguments) for call in closing.step_calls] == [
        ("read1", "{}"),
        *((call.id, call.arguments) for call in closing.calls),
        ("draw1", "{}"),
    ]
    assert b"4711" not in msgspec.json.encode(closing)


def test_what_is_decided_is_no_longer_shown_as_held() -> None:
    state = calling(asks("hold", "pay"), asks("hold", "drop"))
    after, _ = decide(state, decided(pay1=verdict("pay1", approved=False)))
    assert isinstance(after, Calling)
    assert [each.id for each in held_closing_of(after).calls] == ["drop1"]


@pytest.mark.parametrize("outcome", ["completed", "cancelled"])
def test_a_last_step_in_which_nothing_was_said_is_not_taken_for_the_one_before(outcome: TurnOutcome) -> None:
    earlier = (Step(step=1, attempt=1, text="Let me look.", calls=(ToolCall(id="c", name="look", arguments="{}"),)),)
    state = Generating(start=START, ordinal=1, step=2, attempt=1, steps=earlier)
    ended = ended_from(record_of(state, Finish(outcome=outcome, step=2, earlier=earlier), 1))
    assert (ended.step, ended.text, ended.earlier) == (2, "", earlier)


@pytest.mark.parametrize("steps", [(), (FIRST,)])
def test_the_record_of_a_durable_turn_knows_whose_attempt_its_answer_was_and_its_last_frame(
    steps: tuple[Step, ...],
) -> None:
    state = change(GENERATING, durable=True, steps=steps, step=len(steps) + 1, attempt=2)
    finish = finished(state, answered(step=len(steps) + 1, attempt=2, last=7, text="Done."))
    record = record_of(state, finish, NOW_MS)
    assert (record.attempt, record.last) == (2, 7)
    ended = ended_from(record)
    assert (ended.step, ended.attempt, ended.last) == (len(steps) + 1, 2, 7)
    classic = record_of(change(state, durable=False), finish, NOW_MS)
    assert (classic.attempt, classic.last) == (0, 0)


GIVEN: Final[dict[str, Any]] = {"prompt": "Be brief.", "message": "msg_1", "row": 129, "details": '{"a":1}'}


def test_what_the_client_gave_with_the_turn_is_kept_with_it() -> None:
    state = change(GENERATING, start=change(START, **GIVEN))
    record = record_of(state, finished(state, answered(text="Done.")), NOW_MS)
    assert {field: getattr(record, field) for field in GIVEN} == GIVEN
    live = to_live(state, 2)
    assert (live.message, live.row, live.input) == ("msg_1", 129, START.input)
    cancelled = record_of_live(live, NOW_MS)
    assert (cancelled.message, cancelled.row, cancelled.input) == ("msg_1", 129, START.input)
    assert to_live(change(state, start=change(START, conversation=None)), 2).input == ()


def test_a_closing_event_tells_what_calls_of_the_last_step_came_to() -> None:
    ran = CallResult(call="read1", text="42")
    state = calling(asks("run", "read"), asks("client", "draw"), jobs=(tool_job("read1"),))
    assert closing_of(state, finished(state, returned(ran)), stored=True, store_ms=0.0, ended_at_ms=0).results == (ran,)
    assert (
        closing_of(
            GENERATING, finished(GENERATING, answered(text="x")), stored=True, store_ms=0.0, ended_at_ms=0
        ).results
        == ()
    )
    held = calling(asks("run", "read"), asks("hold", "pay"), jobs=(tool_job("read1"),))
    after, _ = decide(held, returned(CallResult(call="read1", blob="b-1")))
    assert isinstance(after, Calling)
    told = held_closing_of(after, {"b-1": "z" * (RESULT_SHOWN_CHARS + 9)})
    assert told.results == (CallResult(call="read1", text="z" * (RESULT_SHOWN_CHARS + 1)),)


def other(*calls: ToolCall, finish: Any = "tool_calls") -> Alternative:
    return Alternative(index=1, finish=finish, text="Or so.", calls=calls)


def test_further_choices_go_to_the_caller_without_calls_of_tools_that_are_not_the_callers() -> None:
    likely = (Logprob(token="Done.", logprob=-0.5),)
    offered = ToolSpec(name="draw", parameters=msgspec.Raw(b"{}"))
    state = change(ONE_STEP, start=change(START, tools=(offered,)))
    mine, theirs = call("draw"), call("pay")
    more: dict[str, Any] = {"alternatives": (other(mine, theirs), other(theirs)), "logprobs": likely}
    for event in (answered(text="Done.", step=1, **more), answered(asks("client", "draw"), step=1, **more)):
        closing = closing_of(state, finished(state, event), stored=True, store_ms=0.0, ended_at_ms=0)
        assert closing.alternatives == (other(mine), other(finish="stop"))
        assert closing.logprobs == likely


def test_an_answer_that_is_not_taken_has_no_further_choices() -> None:
    more = change(answered(asks("run", "read"), alternatives=(other(),)), limits=Limits(steps=2))
    assert finished(GENERATING, more).alternatives == ()
