import json
from typing import Any

import pytest

from kitemesh_contracts.content import Sampling, SystemMessage, TextPart, ToolMessage, UserMessage
from kitemesh_contracts.errors import ErrorCode
from kitemesh_gateway.dialects.base import Mistake, Mistakes, TurnRequest
from kitemesh_gateway.dialects.run_completions_parse import MAX_REPEATED_CHARS, parse

USER = {"role": "user", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be kind."}
OK: dict[str, Any] = {"model": "m", "messages": [USER]}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def user(*texts: str) -> UserMessage:
    return UserMessage(parts=tuple(TextPart(text=text) for text in texts))


def refused(body: object) -> list[Mistake]:
    with pytest.raises(Mistakes) as caught:
        parse(body)
    return list(caught.value.mistakes)


@pytest.mark.requirement("run-completions:seeds-example", "run-completions:streams-unless-told")
def test_the_seeds_request_becomes_a_turn() -> None:
    body = {"messages": [{"content": "string", "role": "system"}], "model": "string"}
    assert parse(body) == TurnRequest(
        model="string", messages=(user("string"),), sampling=Sampling(), stream=True, default_agent=True
    )


@pytest.mark.requirement("run-completions:streams-unless-told")
@pytest.mark.parametrize(("stream", "is_streamed"), [(True, True), (None, True), (False, False)])
def test_it_streams_unless_it_is_told_not_to(stream: bool | None, is_streamed: bool) -> None:
    assert parse({**OK, "stream": stream}).stream is is_streamed


@pytest.mark.requirement("run-completions:fields")
def test_every_field_of_its_own_is_carried() -> None:
    request = parse(
        {
            **OK,
            "conversationId": "conv_1",
            "executionMode": "durable",
            "messageId": "msg-1",
            "headers": {"user_name": "Ada", "level": 3},
            "properties": {"url": "https://example.com/"},
            "userProperties": {"plan": "pro"},
            "runConfig": {"x": [1]},
        },
    )
    assert request.conversation == "conv_1"
    assert request.creates
    assert request.mode == "durable"
    assert request.message == "msg-1"
    assert request.values == {"user_name": "Ada", "level": 3}
    assert json.loads(request.details) == {
        "properties": {"url": "https://example.com/"},
        "userProperties": {"plan": "pro"},
        "runConfig": {"x": [1]},
    }


@pytest.mark.requirement("run-completions:fields")
def test_every_field_of_the_seed_that_steers_the_model_is_carried() -> None:
    request = parse(
        {
            **OK,
            "temperature": 1,
            "top_p": 0.5,
            "max_tokens": 10,
            "frequency_penalty": -2,
            "presence_penalty": 2,
            "logit_bias": {"42": 1},
            "n": 1,
            "user": "u",
            "tools": [{"type": "function", "function": {"name": "f"}}],
        },
    )
    assert request.sampling == Sampling(
        temperature=1,
        top_p=0.5,
        max_tokens=10,
        frequency_penalty=-2,
        presence_penalty=2,
        logit_bias={"42": 1},
        user="u",
    )
    assert [tool.name for tool in request.tools] == ["f"]


@pytest.mark.requirement("run-completions:fields")
def test_what_says_nothing_leaves_everything_to_the_agent() -> None:
    request = parse(OK)
    assert (request.conversation, request.creates, request.mode, request.message, request.details) == (
        *(None, False, "auto", ""),
        "",
    )
    assert request.default_agent
    assert request.model == "m"


@pytest.mark.requirement("run-completions:bounds")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 1.1),
        ("temperature", -0.1),
        ("frequency_penalty", 2.1),
        ("presence_penalty", -2.1),
        ("n", 5),
        ("max_tokens", 0),
        ("top_p", 2),
        ("messageId", "a b"),
        ("messageId", ""),
        ("messageId", "x" * 65),
        ("messageId", "x\n"),
        ("conversationId", "../x"),
        ("executionMode", "auto"),
        ("stream", "yes"),
    ],
)
def test_a_value_out_of_bounds_is_named_and_repeated(field: str, value: object) -> None:
    (mistake,) = refused({**OK, field: value})
    assert mistake.field == field
    assert mistake.value == value


@pytest.mark.requirement("run-completions:bounds")
@pytest.mark.parametrize("field", ["headers", "properties", "userProperties", "runConfig"])
def test_what_must_be_an_object_is_nothing_else(field: str) -> None:
    (mistake,) = refused({**OK, field: ["x"]})
    assert (mistake.field, mistake.value) == (field, None)


@pytest.mark.parametrize("role", [[], {}, ["user"]])
def test_a_role_that_is_no_text_is_named(role: object) -> None:
    assert refused({**OK, "messages": [{"role": role, "content": "x"}]})[0].field == "messages.0.role"


@pytest.mark.requirement("run-completions:every-mistake")
def test_every_mistake_is_told_at_once_with_its_value() -> None:
    found = refused({"temperature": 3, "messages": [{"role": "king", "content": "x"}], "messageId": "é"})
    assert [(mistake.field, mistake.value) for mistake in found] == [
        ("model", None),
        ("messages.0.role", "king"),
        ("temperature", 3),
        ("messageId", "é"),
        ("messages", None),
    ]


def test_a_long_value_is_not_repeated() -> None:
    (mistake,) = refused({**OK, "messageId": "x" * (MAX_REPEATED_CHARS + 1)})
    assert mistake.value is None


@pytest.mark.parametrize("body", [None, [], "x", 1, True])
def test_a_body_that_is_no_object_is_refused(body: object) -> None:
    assert [mistake.field for mistake in refused(body)] == [""]


@pytest.mark.requirement("run-completions:conversation")
def test_only_what_follows_the_last_answer_is_new_in_a_conversation() -> None:
    messages = [SYSTEM, USER, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "More"}]
    assert parse({**OK, "messages": messages, "conversationId": "c"}).messages == (
        SystemMessage(text="Be kind."),
        user("More"),
    )
    assert len(parse({**OK, "messages": messages}).messages) == 4


@pytest.mark.requirement("run-completions:conversation")
def test_instructions_alone_are_what_is_said_with_and_without_a_conversation() -> None:
    for more in ({}, {"conversationId": "c"}):
        assert parse({**OK, "messages": [SYSTEM, SYSTEM], **more}).messages == (user("Be kind.", "Be kind."),)
    (mistake,) = refused({**OK, "messages": [SYSTEM, {"role": "assistant", "content": "x"}]})
    assert mistake.field == "messages"


@pytest.mark.requirement("run-completions:message-id-is-of-a-new-message")
def test_a_message_id_is_of_the_users_new_message_and_of_nothing_else() -> None:
    assistant = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "done"}
    assert parse({**OK, "messages": [USER, SYSTEM], "messageId": "m1"}).message == "m1"
    assert parse({**OK, "messages": [SYSTEM], "messageId": "m1"}).message == "m1"
    continued = parse({**OK, "messages": [USER, assistant, result], "messageId": "m1", "conversationId": "c"})
    assert continued.message == ""
    assert continued.messages == (ToolMessage(call="c1", text="done"),)


@pytest.mark.requirement("run-completions:fields")
def test_the_openai_spelling_of_the_same_is_taken_unless_it_says_otherwise() -> None:
    request = parse({**OK, "metadata": {"conversation_id": "c", "mode": "durable", "request_id": "r"}})
    assert (request.conversation, request.creates, request.mode, request.label) == ("c", False, "durable", "r")
    same = {"conversationId": "c", "executionMode": "durable", "metadata": {"conversation_id": "c", "mode": "auto"}}
    assert parse({**OK, **same}).mode == "durable"
    other = {"conversationId": "c", "executionMode": "classic", "metadata": {"conversation_id": "d", "mode": "durable"}}
    assert [mistake.field for mistake in refused({**OK, **other})] == ["conversationId", "executionMode"]


def test_what_is_not_kept_goes_on_with_nothing() -> None:
    assert not parse({**OK, "store": False}).keep
    (mistake,) = refused({**OK, "store": False, "conversationId": "c"})
    assert (mistake.field, mistake.value) == ("store", False)


def test_options_of_a_stream_are_taken_where_nothing_is_said_of_it() -> None:
    assert parse({**OK, "stream_options": {"include_usage": True}}).include_usage
    (mistake,) = refused({**OK, "stream": False, "stream_options": {"include_usage": True}})
    assert mistake.field == "stream_options"


def test_a_refusal_is_an_invalid_request() -> None:
    with pytest.raises(Mistakes) as caught:
        parse({})
    assert caught.value.code is ErrorCode.REQUEST_INVALID
