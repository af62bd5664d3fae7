import json

import msgspec
import pytest

from kitemesh_contracts.content import ToolCall, Usage
from kitemesh_contracts.deltas import CallDelta, Delta, ReasoningDelta, TextDelta
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_gateway.dialects.base import Encoder, Facts, Place
from kitemesh_gateway.dialects.completions import Completions
from kitemesh_gateway.dialects.completions_answers import Chunk, Completion
from unit.gateway.rig import TURN, ended

HEAD = (
    '{"id":"chatcmpl-' + TURN + '","object":"chat.completion.chunk","created":17,"model":"group:\\"x\\"",'
    '"system_fingerprint":"fp_kitemesh","choices":['
)


def encoder(*, include_usage: bool = False, conversation: str | None = "conv") -> Encoder:
    return Completions().encoder(
        Facts(
            turn=TURN,
            model='group:"x"',
            created_s=17,
            label="req_1",
            conversation=conversation,
            include_usage=include_usage,
        ),
    )


def event(position: str, data: str) -> bytes:
    return f"id: {TURN}:{position}\ndata: {data}\n\n".encode()


@pytest.mark.requirement("stream:first-chunk-names-the-role")
def test_a_stream_opens_with_the_role() -> None:
    assert encoder().start() == event(
        "0.0.0.0", HEAD + '{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}'
    )


@pytest.mark.requirement("stream:one-write-for-each-event")
def test_a_text_delta_is_one_event() -> None:
    data = encoder().delta(Place(1, 2, 7), (TextDelta(text='a "b"\n\u2028ü'),))
    assert data == event(
        "1.2.7.0", HEAD + '{"index":0,"delta":{"content":"a \\"b\\"\\n\u2028ü"},"finish_reason":null}]}'
    )


@pytest.mark.requirement("stream:call-deltas-carry-an-index")
def test_several_items_of_a_frame_have_their_own_places() -> None:
    items: tuple[Delta, ...] = (
        ReasoningDelta(text="why"),
        TextDelta(text="a"),
        CallDelta(index=1, id="c1", name="f", arguments=""),
        CallDelta(index=1, arguments='{"x"'),
    )
    assert encoder().delta(Place(1, 1, 3), items) == b"".join(
        event(f"1.1.3.{k}", HEAD + '{"index":0,"delta":' + delta + ',"finish_reason":null}]}')
        for k, delta in enumerate(
            (
                '{"reasoning_content":"why"}',
                '{"content":"a"}',
                '{"tool_calls":[{"index":1,"function":{"name":"f","arguments":""},"id":"c1","type":"function"}]}',
                '{"tool_calls":[{"index":1,"function":{"arguments":"{\\"x\\""}}]}',
            ),
        )
    )


@pytest.mark.requirement("stream:ends-with-done")
def test_a_stream_ends_with_one_finish_reason_and_done() -> None:
    closing = ended("ab", attempt=2, last=9, finish="length")
    kitemesh = '{"execution_id":"' + TURN + '","request_id":"req_1","conversation_id":"conv"}'
    assert encoder().end(closing, ()) == (
        event("1.2.10.0", HEAD + '{"index":0,"delta":{},"finish_reason":"length"}],"kitemesh":' + kitemesh + "}")
        + event("1.2.10.1", "[DONE]")
    )


def test_what_was_not_shown_comes_before_the_finish_reason() -> None:
    events = encoder().end(ended("ab", last=4), (TextDelta(text="b"),)).split(b"\n\n")
    assert events[0] + b"\n\n" == event("1.1.5.0", HEAD + '{"index":0,"delta":{"content":"b"},"finish_reason":null}]}')
    assert events[1].startswith(f"id: {TURN}:1.1.5.1\n".encode())


@pytest.mark.requirement("stream:usage-is-a-chunk-of-its-own")
def test_usage_is_a_chunk_of_its_own_and_null_in_all_others_when_it_was_asked_for() -> None:
    encode = encoder(include_usage=True)
    closing = ended("a", last=1, usage=Usage(input_tokens=3, output_tokens=4, cached_tokens=1, reasoning_tokens=2))
    data = encode.start() + encode.delta(Place(1, 1, 1), (TextDelta(text="a"),)) + encode.end(closing, ())
    chunks = [json.loads(line[6:]) for line in data.decode().splitlines() if line.startswith("data: {")]
    assert [chunk["usage"] for chunk in chunks] == [
        None,
        None,
        None,
        {
            "prompt_tokens": 3,
            "completion_tokens": 4,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
    ]
    assert [len(chunk["choices"]) for chunk in chunks] == [1, 1, 1, 0]


def test_an_answer_that_could_not_be_stored_says_so() -> None:
    closing = ended("a", stored=False)
    assert json.loads(encoder().whole(closing))["kitemesh"]["stored"] is False
    assert b'"stored":false' in encoder().end(closing, ())
    assert b"stored" not in encoder().end(ended("a"), ())


def test_without_a_conversation_none_is_named() -> None:
    assert json.loads(encoder(conversation=None).whole(ended("a")))["kitemesh"] == {
        "execution_id": TURN,
        "request_id": "req_1",
    }


@pytest.mark.requirement("stream:failure-is-never-complete")
def test_an_error_in_a_stream_is_its_last_event() -> None:
    error = ErrorInfo(code=ErrorCode.UPSTREAM_CUT, message="It broke off")
    assert encoder().error(Place(1, 1, 4), error, "req_2") == event(
        "1.1.4.0",
        '{"error":{"message":"It broke off","type":"upstream_error","code":"upstream.cut","param":null,'
        '"request_id":"req_2"}}',
    )


@pytest.mark.requirement("completions:whole-answer")
def test_a_whole_answer_is_one_object() -> None:
    closing = ended("Hello", usage=Usage(input_tokens=3, output_tokens=4))
    assert json.loads(encoder().whole(closing)) == {
        "object": "chat.completion",
        "id": f"chatcmpl-{TURN}",
        "created": 17,
        "model": 'group:"x"',
        "system_fingerprint": "fp_kitemesh",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 4,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        "kitemesh": {"execution_id": TURN, "request_id": "req_1", "conversation_id": "conv"},
    }


def test_reasoning_and_calls_of_a_whole_answer_are_told() -> None:
    calls = (ToolCall(id="c1", name="f", arguments="{}"),)
    choice = json.loads(encoder().whole(ended("", reasoning="why", calls=calls, finish="tool_calls")))["choices"][0]
    assert choice == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None,
            "reasoning_content": "why",
            "tool_calls": [{"type": "function", "id": "c1", "function": {"name": "f", "arguments": "{}"}}],
        },
        "finish_reason": "tool_calls",
    }


@pytest.mark.requirement("openapi:described-by-what-validates", "stream:one-finish-reason")
@pytest.mark.parametrize("include_usage", [False, True])
def test_every_chunk_is_what_the_published_schema_says(include_usage: bool) -> None:
    encode = encoder(include_usage=include_usage)
    items: tuple[Delta, ...] = (TextDelta(text="a"), ReasoningDelta(text="b"), CallDelta(index=0, id="c", name="f"))
    data = (
        encode.start() + encode.delta(Place(1, 1, 1), items) + encode.end(ended("ab", last=1), (TextDelta(text="b"),))
    )
    lines = [line.removeprefix("data: ") for line in data.decode().splitlines() if line.startswith("data: ")]
    chunks = [msgspec.json.decode(line, type=Chunk) for line in lines[:-1]]
    assert lines[-1] == "[DONE]"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices].count("stop") == 1
    assert all(chunk.id == f"chatcmpl-{TURN}" and chunk.created == 17 for chunk in chunks)
    assert isinstance(msgspec.json.decode(encode.whole(ended("a")), type=Completion), Completion)


@pytest.mark.requirement("stream:same-bytes-at-any-gateway")
def test_the_same_turn_gives_the_same_bytes_at_any_gateway() -> None:
    def stream() -> bytes:
        encode = encoder()
        return (
            encode.start() + encode.delta(Place(1, 1, 1), (TextDelta(text="a"),)) + encode.end(ended("a", last=1), ())
        )

    assert stream() == stream()
