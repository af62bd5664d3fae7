"""What chat completions offer beside words, against the real cluster: files, choices, forms, tools of the caller."""

import hashlib
import json
from base64 import b64encode
from typing import Any

import openai
import pytest

from cluster import Cluster, Reply, events, streamed_text

MODEL = "scripted"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
PDF = b"%PDF-1.7\n%%EOF\n"
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def sdk(cluster: Cluster) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{cluster.origin}/v1", api_key=cluster.key, max_retries=0)


def uri(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{b64encode(data).decode()}"


def seen(name: str, media_type: str, data: bytes) -> str:
    """Return how the scripted model tells of a file."""
    return f"{name} {media_type} {len(data)} {hashlib.sha256(data).hexdigest()[:16]}"


def image(data: bytes = PNG) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": uri("image/png", data)}}


def document(name: str, data: bytes, media_type: str) -> dict[str, Any]:
    return {"type": "file", "file": {"filename": name, "file_data": uri(media_type, data)}}


def show(cluster: Cluster, *parts: dict[str, Any], **more: Any) -> Reply:
    """Ask the model what files it was given."""
    content = [{"type": "text", "text": "@files"}, *parts]
    return cluster.call(
        "/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": content}], **more}
    )


def text_of(reply: Reply) -> str:
    assert reply.status == 200, reply.body
    text: str = reply.json()["choices"][0]["message"]["content"]
    return text


@pytest.mark.requirement("completions:files", "files:kinds")
@pytest.mark.parametrize("mode", ["classic", "durable"])
def test_images_and_files_reach_the_model(cluster: Cluster, mode: str) -> None:
    reply = show(
        cluster,
        image(),
        {"type": "image_url", "image_url": {"url": "https://a.example/cat.png"}},
        document("a.pdf", PDF, "application/pdf"),
        document("notes.md", b"# Notes", "text/markdown"),
        metadata={"mode": mode},
    )
    assert text_of(reply).splitlines() == [
        seen("-", "image/png", PNG),
        "- - https://a.example/cat.png",
        seen("a.pdf", "application/pdf", PDF),
        seen("notes.md", "text/markdown", b"# Notes"),
    ]


@pytest.mark.requirement("completions:files", "files:stored-once")
def test_a_stored_conversation_still_has_its_files(cluster: Cluster) -> None:
    first = show(cluster, image(), image())
    assert text_of(first).splitlines() == [seen("-", "image/png", PNG)] * 2
    then = show(
        cluster,
        document("a.pdf", PDF, "application/pdf"),
        metadata={"conversation_id": first.headers["x-conversation-id"]},
    )
    assert text_of(then).splitlines() == [
        *[seen("-", "image/png", PNG)] * 2,
        seen("a.pdf", "application/pdf", PDF),
    ]


@pytest.mark.requirement("files:limits", "http:body-is-bounded")
def test_the_largest_file_travels_and_a_larger_one_is_refused_by_its_field(cluster: Cluster) -> None:
    largest = PNG.ljust(10 * 1024 * 1024, b"a")
    assert text_of(show(cluster, image(largest))) == seen("-", "image/png", largest)
    refused = show(cluster, image(largest + b"a"))
    assert (refused.status, refused.json()["error"]["param"]) == (400, "messages.0.content.1.image_url.url")
    assert show(cluster, image(largest), image(b"b" * 4 * 1024 * 1024)).status == 413


@pytest.mark.requirement("completions:several-choices")
def test_several_choices_are_answered_whole_and_streamed(sdk: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": "@count 3"}], "n": 3}
    whole = sdk.chat.completions.create(**asked)
    texts = ["1 2 3 ", "(2) 1 2 3 ", "(3) 1 2 3 "]
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert [choice.message.content for choice in whole.choices] == texts
    assert [choice.finish_reason for choice in whole.choices] == ["stop"] * 3
    with sdk.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == texts
    assert [choice.finish_reason for choice in final.choices] == ["stop"] * 3


@pytest.mark.requirement("completions:logprobs")
def test_how_likely_the_tokens_were_is_told_whole_and_streamed(sdk: openai.OpenAI) -> None:
    asked: Any = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "@count 3"}],
        "logprobs": True,
        "top_logprobs": 2,
    }
    whole = sdk.chat.completions.create(**asked).choices[0].logprobs
    assert whole is not None
    assert whole.content is not None
    assert [each.token for each in whole.content] == ["1 ", "2 ", "3 "]
    assert [len(each.top_logprobs) for each in whole.content] == [2, 2, 2]
    with sdk.chat.completions.stream(**asked) as stream:
        streamed = stream.get_final_completion().choices[0].logprobs
    assert streamed is not None
    assert streamed.content == whole.content


@pytest.mark.requirement("completions:response-format")
def test_an_answer_has_the_form_that_was_asked_for(cluster: Cluster) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "degrees": {"type": "number"}},
        "required": ["city", "degrees"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": schema, "strict": True}}
    answer = json.loads(text_of(cluster.call("/v1/chat/completions", ask("What is it like?", response_format=form))))
    assert set(answer) == {"city", "degrees"}
    assert isinstance(answer["degrees"], float)
    anything = ask("What is it like?", response_format={"type": "json_object"})
    assert isinstance(json.loads(text_of(cluster.call("/v1/chat/completions", anything))), dict)


def ask(text: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}


@pytest.mark.requirement("stream:client-calls-as-they-come", "completions:client-tools")
def test_calls_of_the_callers_tools_are_streamed_piece_by_piece(cluster: Cluster, sdk: openai.OpenAI) -> None:
    asked: Any = ask('@call look_up {"what": "x"}\n@call look_up {"what": "y"}', tools=[TOOL])
    chunks = events(cluster.call("/v1/chat/completions", {**asked, "stream": True}).body)
    pieces = [piece for each in chunks for piece in each["choices"][0]["delta"].get("tool_calls", ())]
    assert len(pieces) > 2
    assert [piece["index"] for piece in pieces if "id" in piece] == [0, 1]
    whole = cluster.call("/v1/chat/completions", asked).json()["choices"][0]["message"]["tool_calls"]
    with sdk.chat.completions.stream(**asked) as stream:
        choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls"
    made = [(call.type, call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()]
    assert made == [(call["type"], call["function"]["name"], call["function"]["arguments"]) for call in whole]
    assert [json.loads(arguments) for _, _, arguments in made] == [{"what": "x"}, {"what": "y"}]


@pytest.mark.requirement("completions:client-tools")
def test_the_streams_calls_are_answered_like_any_others(cluster: Cluster) -> None:
    reply = cluster.call("/v1/chat/completions", ask("@call look_up {}", tools=[TOOL], stream=True))
    (call,) = [
        piece["id"]
        for each in events(reply.body)
        for piece in each["choices"][0]["delta"].get("tool_calls", ())
        if "id" in piece
    ]
    then = {
        "model": MODEL,
        "messages": [{"role": "tool", "tool_call_id": call, "content": "forty-two"}],
        "metadata": {"conversation_id": reply.headers["x-conversation-id"]},
        "stream": True,
    }
    assert "forty-two" in streamed_text(cluster.call("/v1/chat/completions", then).body)


@pytest.mark.requirement("stream:client-calls-as-they-come")
def test_a_durable_stream_tells_the_callers_calls_at_its_end(cluster: Cluster) -> None:
    body = cluster.call(
        "/v1/chat/completions",
        ask('@call look_up {"what": "x"}', tools=[TOOL], stream=True, metadata={"mode": "durable"}),
    ).body
    pieces = [piece for each in events(body) for piece in each["choices"][0]["delta"].get("tool_calls", ())]
    assert [(piece["type"], piece["function"]["arguments"]) for piece in pieces] == [("function", '{"what": "x"}')]


@pytest.mark.requirement("completions:only-where-it-can-be")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 2}, "n: must be 1 where tools run on this server"),
        ({"logprobs": True}, "logprobs: must be false where tools run on this server"),
    ],
)
def test_what_does_not_go_with_tools_that_run_here_is_refused(
    cluster: Cluster, fields: dict[str, Any], message: str
) -> None:
    reply = cluster.chat("Hi", **fields)
    assert (reply.status, reply.json()["error"]["message"]) == (400, message)


@pytest.mark.requirement("completions:only-where-it-can-be")
@pytest.mark.parametrize("fields", [{"metadata": {"mode": "durable"}}, {}])
def test_what_only_a_classic_turn_does_is_refused_of_a_durable_one(cluster: Cluster, fields: dict[str, Any]) -> None:
    headers = {} if fields else {"Idempotency-Key": "features-1"}
    body = ask("Hi", n=2, logprobs=True, **fields)
    reply = cluster.call("/v1/chat/completions", body, headers=headers)
    message = "n: must be 1 in a durable turn; logprobs: must be false in a durable turn"
    assert (reply.status, reply.json()["error"]["message"]) == (400, message)
