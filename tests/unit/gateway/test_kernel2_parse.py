"""What `kernel2` takes: its defaults, its metadata, and everything that is wrong at once."""

from typing import Any

import pytest

from kitemesh_contracts.content import AssistantMessage, Sampling, SystemMessage, TextPart, UserMessage
from kitemesh_gateway.dialects.base import Mistake, Mistakes
from kitemesh_gateway.dialects.kernel2 import Kernel2

ROLE = "123e4567-e89b-12d3-a456-426614174000"
SEED = {
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello, who are you?"},
        {"role": "assistant", "content": "I am a helpful assistant."},
        {"role": "user", "content": "What can you do for me?"},
    ],
    "metadata": {"enable_l0_retrieval": True, "role_id": ROLE.upper()},
    "stream": True,
    "model": "gpt-3.5-turbo",
    "temperature": 0.1,
    "max_tokens": 2000,
}
HI = [{"role": "user", "content": "Hi"}]


def mistakes(body: object) -> list[Mistake]:
    with pytest.raises(Mistakes) as caught:
        Kernel2().parse(body)
    return list(caught.value.mistakes)


@pytest.mark.requirement("kernel:request")
def test_the_published_request_is_taken_as_it_stands() -> None:
    asked = Kernel2().parse(SEED)
    assert asked.messages == (
        SystemMessage(text="You are a helpful assistant."),
        UserMessage(parts=(TextPart(text="Hello, who are you?"),)),
        AssistantMessage(text="I am a helpful assistant."),
        UserMessage(parts=(TextPart(text="What can you do for me?"),)),
    )
    assert asked.sampling == Sampling(temperature=0.1, max_tokens=2000)
    assert (asked.model, asked.stream, asked.retrieval, asked.role) == ("gpt-3.5-turbo", True, True, ROLE)
    assert (asked.conversation, asked.agent, asked.default_agent) == (None, None, False)


@pytest.mark.requirement("kernel:defaults")
@pytest.mark.parametrize("absent", [{}, dict.fromkeys(["metadata", "stream", "model", "temperature", "max_tokens"])])
def test_what_is_left_out_or_null_has_this_apis_defaults(absent: dict[str, Any]) -> None:
    asked = Kernel2().parse({"messages": HI, **absent})
    assert asked.model is None
    assert asked.stream is True
    assert asked.sampling == Sampling(temperature=0.1, max_tokens=2000)
    assert (asked.retrieval, asked.role, asked.keep) == (False, None, True)


@pytest.mark.requirement("kernel:approvals-are-denied")
def test_nobody_can_be_asked() -> None:
    assert Kernel2().parse({"messages": HI}).denies_holds is True


def test_the_other_fields_of_a_chat_completion_are_honoured() -> None:
    asked = Kernel2().parse(
        {
            "messages": HI,
            "stream": False,
            "temperature": 0,
            "max_completion_tokens": 7,
            "max_tokens": 9,
            "stop": ["a"],
            "seed": 3,
            "user": "u",
            "tools": [],
            "n": 1,
            "logprobs": False,
        }
    )
    assert asked.stream is False
    assert asked.sampling == Sampling(temperature=0.0, max_tokens=7, stop=("a",), seed=3, user="u")
    assert Kernel2().parse({"messages": HI, "stream_options": {"include_usage": True}}).include_usage


def test_the_whole_history_is_in_the_request_and_no_conversation_is_gone_on_with() -> None:
    messages = [*HI, {"role": "assistant", "content": "Hello"}]
    asked = Kernel2().parse({"messages": messages, "metadata": {"conversation_id": "c1", "mode": 7, "x": "y" * 50_000}})
    assert len(asked.messages) == 2
    assert (asked.conversation, asked.mode, asked.details) == (None, "auto", "")


@pytest.mark.requirement("kernel:request")
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages.0.role"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"enable_l0_retrieval": "yes"}}, "metadata.enable_l0_retrieval"),
        ({"metadata": {"role_id": "admin"}}, "metadata.role_id"),
        ({"metadata": {"role_id": {"$ne": ""}}}, "metadata.role_id"),
        ({"metadata": {"role_id": ROLE + "\n"}}, "metadata.role_id"),
        ({"stream": "yes"}, "stream"),
        ({"model": 7}, "model"),
        ({"model": "group:x"}, "model"),
        ({"temperature": 2.1}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"stream": False, "stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], field: str) -> None:
    assert field in [mistake.field for mistake in mistakes({**SEED, **changes})]


def test_everything_that_is_wrong_is_said_at_once() -> None:
    found = mistakes({"messages": [], "temperature": 9, "metadata": {"role_id": "x"}, "max_tokens": "many"})
    assert {mistake.field for mistake in found} == {"messages", "temperature", "metadata.role_id", "max_tokens"}
    assert [mistake.field for mistake in mistakes([])] == [""]
