"""What a model is shown."""

import msgspec
import pytest

from contract.messages import START
from kitemesh_contracts.content import AssistantMessage, Message, SystemMessage, TextPart, UserMessage
from kitemesh_orchestrator import request
from kitemesh_runtime.catalog import Agent, History
from kitemesh_runtime.stores import TurnRecord


def said(text: str) -> UserMessage:
    return UserMessage(parts=(TextPart(text=text),))


def turn(n: int, length: int = 2) -> TurnRecord:
    return TurnRecord(
        id=f"t{n}",
        tenant="acme",
        status="completed",
        mode="classic",
        model="m",
        ordinal=n,
        input=(SystemMessage(text="ignored later"), said("q" * length)),
        answer=AssistantMessage(text="a" * length),
    )


def start(*messages: Message) -> object:
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
