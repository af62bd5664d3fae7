"""What a body of `POST /run/api/chat` asks for, and everything that is wrong with it."""

import base64
import json
from typing import Any

import pytest

from kitemesh_contracts.content import FilePart, SystemMessage, TextPart, UserMessage
from kitemesh_gateway.dialects.base import Mistakes, TurnRequest
from kitemesh_gateway.dialects.run_chat import RunChat
from kitemesh_gateway.dialects.run_chat_messages import Reply
from kitemesh_gateway.dialects.run_chat_parse import parse

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
DATA_URI = "data:image/png;base64," + base64.b64encode(PNG).decode()
CALL = "22222222-2222-5222-8222-222222222222"
ASSISTANT = "01990000-0000-7000-8000-000000000001"


def user(text: str = "Hi", **more: Any) -> dict[str, Any]:
    return {"role": "user", "parts": [{"type": "text", "text": text}], **more}


def answered(call: str = CALL, name: str = ASSISTANT, **approval: Any) -> dict[str, Any]:
    part = {"type": "tool-refund", "toolCallId": call, "state": "approval-responded", "input": {}, "approval": approval}
    return {"role": "assistant", "id": name, "parts": [{"type": "step-start"}, part]}


def asked(body: dict[str, Any]) -> TurnRequest:
    found = parse(body).asked
    assert found is not None
    return found


def mistakes(body: Any) -> list[tuple[str, str]]:
    with pytest.raises(Mistakes) as caught:
        parse(body)
    return [(mistake.field, mistake.what) for mistake in caught.value.mistakes]


@pytest.mark.requirement("run-chat:sdks-own-send")
def test_the_sdks_ordinary_send_is_a_new_message_of_its_chat() -> None:
    body = {
        "id": "chat-1",
        "messages": [{"id": "msg-1", "role": "user", "parts": [{"type": "text", "text": "Hi"}], "metadata": {"x": 1}}],
        "trigger": "submit-message",
    }
    assert asked(body) == TurnRequest(
        model=None,
        default_agent=True,
        messages=(UserMessage(parts=(TextPart(text="Hi"),)),),
        sampling=asked(body).sampling,
        stream=True,
        conversation="chat-1",
        creates=True,
        message="msg-1",
    )


@pytest.mark.requirement("run-chat:fields")
def test_every_field_of_the_body_counts() -> None:
    found = asked(
        {
            "messages": [user()],
            "conversationId": "conv-1",
            "id": "not used: it may be anything",
            "messageId": "m-1",
            "executionMode": "durable",
            "stream": False,
            "max_tokens": 7,
            "headers": {"name": "Ada"},
            "userProperties": {"plan": "pro"},
            "properties": {"url": "https://x"},
            "runConfig": {"a": 1},
        }
    )
    assert (found.conversation, found.creates, found.message, found.mode) == ("conv-1", True, "m-1", "durable")
    assert (found.stream, found.sampling.max_tokens, found.values) == (False, 7, {"name": "Ada"})
    kept = {"properties": {"url": "https://x"}, "runConfig": {"a": 1}, "userProperties": {"plan": "pro"}}
    assert json.loads(found.details) == kept


def test_without_a_conversation_one_is_begun() -> None:
    found = asked({"messages": [user()]})
    assert (found.conversation, found.creates, found.keep, found.message, found.details) == (None, False, True, "", "")


@pytest.mark.requirement("run-chat:last-user-message")
def test_only_the_last_message_of_the_user_is_new() -> None:
    found = asked(
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                user("Old", id="not an id, and old"),
                {"role": "assistant", "id": ASSISTANT, "parts": [{"type": "text", "text": "Hello"}]},
                user("New", id="m-2"),
            ],
            "id": "c",
        }
    )
    assert found.messages == (SystemMessage(text="Be brief."), UserMessage(parts=(TextPart(text="New"),)))
    assert found.message == "m-2"


@pytest.mark.parametrize(
    "content", ["Hi", [{"type": "text", "text": "Hi"}], [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]]
)
def test_a_message_may_have_content_in_place_of_parts(content: Any) -> None:
    (message,) = asked({"messages": [{"role": "user", "content": content}]}).messages
    assert isinstance(message, UserMessage)
    assert "".join(part.text for part in message.parts if isinstance(part, TextPart)) == "Hi"


def test_parts_count_more_than_content() -> None:
    (message,) = asked({"messages": [user("parts", content="content")]}).messages
    assert message == UserMessage(parts=(TextPart(text="parts"),))


@pytest.mark.requirement("run-chat:message-id")
def test_a_messages_own_id_counts_more_than_the_bodys() -> None:
    assert asked({"messages": [user(id="own")], "messageId": "other"}).message == "own"
    assert asked({"messages": [user()], "messageId": "other"}).message == "other"


@pytest.mark.requirement("run-chat:message-id")
@pytest.mark.parametrize("name", ["", "a b", "ü", "x" * 65, "a\n", "a.b"])
def test_a_message_id_is_of_the_servers_alphabet(name: str) -> None:
    assert [field for field, _ in mistakes({"messages": [user(id=name)]})] == ["messages.0.id"]
    assert [field for field, _ in mistakes({"messages": [user()], "messageId": name})] == ["messageId"]


@pytest.mark.requirement("run-chat:regenerate")
def test_regenerating_brings_no_new_message_id() -> None:
    body = {"messages": [user("Again", id="m-1")], "trigger": "regenerate-message", "messageId": ASSISTANT, "id": "c"}
    assert asked(body).message == ""
    assert asked(body).messages == (UserMessage(parts=(TextPart(text="Again"),)),)


@pytest.mark.requirement("run-chat:no-user-message")
@pytest.mark.parametrize("message", [{"role": "system"}, {"role": "system", "content": "Say hello."}])
def test_a_request_of_instructions_alone_asks_what_they_say(message: dict[str, Any]) -> None:
    (said,) = asked({"messages": [message]}).messages
    assert said == UserMessage(parts=(TextPart(text=message.get("content", "")),))


@pytest.mark.requirement("run-chat:files")
def test_files_come_with_the_message() -> None:
    parts = [
        {"type": "file", "url": DATA_URI, "mediaType": "image/png", "filename": "a.png"},
        {"type": "text", "text": "What is it?"},
        {"type": "file", "url": "https://example.com/b.pdf", "mediaType": "application/pdf"},
        {"type": "data-weather", "data": {}},
        {"type": "source-url", "url": 7},
    ]
    found = asked({"messages": [{"role": "user", "parts": parts}]})
    assert found.files == (PNG,)
    assert found.messages == (
        UserMessage(
            parts=(
                FilePart(media_type="image/png", name="a.png", blob="#0", size=len(PNG)),
                TextPart(text="What is it?"),
                FilePart(media_type="application/pdf", url="https://example.com/b.pdf"),
            )
        ),
    )


def test_files_of_older_messages_are_not_looked_at() -> None:
    old = {"role": "user", "parts": [{"type": "file", "url": "ftp://x", "mediaType": "image/png"}]}
    hello = {"role": "assistant", "parts": [{"type": "text", "text": "Hello"}]}
    assert asked({"messages": [old, hello, user()]}).files == ()


@pytest.mark.requirement("run-chat:files")
@pytest.mark.parametrize(
    "url", ["http://example.com/a.png", "data:image/png;base64,!!", "https://localhost/a.png", "x"]
)
def test_a_file_that_is_not_taken_is_named(url: str) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "file", "url": url, "mediaType": "image/png"}]
    assert [field for field, _ in mistakes({"messages": [{"role": "user", "parts": parts}]})] == [
        "messages.0.parts.1.url"
    ]


@pytest.mark.requirement("run-chat:approval-answers")
@pytest.mark.parametrize(
    ("approval", "reply"),
    [
        ({"id": CALL, "approved": True}, Reply(ASSISTANT, CALL, approved=True, reason="")),
        ({"id": CALL, "approved": False, "reason": "no"}, Reply(ASSISTANT, CALL, approved=False, reason="no")),
        ({"id": CALL}, Reply(ASSISTANT, CALL, approved=False, reason="")),
        ({}, Reply(ASSISTANT, CALL, approved=False, reason="")),
    ],
)
def test_parts_that_were_responded_to_are_answers(approval: dict[str, Any], reply: Reply) -> None:
    body = {"id": "c", "messages": [user(id="m"), answered(**approval)], "messageId": ASSISTANT}
    found = parse(body)
    assert (found.asked, found.replies, found.conversation, found.stream) == (None, (reply,), "c", True)


def test_parts_in_any_other_state_are_no_answers() -> None:
    message = answered()
    for state in ("approval-requested", "output-available", "input-available"):
        message["parts"][1]["state"] = state
        assert parse({"id": "c", "messages": [message, user()]}).replies == ()


@pytest.mark.requirement("run-chat:answer-and-message")
def test_a_request_may_answer_and_say_something_new() -> None:
    found = parse({"id": "c", "messages": [user("Old"), answered(approved=True), user("New", id="m-2")]})
    assert [reply.approved for reply in found.replies] == [True]
    assert found.asked is not None
    assert found.asked.message == "m-2"


def test_a_dynamic_tool_is_answered_like_any_other() -> None:
    message = answered(approved=True)
    message["parts"][1] |= {"type": "dynamic-tool", "toolName": "refund"}
    assert len(parse({"id": "c", "messages": [message]}).replies) == 1


def test_the_dialect_takes_only_what_brings_a_message() -> None:
    dialect = RunChat(dict)
    assert dialect.parse({"messages": [user()]}).messages
    with pytest.raises(Mistakes):
        dialect.parse({"id": "c", "messages": [answered(approved=True)]})


@pytest.mark.requirement("run-chat:every-mistake-at-once")
@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ([], [""]),
        ({}, ["messages"]),
        ({"messages": []}, ["messages"]),
        ({"messages": "x"}, ["messages"]),
        ({"messages": [1]}, ["messages.0"]),
        ({"messages": [{"role": "robot", "content": "x"}]}, ["messages.0.role"]),
        ({"messages": [{"role": ["user"], "content": "x"}]}, ["messages.0.role"]),
        ({"messages": [{"role": "user"}]}, ["messages.0"]),
        ({"messages": [{"role": "user", "content": 7}]}, ["messages.0.content"]),
        ({"messages": [{"role": "user", "parts": "x"}]}, ["messages.0.parts"]),
        ({"messages": [{"role": "user", "parts": [{"type": "text"}]}]}, ["messages.0.parts.0.text"]),
        ({"messages": [user(), {"role": "assistant", "parts": []}]}, ["messages"]),
        ({"messages": [answered(approved=True)]}, ["conversationId"]),
        ({"messages": [answered(approved="yes")], "id": "c"}, ["messages.0.parts.1.approval.approved"]),
        ({"messages": [answered(reason=7)], "id": "c"}, ["messages.0.parts.1.approval.reason"]),
        ({"messages": [answered(reason="x" * 2001)], "id": "c"}, ["messages.0.parts.1.approval.reason"]),
        ({"messages": [answered(call=7)], "id": "c"}, ["messages.0.parts.1.toolCallId"]),  # type: ignore[arg-type]  as a client may
        ({"messages": [user()], "id": "a b"}, ["id"]),
        ({"messages": [user()], "conversationId": "a.b"}, ["conversationId"]),
        (
            {
                "messages": [user()],
                "executionMode": "auto",
                "stream": "yes",
                "max_tokens": 0,
                "headers": [],
                "userProperties": 1,
                "properties": "x",
                "runConfig": [],
            },
            ["executionMode", "stream", "max_tokens", "headers", "userProperties", "properties", "runConfig"],
        ),
    ],
)
def test_everything_that_is_wrong_is_named(body: Any, fields: list[str]) -> None:
    assert [field for field, _ in mistakes(body)][: len(fields)] == fields


@pytest.mark.requirement("run-chat:every-mistake-at-once")
def test_of_more_mistakes_than_anybody_reads_only_the_number_is_told() -> None:
    assert mistakes({"messages": [1] * 5000})[0] == ("", "The body has 5000 mistakes, too many to be told")
