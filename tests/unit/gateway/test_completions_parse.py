import contextlib
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from kitemesh_contracts.content import (
    AssistantMessage,
    FilePart,
    Message,
    ResponseFormat,
    Sampling,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolSpec,
    UserMessage,
)
from kitemesh_contracts.errors import ErrorCode
from kitemesh_gateway.dialects.base import MAX_MISTAKES_SHOWN, Mistakes, TurnRequest
from kitemesh_gateway.dialects.completions_models import ChatRequest
from kitemesh_gateway.dialects.completions_parse import parse

GROUP = "group:123e4567-e89b-12d3-a456-426614174000"
USER = {"role": "user", "content": "Hi"}
OK: dict[str, Any] = {"model": "m", "messages": [USER]}


PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
PDF = b"%PDF-1.7"
PNG_URI = "data:image/png;base64," + b64encode(PNG).decode()
PDF_URI = "data:application/pdf;base64," + b64encode(PDF).decode()


def looking(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def tool(name: str, **fields: object) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


def assistant(*calls: str) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": call, "type": "function", "function": {"name": "f", "arguments": '{"n":1}'}} for call in calls
        ],
    }


def user(text: str) -> Message:
    return UserMessage(parts=(TextPart(text=text),))


@pytest.mark.requirement("completions:seeds-examples")
def test_the_seeds_request_becomes_a_turn() -> None:
    assert parse(
        {
            "model": GROUP,
            "messages": [{"role": "user", "content": "Give a summary of the key points."}],
            "metadata": {"request_id": "req_demo_001", "mode": "auto"},
        },
    ) == TurnRequest(
        model=GROUP,
        messages=(user("Give a summary of the key points."),),
        sampling=Sampling(),
        stream=False,
        label="req_demo_001",
    )


@pytest.mark.requirement(
    "completions:honoured-fields",
    "completions:metadata-is-kept",
    "completions:newer-bound-wins",
    "http:unknown-fields-are-ignored",
)
def test_every_honoured_field_is_carried() -> None:
    request = parse(
        {
            **OK,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 2,
            "top_p": 0.5,
            "max_tokens": 10,
            "max_completion_tokens": 20,
            "stop": ["a", "b"],
            "seed": -(2**63),
            "n": 4,
            "presence_penalty": -2,
            "frequency_penalty": 2,
            "logit_bias": {"50256": -100},
            "logprobs": True,
            "top_logprobs": 20,
            "response_format": {"type": "json_object"},
            "tools": [],
            "reasoning_effort": "low",
            "user": "u",
            "metadata": {"conversation_id": "c-1", "mode": "classic", "request_id": "", "other": {"x": []}},
            "store": True,
            "unknown": {"is": "ignored"},
        },
    )
    assert request.sampling == Sampling(
        temperature=2.0,
        top_p=0.5,
        max_tokens=20,
        stop=("a", "b"),
        seed=-(2**63),
        presence_penalty=-2.0,
        frequency_penalty=2.0,
        logit_bias={"50256": -100.0},
        reasoning_effort="low",
        user="u",
        choices=4,
        logprobs=True,
        top_logprobs=20,
        response_format=ResponseFormat(kind="json_object"),
    )
    assert request.details == '{"metadata":{"other":{"x":[]}}}'
    assert (request.stream, request.include_usage, request.conversation, request.label) == (True, True, "c-1", "")


@pytest.mark.requirement("durable:asked-for")
@pytest.mark.parametrize(
    ("metadata", "mode"),
    [(None, "auto"), ({}, "auto"), ({"mode": None}, "auto")]
    + [({"mode": mode}, mode) for mode in ("auto", "classic", "durable")],
)
def test_the_mode_is_read(metadata: dict[str, str] | None, mode: str) -> None:
    assert parse({**OK, "metadata": metadata}).mode == mode


def test_null_is_the_same_as_absent() -> None:
    fields = set(ChatRequest.model_fields) - set(OK)
    assert parse({**OK, **dict.fromkeys(fields)}) == parse(OK)


def test_messages_of_every_role_and_form_are_read() -> None:
    messages = parse(
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "S"},
                {"role": "developer", "content": [{"type": "text", "text": "D1"}, {"type": "text", "text": "D2"}]},
                {"role": "user", "content": [{"type": "text", "text": "U1"}, {"type": "text", "text": "U2"}]},
                {"role": "assistant", "content": "A", "tool_calls": None, "refusal": None},
                {"role": "user", "content": "", "name": "bob"},
            ],
        },
    ).messages
    assert messages == (
        SystemMessage(text="S"),
        SystemMessage(text="D1D2"),
        UserMessage(parts=(TextPart(text="U1"), TextPart(text="U2"))),
        AssistantMessage(text="A"),
        user(""),
    )


@pytest.mark.requirement("completions:only-new-messages")
def test_with_a_stored_conversation_only_what_follows_the_last_answer_is_new_and_instructions_stay() -> None:
    request = parse(
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "S"},
                {"role": "user", "content": "old"},
                {"role": "assistant", "content": "answer"},
                {"role": "user", "content": "new"},
            ],
            "metadata": {"conversation_id": "c"},
        },
    )
    assert request.messages == (SystemMessage(text="S"), user("new"))


@pytest.mark.requirement("completions:conversation-is-named")
def test_store_false_keeps_nothing() -> None:
    assert parse({**OK, "store": False}).keep is False
    assert parse(OK).keep is True


TOOL_RESULT = {"role": "tool", "tool_call_id": "c-1", "content": "42"}


@pytest.mark.requirement("completions:files")
def test_images_and_files_are_parts_whose_bytes_stand_beside_the_messages() -> None:
    request = parse(
        {
            "model": "m",
            "messages": [
                looking(
                    {"type": "text", "text": "Look:"},
                    {"type": "image_url", "image_url": {"url": PNG_URI, "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "https://a.example/1"}},
                ),
                {"role": "assistant", "content": "I see"},
                looking(
                    {"type": "file", "file": {"file_data": PDF_URI, "filename": "a.pdf"}},
                    {"type": "file", "file": {"file_data": PNG_URI}},
                ),
            ],
        },
    )
    assert request.files == (PNG, PDF)
    assert request.messages == (
        UserMessage(
            parts=(
                TextPart(text="Look:"),
                FilePart(media_type="image/png", blob="#0", size=len(PNG), detail="low"),
                FilePart(media_type="", url="https://a.example/1"),
            )
        ),
        AssistantMessage(text="I see"),
        UserMessage(
            parts=(
                FilePart(media_type="application/pdf", blob="#1", size=len(PDF), name="a.pdf"),
                FilePart(media_type="image/png", blob="#0", size=len(PNG)),
            )
        ),
    )


@pytest.mark.requirement("completions:only-new-messages", "completions:files")
def test_with_a_stored_conversation_only_new_files_are_taken() -> None:
    old = looking({"type": "image_url", "image_url": {"url": PNG_URI}})
    new = looking({"type": "file", "file": {"file_data": PDF_URI, "filename": "a.pdf"}})
    messages = [*[old, {"role": "assistant", "content": "I see"}] * 65, new]
    request = parse({"model": "m", "messages": messages, "metadata": {"conversation_id": "c"}})
    assert request.files == (PDF,)


@pytest.mark.requirement("completions:response-format")
def test_a_schema_for_the_answer_is_carried_as_it_is() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "number"}}}
    form = {"name": "point", "description": "A point", "schema": schema, "strict": True}
    request = parse({**OK, "response_format": {"type": "json_schema", "json_schema": form}})
    assert request.sampling.response_format == ResponseFormat(
        kind="json_schema",
        name="point",
        description="A point",
        schema=Raw(b'{"type":"object","properties":{"a":{"type":"number"}}}'),
        strict=True,
    )
    assert parse({**OK, "response_format": {"type": "text"}}).sampling == Sampling()


@pytest.mark.requirement("completions:reasoning-is-taken-back")
def test_what_an_answer_told_of_its_reasoning_may_come_back() -> None:
    messages = [USER, {"role": "assistant", "content": "A", "reasoning_content": "Hm"}, USER]
    assert parse({"model": "m", "messages": messages}).messages[1] == AssistantMessage(text="A", reasoning="Hm")


@pytest.mark.requirement("completions:metadata-is-kept")
@pytest.mark.parametrize("metadata", [None, {}, {"mode": "auto", "request_id": "r", "conversation_id": "c"}])
def test_metadata_of_ours_is_not_kept_a_second_time(metadata: dict[str, str] | None) -> None:
    assert parse({**OK, "metadata": metadata}).details == ""


@pytest.mark.requirement("completions:client-tools")
def test_client_tools_are_carried_as_they_are() -> None:
    request = parse(
        {
            **OK,
            "tools": [
                tool(
                    "get_x",
                    description="Gets x",
                    parameters={"type": "object", "properties": {"a": {"type": "number"}}},
                ),
                tool("bare", strict=False),
                tool("exact", strict=True),
            ],
            "tool_choice": tool("bare"),
            "parallel_tool_calls": False,
        },
    )
    assert request.tools == (
        ToolSpec(
            name="get_x",
            description="Gets x",
            parameters=Raw(b'{"type":"object","properties":{"a":{"type":"number"}}}'),
        ),
        ToolSpec(name="bare", parameters=Raw(b'{"type":"object"}')),
        ToolSpec(name="exact", parameters=Raw(b'{"type":"object"}'), strict=True),
    )
    assert (request.tool_choice, request.parallel_calls) == ("tool:bare", False)


@pytest.mark.parametrize("choice", ["none", "auto", "required"])
def test_a_choice_by_a_word_is_carried(choice: str) -> None:
    assert parse({**OK, "tools": [tool("f")], "tool_choice": choice}).tool_choice == choice


@pytest.mark.requirement("completions:client-tools")
def test_calls_and_their_results_are_read() -> None:
    messages = [
        USER,
        assistant("c-1", "c-2"),
        TOOL_RESULT,
        {
            "role": "tool",
            "tool_call_id": "c-2",
            "content": [{"type": "text", "text": "4"}, {"type": "text", "text": "3"}],
        },
        {**assistant("c-3"), "content": "And"},
    ]
    assert parse({"model": "m", "messages": messages}).messages == (
        user("Hi"),
        AssistantMessage(
            calls=(ToolCall(id="c-1", name="f", arguments='{"n":1}'), ToolCall(id="c-2", name="f", arguments='{"n":1}'))
        ),
        ToolMessage(call="c-1", text="42"),
        ToolMessage(call="c-2", text="43"),
        AssistantMessage(text="And", calls=(ToolCall(id="c-3", name="f", arguments='{"n":1}'),)),
    )


@pytest.mark.requirement("completions:only-new-messages")
@pytest.mark.parametrize("before", [[], [USER, assistant("c-1")]])
def test_with_a_stored_conversation_results_alone_are_enough(before: list[Any]) -> None:
    body = {"model": "m", "messages": [*before, TOOL_RESULT], "metadata": {"conversation_id": "c"}}
    assert parse(body).messages == (ToolMessage(call="c-1", text="42"),)


MISTAKES: list[tuple[object, ErrorCode, str | None, str]] = [
    ([], ErrorCode.REQUEST_INVALID, None, "The body must be a JSON object"),
    ("x", ErrorCode.REQUEST_INVALID, None, "The body must be a JSON object"),
    ({}, ErrorCode.REQUEST_INVALID, "model", "model: is required; messages: is required"),
    ({**OK, "model": 1}, ErrorCode.REQUEST_INVALID, "model", "model: must be a string"),
    ({**OK, "model": ""}, ErrorCode.REQUEST_INVALID, "model", "model: must have at least 1 character(s)"),
    ({**OK, "model": "group:x"}, ErrorCode.REQUEST_INVALID, "model", "model: group: must be followed by a UUID"),
    ({**OK, "messages": []}, ErrorCode.REQUEST_INVALID, "messages", "messages: must have at least 1 item(s)"),
    ({**OK, "messages": {}}, ErrorCode.REQUEST_INVALID, "messages", "messages: must be an array"),
    (
        {**OK, "messages": [{"role": "system", "content": "S"}]},
        ErrorCode.REQUEST_INVALID,
        "messages",
        "messages: needs at least one user message",
    ),
    (
        {
            "model": "m",
            "messages": [USER, {"role": "assistant", "content": "A"}],
            "metadata": {"conversation_id": "c"},
        },
        ErrorCode.REQUEST_INVALID,
        "messages",
        "messages: needs a user or tool message after the last assistant message",
    ),
    (
        {**OK, "messages": [USER] * 257},
        ErrorCode.REQUEST_INVALID,
        "messages",
        "messages: must not bring more than 256 messages",
    ),
    (
        {**OK, "messages": [USER, 5, {"role": "bob", "content": "x"}, {"content": "x"}, {"role": ["user"]}]},
        ErrorCode.REQUEST_INVALID,
        "messages.1",
        (
            "messages.1: must be an object; "
            "messages.2.role: must be 'system', 'developer', 'user', 'assistant' or 'tool'; "
            "messages.3.role: is required; "
            "messages.4.role: must be 'system', 'developer', 'user', 'assistant' or 'tool'"
        ),
    ),
    (
        {**OK, "messages": [{"role": "user", "content": None}, {"role": "user"}, {"role": "user", "content": []}]},
        ErrorCode.REQUEST_INVALID,
        "messages.0.content",
        (
            "messages.0.content: must be a string or an array of parts; "
            "messages.1.content: is required; "
            "messages.2.content: must have at least 1 item(s)"
        ),
    ),
    (
        {
            **OK,
            "messages": [
                {"role": "user", "content": [{"type": "text"}, {"type": "x"}, 3, {"type": "text", "text": 1}]}
            ],
        },
        ErrorCode.REQUEST_INVALID,
        "messages.0.content.0.text",
        (
            "messages.0.content.0.text: is required; "
            "messages.0.content.1.type: must be 'text', 'image_url', 'file' or 'input_audio'; "
            "messages.0.content.2: must be an object; "
            "messages.0.content.3.text: must be a string"
        ),
    ),
    (
        {**OK, "temperature": 2.1, "top_p": "1", "max_tokens": 0, "seed": 1.5, "n": 5, "stream": 1},
        ErrorCode.REQUEST_INVALID,
        "stream",
        (
            "stream: must be true or false; temperature: must be at most 2; top_p: must be a number; "
            "max_tokens: must be at least 1; seed: must be an integer; n: must be at most 4"
        ),
    ),
    ({**OK, "seed": True}, ErrorCode.REQUEST_INVALID, "seed", "seed: must be an integer"),
    ({**OK, "temperature": False}, ErrorCode.REQUEST_INVALID, "temperature", "temperature: must be a number"),
    (
        {**OK, "presence_penalty": -2.5, "frequency_penalty": 3},
        ErrorCode.REQUEST_INVALID,
        "presence_penalty",
        "presence_penalty: must be at least -2; frequency_penalty: must be at most 2",
    ),
    (
        {**OK, "stop": ["a"] * 5},
        ErrorCode.REQUEST_INVALID,
        "stop",
        "stop: must have at most 4 item(s)",
    ),
    ({**OK, "stop": 3}, ErrorCode.REQUEST_INVALID, "stop", "stop: must be a string or an array of strings"),
    (
        {**OK, "stop": ["", 1]},
        ErrorCode.REQUEST_INVALID,
        "stop.0",
        "stop.0: must have at least 1 character(s); stop.1: must be a string",
    ),
    (
        {**OK, "logit_bias": {"a": 1, "5": 101}},
        ErrorCode.REQUEST_INVALID,
        "logit_bias.a",
        "logit_bias.a: must name a token by its decimal id; logit_bias.5: must be at most 100",
    ),
    (
        {**OK, "reasoning_effort": "lots"},
        ErrorCode.REQUEST_INVALID,
        "reasoning_effort",
        "reasoning_effort: must be 'none', 'minimal', 'low', 'medium', 'high' or 'xhigh'",
    ),
    ({**OK, "metadata": []}, ErrorCode.REQUEST_INVALID, "metadata", "metadata: must be an object"),
    (
        {**OK, "metadata": {"mode": "fast", "request_id": 5, "conversation_id": {"$ne": 1}}},
        ErrorCode.REQUEST_INVALID,
        "metadata.request_id",
        (
            "metadata.request_id: must be a string; metadata.mode: must be 'auto', 'classic' or 'durable'; "
            "metadata.conversation_id: must be a string"
        ),
    ),
    (
        {**OK, "metadata": {"conversation_id": "a\n", "request_id": "x" * 256}},
        ErrorCode.REQUEST_INVALID,
        "metadata.request_id",
        (
            "metadata.request_id: must have at most 255 character(s); "
            "metadata.conversation_id: must be an id: 1 to 64 of A-Z, a-z, 0-9, _ and -"
        ),
    ),
    (
        {**OK, "store": False, "metadata": {"conversation_id": "c"}},
        ErrorCode.REQUEST_INVALID,
        "store",
        "store: must not be false with metadata.conversation_id",
    ),
    (
        {**OK, "stream_options": {"include_usage": True}},
        ErrorCode.REQUEST_INVALID,
        "stream_options",
        "stream_options: is only allowed with stream",
    ),
    (
        {**OK, "top_logprobs": 0},
        ErrorCode.REQUEST_INVALID,
        "top_logprobs",
        "top_logprobs: is only allowed with logprobs",
    ),
    (
        {**OK, "metadata": {"mode": "auto", "notes": "x" * 16_400}},
        ErrorCode.REQUEST_INVALID,
        "metadata",
        "metadata: must not have more than 16384 bytes beside what is named here",
    ),
    (
        {**OK, "tools": [{}, 5, {"type": "custom", "function": {}}, {"type": "function", "function": {"name": "a b"}}]},
        ErrorCode.REQUEST_INVALID,
        "tools.0.type",
        (
            "tools.0.type: is required; tools.0.function: is required; tools.1: must be an object; "
            "tools.2.type: must be 'function'; tools.2.function.name: is required; "
            "tools.3.function.name: must be 1 to 64 of A-Z, a-z, 0-9, _ and -"
        ),
    ),
    (
        {**OK, "tools": [tool("f", description=5, parameters=[]), tool("x" * 65)]},
        ErrorCode.REQUEST_INVALID,
        "tools.0.function.description",
        (
            "tools.0.function.description: must be a string; tools.0.function.parameters: must be an object; "
            "tools.1.function.name: must be 1 to 64 of A-Z, a-z, 0-9, _ and -"
        ),
    ),
    (
        {**OK, "tools": [tool("f"), tool("g"), tool("f")]},
        ErrorCode.REQUEST_INVALID,
        "tools.2.function.name",
        "tools.2.function.name: is the name of an earlier tool",
    ),
    (
        {**OK, "tools": [tool(f"f{n}") for n in range(65)]},
        ErrorCode.REQUEST_INVALID,
        "tools",
        "tools: must have at most 64 item(s)",
    ),
    (
        {**OK, "tool_choice": "never", "parallel_tool_calls": "no"},
        ErrorCode.REQUEST_INVALID,
        "tool_choice",
        "tool_choice: must be 'none', 'auto' or 'required'; parallel_tool_calls: must be true or false",
    ),
    (
        {**OK, "tool_choice": 5},
        ErrorCode.REQUEST_INVALID,
        "tool_choice",
        "tool_choice: must be a string or an object that names a function",
    ),
    (
        {**OK, "tools": [tool("f")], "tool_choice": {"type": "function"}},
        ErrorCode.REQUEST_INVALID,
        "tool_choice.function",
        "tool_choice.function: is required",
    ),
    (
        {**OK, "tools": [tool("f")], "tool_choice": tool("g")},
        ErrorCode.REQUEST_INVALID,
        "tool_choice.function.name",
        "tool_choice.function.name: is not the name of one of the tools",
    ),
    (
        {**OK, "tool_choice": tool("g"), "temperature": 3},
        ErrorCode.REQUEST_INVALID,
        "temperature",
        "temperature: must be at most 2; tool_choice.function.name: is not the name of one of the tools",
    ),
    (
        {**OK, "logprobs": 1, "top_logprobs": 21},
        ErrorCode.REQUEST_INVALID,
        "logprobs",
        (
            "logprobs: must be true or false; top_logprobs: must be at most 20; "
            "top_logprobs: is only allowed with logprobs"
        ),
    ),
    (
        {**OK, "response_format": {"type": "xml"}},
        ErrorCode.REQUEST_INVALID,
        "response_format.type",
        "response_format.type: must be 'text', 'json_object' or 'json_schema'",
    ),
    (
        {**OK, "response_format": "json"},
        ErrorCode.REQUEST_INVALID,
        "response_format",
        "response_format: must be an object",
    ),
    (
        {**OK, "response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": [], "strict": 1}}},
        ErrorCode.REQUEST_INVALID,
        "response_format.json_schema.name",
        (
            "response_format.json_schema.name: must be an id: 1 to 64 of A-Z, a-z, 0-9, _ and -; "
            "response_format.json_schema.schema: must be an object; "
            "response_format.json_schema.strict: must be true or false"
        ),
    ),
    (
        {**OK, "response_format": {"type": "json_schema"}},
        ErrorCode.REQUEST_INVALID,
        "response_format.json_schema",
        "response_format.json_schema: is required",
    ),
    (
        {**OK, "messages": [USER, {"role": "tool", "content": "1", "tool_call_id": "c"}]},
        ErrorCode.REQUEST_INVALID,
        "messages.1.tool_call_id",
        "messages.1.tool_call_id: answers no call of an earlier assistant message",
    ),
    (
        {**OK, "messages": [USER, {"role": "tool", "content": "1", "tool_call_id": "c"}, assistant("c")]},
        ErrorCode.REQUEST_INVALID,
        "messages.1.tool_call_id",
        "messages.1.tool_call_id: answers no call of an earlier assistant message",
    ),
    (
        {**OK, "messages": [USER, {"role": "tool"}, {"role": "tool", "tool_call_id": "", "content": None}]},
        ErrorCode.REQUEST_INVALID,
        "messages.1.tool_call_id",
        (
            "messages.1.tool_call_id: is required; messages.1.content: is required; "
            "messages.2.tool_call_id: must have at least 1 character(s); "
            "messages.2.content: must be a string or an array of parts; "
            "messages.2.tool_call_id: answers no call of an earlier assistant message"
        ),
    ),
    (
        {**OK, "messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{}]}]},
        ErrorCode.REQUEST_INVALID,
        "messages.1.tool_calls.0.id",
        (
            "messages.1.tool_calls.0.id: is required; messages.1.tool_calls.0.type: is required; "
            "messages.1.tool_calls.0.function: is required"
        ),
    ),
    (
        {**OK, "messages": [USER, {"role": "assistant"}, {"role": "assistant", "content": None, "tool_calls": []}]},
        ErrorCode.REQUEST_INVALID,
        "messages.1",
        "messages.1: needs content or tool_calls; messages.2: needs content or tool_calls",
    ),
    (
        {"model": "m", "messages": [assistant("c"), {"role": "tool", "content": "1", "tool_call_id": "c"}]},
        ErrorCode.REQUEST_INVALID,
        "messages",
        "messages: needs at least one user message",
    ),
    (
        {**OK, "messages": [looking({"type": "input_audio", "input_audio": {}})]},
        ErrorCode.REQUEST_UNSUPPORTED,
        "messages.0.content.0.type",
        "messages.0.content.0.type: only 'text', 'image_url' and 'file' are supported",
    ),
    (
        {**OK, "messages": [looking({"type": "file", "file": {"file_data": PNG_URI, "file_id": "file-1"}})]},
        ErrorCode.REQUEST_UNSUPPORTED,
        "messages.0.content.0.file.file_id",
        (
            "messages.0.content.0.file.file_id: is not supported: there are no stored files here, file_data brings "
            "the bytes"
        ),
    ),
    (
        {
            **OK,
            "messages": [
                looking(
                    {"type": "image_url", "image_url": {"url": "http://a.example/1", "detail": "much"}},
                    {"type": "image_url", "image_url": "https://a.example/1"},
                    {"type": "image_url", "image_url": {"url": 5}},
                    {"type": "image_url", "image_url": {"url": PDF_URI}},
                    {"type": "file", "file": {}},
                    {"type": "file", "file": {"file_data": "AAAA", "filename": "a\nb"}},
                    {"type": "file", "file": {"file_data": "AAAA"}},
                ),
            ],
        },
        ErrorCode.REQUEST_INVALID,
        "messages.0.content.0.image_url.url",
        (
            "messages.0.content.0.image_url.url: must be an https:// address or a data: URI; "
            "messages.0.content.0.image_url.detail: must be 'auto', 'low' or 'high'; "
            "messages.0.content.1.image_url: must be an object; "
            "messages.0.content.2.image_url.url: must be a string; "
            "messages.0.content.3.image_url.url: must be an image; "
            "messages.0.content.4.file.file_data: is required; "
            "messages.0.content.5.file.filename: must not hold control characters; "
            "messages.0.content.6.file: must be a data URI: the name of the file does not say its type"
        ),
    ),
    (
        {**OK, "messages": [looking(*[{"type": "image_url", "image_url": {"url": "https://a.example/1"}}] * 65)]},
        ErrorCode.REQUEST_INVALID,
        "messages",
        "messages: must not bring more than 64 files",
    ),
    (
        {
            **OK,
            "messages": [
                USER,
                *(
                    {
                        "role": role,
                        "content": [{"type": "image_url", "image_url": {"url": PNG_URI}}],
                        "tool_call_id": "c",
                    }
                    for role in ("system", "assistant")
                ),
            ],
        },
        ErrorCode.REQUEST_INVALID,
        "messages.1.content.0.type",
        (
            "messages.1.content.0.type: must be 'text'; messages.1.content.0.text: is required; "
            "messages.2.content.0.type: must be 'text'; messages.2.content.0.text: is required"
        ),
    ),
    (
        {**OK, "n": 5, "temperature": 3},
        ErrorCode.REQUEST_INVALID,
        "temperature",
        "temperature: must be at most 2; n: must be at most 4",
    ),
]


@pytest.mark.requirement(
    "completions:group-is-a-uuid", "completions:foreign-features-are-refused", "http:all-mistakes-at-once"
)
@pytest.mark.parametrize(("body", "code", "param", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_every_mistake_is_named_at_once(body: object, code: ErrorCode, param: str | None, message: str) -> None:
    with pytest.raises(Mistakes) as refused:
        parse(body)
    assert (refused.value.code, refused.value.param, refused.value.message) == (code, param, message)


def test_a_flood_of_mistakes_is_cut_to_a_readable_length() -> None:
    with pytest.raises(Mistakes) as refused:
        parse({"model": "m", "messages": [USER, *[5] * 300]})
    assert len(refused.value.mistakes) == 301
    assert refused.value.message.count(";") == MAX_MISTAKES_SHOWN
    assert refused.value.message.endswith("; and 281 more")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        *ChatRequest.model_fields,
        *("role", "content", "type", "text", "conversation_id", "request_id", "mode", "include_usage"),
        *("tool_calls", "tool_call_id", "id", "function", "name", "arguments", "parameters"),
    ],
)
SHAPED = st.recursive(
    JSON | st.sampled_from(["user", "assistant", "system", "tool", "function", "text", "image_url", GROUP, "auto"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=5),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(FIELDS, SHAPED, max_size=8) | JSON)
def test_no_json_whatever_raises_anything_but_a_refusal(body: object) -> None:
    with contextlib.suppress(Mistakes):
        request = parse(body)
        new = (UserMessage, ToolMessage) if request.conversation is not None else UserMessage
        assert any(isinstance(message, new) for message in request.messages)
