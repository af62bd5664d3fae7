"""What `agents` takes: bodies and queries, to values or to every mistake."""

from typing import Any

import pytest

from kitemesh_contracts.content import SystemMessage, TextPart, UserMessage
from kitemesh_gateway.dialects.agents_bodies import parse, parse_clear, parse_history
from kitemesh_gateway.dialects.base import Mistakes
from kitemesh_runtime.rows import RowQuery


def test_a_message_alone_begins_a_conversation_and_always_runs_durable() -> None:
    asked = parse({"message": "Hello!"})
    assert asked.messages == (UserMessage(parts=(TextPart(text="Hello!"),)),)
    assert (asked.model, asked.agent, asked.row) == (None, None, 0)
    assert (asked.conversation, asked.creates, asked.keep, asked.durable) == (None, False, True, True)
    assert (asked.stream, asked.prompt, asked.details) == (False, None, "")


@pytest.mark.requirement("agents:context-and-prompt")
def test_every_field_has_its_place() -> None:
    asked = parse(
        {
            "message": "Hello",
            "conversation_id": "conv-123",
            "stream": True,
            "context": {"user": {"plan": "premium", "name": "Jürgen"}},
            "system_prompt": "",
            "metadata": {"source": "web", "n": 1},
            "unknown": 1,
        }
    )
    assert asked.messages[0] == SystemMessage(text='Context:\n{"user":{"name":"Jürgen","plan":"premium"}}')
    assert len(asked.messages) == 2
    assert (asked.conversation, asked.creates, asked.stream) == ("conv-123", True, True)
    assert (asked.prompt, asked.details) == ("", '{"source":"web","n":1}')


def test_what_is_null_or_empty_says_nothing() -> None:
    nothing = dict.fromkeys(("conversation_id", "stream", "context", "system_prompt", "metadata"))
    assert parse({"message": " ", **nothing}) == parse({"message": " ", "context": {}, "metadata": {}})


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["message"]),
        ([], ["message"]),
        (None, ["message"]),
        ({"message": ""}, ["message"]),
        ({"message": {"$ne": 1}, "conversation_id": "x" * 65}, ["message", "conversation_id"]),
        (
            {"message": "x", "conversation_id": {"$ne": 1}, "stream": 1, "context": "x", "metadata": []},
            ["conversation_id", "stream", "context", "metadata"],
        ),
        ({"message": "x", "system_prompt": {}}, ["system_prompt"]),
    ],
)
def test_every_mistake_is_found(body: Any, fields: list[str]) -> None:
    with pytest.raises(Mistakes) as caught:
        parse(body)
    assert [mistake.field for mistake in caught.value.mistakes] == fields


@pytest.mark.requirement("agents:page-size")
def test_a_query_says_which_rows() -> None:
    assert parse_history([]) == RowQuery(None, None, None, 50)
    pairs = [("limit", "200"), ("conversation_id", "c"), ("before", "9007199254740992"), ("after", "0"), ("x", "y")]
    assert parse_history(pairs) == RowQuery("c", 2**53, 0, 200)
    assert parse_clear([]) is None
    assert parse_clear([("conversation_id", "c"), ("limit", "x")]) == "c"


@pytest.mark.parametrize(
    ("pairs", "fields"),
    [
        ([("limit", "0")], ["limit"]),
        ([("limit", "201")], ["limit"]),
        ([("limit", "٣")], ["limit"]),
        ([("limit", "")], ["limit"]),
        ([("before", "9007199254740993")], ["before"]),
        ([("after", "-1"), ("before", "1e3")], ["before", "after"]),
        ([("after", "1"), ("after", "2")], ["after"]),
        ([("conversation_id", "$ne")], ["conversation_id"]),
    ],
)
def test_a_query_that_is_wrong_is_told_where(pairs: list[tuple[str, str]], fields: list[str]) -> None:
    with pytest.raises(Mistakes) as caught:
        parse_history(pairs)
    assert [mistake.field for mistake in caught.value.mistakes] == fields


def test_only_a_conversation_can_be_cleared() -> None:
    with pytest.raises(Mistakes):
        parse_clear([("conversation_id", "a b")])
