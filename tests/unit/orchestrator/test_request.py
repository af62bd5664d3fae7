"""What a model is shown."""

from typing import Any, Final

import msgspec
import pytest

from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.content import (
    AssistantMessage,
    CallResult,
    FilePart,
    Message,
    Step,
    SystemMessage,
    ToolMessage,
    UserMessage,
)
from kitemesh_contracts.deltas import RESULT_SHOWN_CHARS
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_orchestrator import request
from kitemesh_runtime.catalog import Agent, History
from kitemesh_runtime.turns import TurnRecord
from unit.orchestrator.turns import START, call
from unit.orchestrator.turns import spoken as said

READ, PAY, DRAW = call("read", '{"q":"x"}'), call("pay"), call("draw")
DENIED: Final = ErrorInfo(code=ErrorCode.TOOL_DENIED, message="A person denied the call: no")


def turn(n: int, length: int = 2, **more: Any) -> TurnRecord:
    record = TurnRecord(
        id=f"t{n}",
        tenant="acme",
        status="completed",
        mode="classic",
        model="m",
        ordinal=n,
        input=(SystemMessage(text="ignored later"), said("q" * length)),
        answer=AssistantMessage(text="a" * length),
    )
    return msgspec.structs.replace(record, **more)


def start(*messages: Message) -> StartTurn:
    return msgspec.structs.replace(START, input=messages)


@pytest.mark.requirement("completions:system-text-is-appended")
def test_the_clients_system_text_follows_the_agents_prompt() -> None:
    agent = Agent(model="m", prompt="You are kind.")
    shown = request.render(start(SystemMessage(text="Speak French."), said("Hi")), agent, [])
    assert shown == (SystemMessage(text="You are kind.\n\nSpeak French."), said("Hi"))


@pytest.mark.requirement("completions:system-text-is-appended")
def test_a_bare_model_is_shown_only_what_the_client_said() -> None:
    assert request.render(start(said("Hi")), None, []) == (said("Hi"),)


@pytest.mark.requirement("conversation:history-window")
def test_history_comes_between_prompt_and_new_messages_oldest_first() -> None:
    shown = request.render(start(said("now")), Agent(model="m", prompt="P"), [turn(1), turn(2)])
    assert [type(message) for message in shown] == [
        SystemMessage,
        UserMessage,
        AssistantMessage,
        UserMessage,
        AssistantMessage,
        UserMessage,
    ]


@pytest.mark.requirement("conversation:history-window")
def test_the_window_keeps_the_newest_whole_turns() -> None:
    history = [turn(n, length=10) for n in range(1, 6)]
    assert len(request.window(history, History(turns=2))) == 4
    assert len(request.window(history, History(turns=0))) == 0
    kept = request.window(history, History(characters=45))
    assert len(kept) == 4
    assert kept == request.window(history[-2:], History())


def test_a_turn_that_does_not_fit_ends_the_window_even_if_an_older_one_would() -> None:
    assert request.window([turn(1, 1), turn(2, 100), turn(3, 1)], History(characters=50)) == request.window(
        [turn(3, 1)], History()
    )


STEPS: Final = (
    Step(step=1, text="Let me look.", calls=(READ, PAY), results=(CallResult(call="read1", text="42"),)),
    Step(
        step=2,
        reasoning="Perhaps so.",
        calls=(PAY,),
        results=(CallResult(call="pay1", error=DENIED), CallResult(call="read1", blob="b-1")),
        texts=("Never mind.", "Go on."),
    ),
)
FOLLOWED: Final[list[Message]] = [
    AssistantMessage(text="Let me look.", calls=(READ, PAY)),
    ToolMessage(call="read1", text="42"),
    AssistantMessage(reasoning="Perhaps so.", calls=(PAY,)),
    ToolMessage(call="pay1", text="Error (tool.denied): A person denied the call: no"),
    ToolMessage(call="read1", text="a long one"),
    said("Never mind."),
    said("Go on."),
]


def test_a_step_is_what_was_said_then_the_results_then_what_a_person_added() -> None:
    assert request.follow_up(STEPS, {"b-1": "a long one"}) == FOLLOWED
    assert request.follow_up(()) == []


def test_a_long_result_is_read_where_it_is_and_follows_what_is_said_of_it() -> None:
    step = Step(step=1, results=(CallResult(call="c", text="Edited. Result: ", blob="b-1"),))
    assert request.blobs_of([step, *STEPS]) == ["b-1", "b-1"]
    assert request.follow_up([step], {"b-1": "long"})[1:] == [ToolMessage(call="c", text="Edited. Result: long")]
    assert request.follow_up([step], {})[1:] == [ToolMessage(call="c", text=f"Edited. Result: {request.GONE}")]


def test_the_history_holds_every_step_of_a_turn_before_its_answer() -> None:
    messages = request.window([turn(1, steps=STEPS)], History(), {"b-1": "a long one"})
    assert messages == [said("qq"), *FOLLOWED, AssistantMessage(text="aa")]
    assert request.render(start(said("now")), None, [turn(1, steps=STEPS)], {"b-1": "a long one"}) == (
        *messages,
        said("now"),
    )


def test_steps_count_towards_the_window_with_their_arguments_and_results() -> None:
    record = turn(1, steps=(Step(step=1, calls=(READ,), results=(CallResult(call="read1", text="x" * 100),)),))
    size = 2 + len(READ.arguments) + 100 + 2
    assert request.window([record], History(characters=size)) != []
    assert request.window([record], History(characters=size - 1)) == []
    assert request.window([turn(2), record], History(characters=size)) == request.window([record], History())


def test_a_long_result_counts_with_the_text_that_is_shown() -> None:
    record = turn(1, steps=(Step(step=1, calls=(READ,), results=(CallResult(call="read1", blob="b-1"),)),))
    assert request.window([record], History(characters=150), {"b-1": "x" * 100}) != []
    assert request.window([record], History(characters=150), {"b-1": "x" * 200}) == []


def test_calls_of_the_callers_own_are_followed_by_its_results_in_the_next_turn() -> None:
    asked = Step(step=1, text="Drawing.", calls=(READ, DRAW), results=(CallResult(call="read1", text="42"),))
    before = turn(1, steps=(asked,), answer=AssistantMessage(text="Drawing.", calls=(DRAW,)))
    shown = request.render(start(ToolMessage(call="draw1", text="drawn"), said("And?")), None, [before])
    assert shown == (
        said("qq"),
        AssistantMessage(text="Drawing.", calls=(READ, DRAW)),
        ToolMessage(call="read1", text="42"),
        ToolMessage(call="draw1", text="drawn"),
        said("And?"),
    )


def test_a_turn_without_an_answer_shows_what_was_asked() -> None:
    assert request.window([turn(1, answer=None)], History()) == [said("qq")]


def test_a_prompt_of_the_turns_own_takes_the_place_of_the_agents() -> None:
    agent = Agent(model="m", prompt="You are kind.")
    own = msgspec.structs.replace(start(SystemMessage(text="Speak French."), said("Hi")), prompt="Be brief.")
    assert request.render(own, agent, [])[0] == SystemMessage(text="Be brief.\n\nSpeak French.")
    assert request.render(own, None, [])[0] == SystemMessage(text="Be brief.\n\nSpeak French.")
    none = msgspec.structs.replace(start(said("Hi")), prompt="")
    assert request.render(none, agent, []) == (said("Hi"),)


@pytest.mark.requirement("conversation:history-window")
def test_the_window_is_bounded_by_messages_and_by_tokens_as_well() -> None:
    history = [turn(n, length=10) for n in range(1, 6)]
    assert request.window(history, History(messages=5)) == request.window(history[-2:], History())
    assert request.window(history, History(messages=1)) == []
    # Two turns of 20 characters are 10 tokens.
    assert request.window(history, History(tokens=10)) == request.window(history[-2:], History())
    assert request.window(history, History(tokens=9)) == request.window(history[-1:], History())
    assert request.window(history, History(tokens=1_000_000, characters=20)) == request.window(history[-1:], History())


def test_no_more_turns_are_read_than_a_window_can_hold() -> None:
    assert request.turns_within(History(turns=20)) == 20
    assert request.turns_within(History(turns=20, messages=7)) == 7
    assert request.turns_within(History(turns=3, messages=7)) == 3
    assert request.characters_within(History(characters=100, tokens=20)) == 80
    assert request.characters_within(History(characters=100, tokens=50)) == 100


def test_a_file_in_the_history_counts_towards_the_window() -> None:
    picture = UserMessage(parts=(FilePart(media_type="image/png", blob="b"),))
    record = turn(1, input=(picture,))
    assert request.window([record], History(characters=4_001)) == []
    assert request.window([record], History(characters=4_002)) == [picture, AssistantMessage(text="aa")]


def test_a_stream_is_told_results_as_the_model_sees_them_but_cut() -> None:
    step = Step(
        step=1,
        results=(
            CallResult(call="a", text="x" * (RESULT_SHOWN_CHARS + 9)),
            CallResult(call="b", error=DENIED),
            CallResult(call="c", text="Edited. Result: ", blob="b-1"),
            CallResult(call="d", blob="b-2"),
        ),
    )
    assert request.results_of(step, {"b-1": "y" * RESULT_SHOWN_CHARS}) == (
        CallResult(call="a", text="x" * (RESULT_SHOWN_CHARS + 1)),
        CallResult(call="b", error=DENIED),
        CallResult(call="c", text=("Edited. Result: " + "y" * RESULT_SHOWN_CHARS)[: RESULT_SHOWN_CHARS + 1]),
        CallResult(call="d", text=request.GONE),
    )
