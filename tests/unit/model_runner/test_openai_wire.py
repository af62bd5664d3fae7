import json
from typing import Any

import pytest
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
from kitemesh_model_runner.openai_wire import NO_RESULT, TokenLimit, render


def user(*texts: str) -> UserMessage:
    return UserMessage(parts=tuple(TextPart(text=text) for text in texts))


def call(name: str) -> ToolCall:
    return ToolCall(id=f"id-{name}", name=name, arguments='{"a": 1}')


def wire_call(name: str) -> dict[str, Any]:
    return {"id": f"id-{name}", "type": "function", "function": {"name": name, "arguments": '{"a": 1}'}}


def messages_of(*messages: Message) -> list[dict[str, Any]]:
    body: dict[str, Any] = json.loads(render("m", messages, Sampling()))
    result: list[dict[str, Any]] = body["messages"]
    return result


def test_a_plain_prompt_asks_for_a_stream_with_usage_and_nothing_else() -> None:
    assert json.loads(render("m", [user("hi")], Sampling())) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.requirement("completions:honoured-fields")
def test_every_choice_of_the_caller_is_passed_on() -> None:
    sampling = Sampling(
        temperature=0.0,
        top_p=1.0,
        max_tokens=5,
        stop=("a", "b"),
        seed=0,
        presence_penalty=-2.0,
        frequency_penalty=2.0,
        logit_bias={"50256": -100},
        reasoning_effort="low",
        user="u",
        choices=3,
        logprobs=True,
        top_logprobs=0,
        response_format=ResponseFormat(kind="json_object"),
    )
    body = json.loads(render("m", [], sampling))
    for key in ("model", "messages", "stream", "stream_options"):
        del body[key]
    assert body == {
        "temperature": 0.0,
        "top_p": 1.0,
        "max_tokens": 5,
        "stop": ["a", "b"],
        "seed": 0,
        "presence_penalty": -2.0,
        "frequency_penalty": 2.0,
        "logit_bias": {"50256": -100},
        "reasoning_effort": "low",
        "user": "u",
        "n": 3,
        "logprobs": True,
        "top_logprobs": 0,
        "response_format": {"type": "json_object"},
    }


@pytest.mark.parametrize(
    ("schema", "told"), [(Raw(b'{"type":"object"}'), {"schema": {"type": "object"}}), (Raw(b"null"), {})]
)
def test_a_schema_for_the_answer_is_passed_on_as_it_is(schema: Raw, told: dict[str, Any]) -> None:
    form = ResponseFormat(kind="json_schema", name="x", description="An x.", schema=schema, strict=False)
    body = json.loads(render("m", [], Sampling(response_format=form)))
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "x", "description": "An x.", "strict": False, **told},
    }


PNG = FilePart(media_type="image/png", name="a.png", blob="b-1", size=6, detail="low")
PDF = FilePart(media_type="application/pdf", name="a.pdf", blob="b-2", size=4)
TXT = FilePart(media_type="text/plain", blob="b-3", size=5)
FILES = {"b-1": b"pixels", "b-2": b"%PDF", "b-3": b"h\xffllo"}


@pytest.mark.requirement("provider:files")
@pytest.mark.parametrize(
    ("part", "wire"),
    [
        (PNG, {"type": "image_url", "image_url": {"url": "data:image/png;base64,cGl4ZWxz", "detail": "low"}}),
        (
            FilePart(media_type="", url="https://example.org/b"),
            {"type": "image_url", "image_url": {"url": "https://example.org/b"}},
        ),
        (
            PDF,
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
        ),
        (
            FilePart(media_type="application/pdf", url="https://example.org/a.pdf"),
            {"type": "file", "file": {"filename": "file", "file_data": "https://example.org/a.pdf"}},
        ),
        (TXT, {"type": "text", "text": "The file file:\nh\ufffdllo"}),
    ],
)
def test_a_file_goes_as_endpoints_take_it(part: FilePart, wire: dict[str, Any]) -> None:
    message = UserMessage(parts=(TextPart(text="What is this?"), part))
    body = json.loads(render("m", [message], Sampling(), files=FILES))
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, wire]}]


def test_what_was_thought_between_calls_since_the_user_spoke_is_given_back_where_it_is_known() -> None:
    messages: list[Message] = [
        user("q"),
        AssistantMessage(reasoning="old", calls=(call("x"),)),
        user("and?"),
        AssistantMessage(reasoning="new", calls=(call("y"),)),
        AssistantMessage(text="said", reasoning="of an answer"),
    ]
    body = json.loads(render("m", messages, Sampling(), reasoning=True))
    thoughts = [each.get("reasoning_content") for each in body["messages"] if each["role"] == "assistant"]
    assert thoughts == [None, "new", None]
    assert "reasoning_content" not in render("m", messages, Sampling()).decode()


@pytest.mark.requirement("completions:newer-bound-wins")
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_bound_of_tokens_is_sent_under_exactly_one_name(name: TokenLimit) -> None:
    body = json.loads(render("m", [], Sampling(max_tokens=5), token_limit=name))
    assert {key: value for key, value in body.items() if key.startswith("max_")} == {name: 5}


def test_each_kind_of_message_has_its_role() -> None:
    assert messages_of(
        SystemMessage(text="s"),
        user("a", "b"),
        AssistantMessage(text="said", reasoning="not sent back"),
        AssistantMessage(),
    ) == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "said"},
        {"role": "assistant", "content": ""},
    ]


def test_every_call_is_followed_by_its_result_in_the_order_of_the_calls() -> None:
    rendered = messages_of(
        user("q"),
        AssistantMessage(calls=(call("x"), call("y"), call("z"))),
        ToolMessage(call="id-y", text="Y"),
        user("meanwhile"),
        ToolMessage(call="id-x", text="X"),
        ToolMessage(call="id-of-nobody", text="lost"),
    )
    assert rendered == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [wire_call("x"), wire_call("y"), wire_call("z")]},
        {"role": "tool", "tool_call_id": "id-x", "content": "X"},
        {"role": "tool", "tool_call_id": "id-y", "content": "Y"},
        {"role": "tool", "tool_call_id": "id-z", "content": NO_RESULT},
        {"role": "user", "content": "meanwhile"},
    ]


def test_text_beside_calls_is_kept() -> None:
    (assistant, _) = messages_of(AssistantMessage(text="let me see", calls=(call("x"),)))
    assert assistant["content"] == "let me see"


WEATHER = ToolSpec(name="get_weather", description="The weather.", parameters=Raw(b'{"type":"object", "b":1, "a":2}'))
PLAIN = ToolSpec(name="plain", parameters=Raw(b"{}"))


def tools_of(body: bytes) -> dict[str, Any]:
    return {key: value for key, value in json.loads(body).items() if "tool" in key}


@pytest.mark.parametrize(
    ("choice", "wire"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("tool:get_weather", {"type": "function", "function": {"name": "get_weather"}}),
        ("tool:a:b", {"type": "function", "function": {"name": "a:b"}}),
    ],
)
@pytest.mark.parametrize(("parallel", "more"), [(None, {}), (False, {"parallel_tool_calls": False})])
def test_tools_are_offered_with_how_to_use_them(
    choice: str, wire: object, parallel: bool | None, more: dict[str, bool]
) -> None:
    body = render("m", [], Sampling(), tools=(WEATHER, PLAIN), tool_choice=choice, parallel_calls=parallel)
    assert tools_of(body) == {
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "get_weather",
                    "description": "The weather.",
                    "parameters": {"type": "object", "b": 1, "a": 2},
                },
            },
            {"type": "function", "function": {"name": "plain", "parameters": {}}},
        ],
        "tool_choice": wire,
        **more,
    }
    # The schema goes out as it was given, and is not read.
    assert b'{"type":"object", "b":1, "a":2}' in body


def test_without_tools_nothing_is_said_of_how_to_use_them() -> None:
    assert tools_of(render("m", [], Sampling(), tool_choice="required", parallel_calls=True)) == {}


def test_an_answer_that_was_begun_is_the_last_message_and_is_to_be_continued() -> None:
    body = json.loads(render("m", [user("hi")], Sampling(), begun="Once upon"))
    assert body["messages"] == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Once upon"}]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
