import json
from zlib import crc32

import msgspec
import pytest

from kitemesh_contracts.content import Step, ToolCall, Usage
from kitemesh_contracts.deltas import CallDelta, Delta, HoldRef, ReasoningDelta, TextDelta, TurnEnded
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_gateway.dialects.base import Encoder, Facts, Place, Rest
from kitemesh_gateway.dialects.completions import Completions
from kitemesh_gateway.dialects.completions_answers import Chunk, Completion
from unit.gateway.rig import TURN, ended

HEAD = (
    '{"id":"chatcmpl-' + TURN + '","object":"chat.completion.chunk","created":17,"model":"group:\\"x\\"",'
    '"system_fingerprint":"fp_kitemesh","choices":['
)


def encoder(
    *, include_usage: bool = False, conversation: str | None = "conv", resumable: bool = False, after_step: int = 0
) -> Encoder:
    return Completions().encoder(
        Facts(
            turn=TURN,
            model='group:"x"',
            created_s=17,
            label="req_1",
            conversation=conversation,
            include_usage=include_usage,
            resumable=resumable,
            after_step=after_step,
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


def chunk(position: str, delta: str) -> bytes:
    return event(position, HEAD + '{"index":0,"delta":' + delta + ',"finish_reason":null}]}')


def test_several_items_of_a_frame_have_their_own_places() -> None:
    items: tuple[Delta, ...] = (ReasoningDelta(text="why"), TextDelta(text="a"), TextDelta(text="b"))
    assert encoder().delta(Place(1, 1, 3), items) == (
        chunk("1.1.3.0", '{"reasoning_content":"why"}')
        + chunk("1.1.3.1", '{"content":"a"}')
        + chunk("1.1.3.2", '{"content":"b"}')
    )


@pytest.mark.requirement("tool:server-calls-are-not-shown")
def test_calls_are_not_shown_while_it_is_not_known_whose_they_are() -> None:
    call = CallDelta(index=1, id="c1", name="f", arguments='{"x"')
    assert encoder().delta(Place(1, 1, 1), (call, call)) == b""
    assert encoder().delta(Place(1, 1, 1), (call, TextDelta(text="a"))) == chunk("1.1.1.0", '{"content":"a"}')


@pytest.mark.requirement("stream:ends-with-done")
def test_a_stream_ends_with_one_finish_reason_and_done() -> None:
    closing = ended("ab", attempt=2, last=9, finish="length")
    kitemesh = '{"execution_id":"' + TURN + '","request_id":"req_1","conversation_id":"conv"}'
    assert encoder().end(closing, ()) == (
        event("1.2.11.0", HEAD + '{"index":0,"delta":{},"finish_reason":"length"}],"kitemesh":' + kitemesh + "}")
        + event("1.2.11.1", "[DONE]")
    )


def test_what_was_not_shown_comes_before_the_finish_reason() -> None:
    events = encoder().end(ended("ab", last=4), (Rest(1, (TextDelta(text="b"),)),)).split(b"\n\n")
    assert events[0] + b"\n\n" == event("1.1.5.0", HEAD + '{"index":0,"delta":{"content":"b"},"finish_reason":null}]}')
    assert events[1].startswith(f"id: {TURN}:1.1.6.0\n".encode())


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
        encode.start()
        + encode.delta(Place(1, 1, 1), items)
        + encode.end(ended("ab", last=1), (Rest(1, (TextDelta(text="b"),)),))
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


# Several steps

FIRST = Step(step=1, attempt=1, last=2, text="Let me look.", reasoning="hm", results=())
SILENT = Step(step=2, attempt=1, last=1)


def streamed(data: bytes) -> tuple[str, str]:
    """Return the text and the reasoning that a client puts together."""
    chunks = [json.loads(line[6:]) for line in data.decode().splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for each in chunks for choice in each["choices"]]
    return (
        "".join(delta.get("content") or "" for delta in deltas),
        "".join(delta.get("reasoning_content") or "" for delta in deltas),
    )


@pytest.mark.requirement("stream:steps-are-one-text")
def test_the_texts_of_several_steps_are_parted_by_a_blank_line_in_the_first_delta_of_the_later_one() -> None:
    encode = encoder()
    data = (
        encode.delta(Place(1, 1, 1), (TextDelta(text="a"),))
        + encode.delta(Place(1, 1, 2), (TextDelta(text="b"),))
        + encode.delta(Place(3, 1, 1), (TextDelta(text="c"),))
        + encode.delta(Place(3, 1, 2), (TextDelta(text="d"),))
    )
    assert data == (
        chunk("1.1.1.0", '{"content":"a"}')
        + chunk("1.1.2.0", '{"content":"b"}')
        + chunk("3.1.1.0", '{"content":"\\n\\nc"}')
        + chunk("3.1.2.0", '{"content":"d"}')
    )


CLOSINGS = [
    ended("Sunny.", step=3, last=2, earlier=(FIRST, SILENT)),
    ended("", step=3, earlier=(FIRST, SILENT)),
    ended("Sunny.", step=3, last=2, reasoning="so", earlier=(SILENT, FIRST)),
    ended("Sunny.", step=2, last=2, reasoning="so", earlier=(SILENT,)),
    ended("Sunny.", last=2),
]


@pytest.mark.requirement("stream:steps-are-one-text")
@pytest.mark.parametrize("closing", CLOSINGS, ids=range(len(CLOSINGS)))
@pytest.mark.parametrize("shown", range(3))
def test_a_stream_says_what_the_whole_answer_says_however_much_came_live(closing: TurnEnded, shown: int) -> None:
    steps = [(each.step, each.text, each.reasoning) for each in closing.earlier]
    steps.append((closing.step, closing.text, closing.reasoning))
    encode = encoder()
    data = b""
    rest = []
    for index, (step, text, reasoning) in enumerate(steps):
        items: list[Delta] = (
            [ReasoningDelta(text=reasoning[:1]), ReasoningDelta(text=reasoning[1:])] if reasoning else []
        )
        items += [TextDelta(text=text[:2]), TextDelta(text=text[2:])] if text else [TextDelta(text="")]
        if index < shown:
            data += b"".join(encode.delta(Place(step, 1, n), (item,)) for n, item in enumerate(items, start=1))
        elif text or reasoning:
            rest.append(Rest(step, tuple(items)))
    data += encode.end(closing, rest)
    message = json.loads(encoder().whole(closing))["choices"][0]["message"]
    assert streamed(data) == (message["content"], message.get("reasoning_content", ""))


# Calls for the caller

CALLS = (ToolCall(id="id-1", name="f", arguments='{"x":1}'), ToolCall(id="id-2", name="g", arguments="{}"))
CALL_CHUNKS = (
    '{"tool_calls":[{"type":"function","index":0,"id":"id-1","function":{"name":"f","arguments":"{\\"x\\":1}"}}]}',
    '{"tool_calls":[{"type":"function","index":1,"id":"id-2","function":{"name":"g","arguments":"{}"}}]}',
)
KITEMESH = '"kitemesh":{"execution_id":"' + TURN + '","request_id":"req_1","conversation_id":"conv"'


@pytest.mark.requirement("stream:call-deltas-carry-an-index", "tool:client-calls-are-returned")
def test_client_calls_are_streamed_at_the_end_each_in_one_piece() -> None:
    closing = ended("So.", last=4, finish="tool_calls", calls=CALLS)
    assert encoder().end(closing, (Rest(1, (TextDelta(text="."),)),)) == (
        chunk("1.1.5.0", '{"content":"."}')
        + chunk("1.1.6.0", CALL_CHUNKS[0])
        + chunk("1.1.6.1", CALL_CHUNKS[1])
        + event("1.1.6.2", HEAD + '{"index":0,"delta":{},"finish_reason":"tool_calls"}],' + KITEMESH + "}}")
        + event("1.1.6.3", "[DONE]")
    )


@pytest.mark.requirement("tool:client-calls-are-returned")
def test_client_calls_of_a_whole_answer_stand_beside_what_was_said() -> None:
    closing = ended("So.", step=2, calls=CALLS[:1], finish="tool_calls", earlier=(FIRST,))
    assert json.loads(encoder().whole(closing))["choices"][0] == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": "Let me look.\n\nSo.",
            "reasoning_content": "hm",
            "tool_calls": [{"type": "function", "id": "id-1", "function": {"name": "f", "arguments": '{"x":1}'}}],
        },
        "finish_reason": "tool_calls",
    }


HELD = ended(
    "I will.",
    last=1,
    outcome="held",
    calls=CALLS,
    finish=None,
    hold=HoldRef(id="h-1", expires_at_ms=1_767_323_045_600),
)
HELD_KITEMESH = KITEMESH + ',"approval_id":"h-1","expires_at":"2026-01-02T03:04:05.600Z"}'


@pytest.mark.requirement("hold:shown-as-tool-calls")
def test_a_hold_is_streamed_as_calls_and_a_final_chunk_that_names_the_approval() -> None:
    assert encoder().end(HELD, ()) == (
        chunk("1.1.3.0", CALL_CHUNKS[0])
        + chunk("1.1.3.1", CALL_CHUNKS[1])
        + event("1.1.3.2", HEAD + '{"index":0,"delta":{},"finish_reason":"tool_calls"}],' + HELD_KITEMESH + "}")
        + event("1.1.3.3", "[DONE]")
    )


@pytest.mark.requirement("hold:shown-as-tool-calls")
def test_a_hold_of_a_whole_answer_has_no_content() -> None:
    answer = json.loads(encoder().whole(HELD))
    assert answer["kitemesh"] == json.loads("{" + HELD_KITEMESH + "}")["kitemesh"]
    assert answer["choices"][0] == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"type": "function", "id": "id-1", "function": {"name": "f", "arguments": '{"x":1}'}},
                {"type": "function", "id": "id-2", "function": {"name": "g", "arguments": "{}"}},
            ],
        },
        "finish_reason": "tool_calls",
    }


@pytest.mark.requirement("openapi:described-by-what-validates")
def test_held_chunks_are_what_the_published_schema_says() -> None:
    lines = [line[6:] for line in encoder().end(HELD, ()).decode().splitlines() if line.startswith("data: ")]
    chunks = [msgspec.json.decode(line, type=Chunk) for line in lines[:-1]]
    assert [call.id for each in chunks for choice in each.choices for call in choice.delta.tool_calls] == [
        "id-1",
        "id-2",
    ]
    assert isinstance(msgspec.json.decode(encoder().whole(HELD), type=Completion), Completion)


# Streams that can be resumed


def ids(data: bytes) -> list[str]:
    """Return what the ids of events say behind the execution's."""
    return [line.split(":", 2)[2] for line in data.decode().splitlines() if line.startswith("id: ")]


def measure(text: str) -> str:
    return f"{len(text)}-{crc32(text.encode()):08x}"


@pytest.mark.requirement("resume:position-says-what-was-shown")
def test_the_ids_of_a_resumable_stream_say_what_was_shown_of_the_step() -> None:
    encode = encoder(resumable=True)
    data = (
        encode.start()
        + encode.delta(Place(1, 1, 1), (ReasoningDelta(text="Hm"), TextDelta(text="Grüße ")))
        + encode.delta(Place(1, 1, 2), (TextDelta(text="🐟"),))
        + encode.delta(Place(1, 1, 3), (TextDelta(text="!"), TextDelta(text="?")))
        + encode.delta(Place(2, 3, 1), (TextDelta(text="So"),))
    )
    thought = measure("Hm")
    assert ids(data) == [
        f"0.0.0.0.{measure('')}",
        f"1.1.1.0.{measure('')}.{thought}",
        f"1.1.1.1.{measure('Grüße ')}.{thought}",
        f"1.1.2.0.{measure('Grüße 🐟')}.{thought}",
        f"1.1.3.0.{measure('Grüße 🐟!')}.{thought}",
        f"1.1.3.1.{measure('Grüße 🐟!?')}.{thought}",
        f"2.3.1.0.{measure('So')}",
    ]
    assert streamed(data)[0] == "Grüße 🐟!?\n\nSo"


@pytest.mark.requirement("resume:position-says-what-was-shown")
def test_what_closes_a_resumable_stream_goes_behind_each_steps_last_frame() -> None:
    encode = encoder(resumable=True, include_usage=True)
    earlier = (Step(step=1, attempt=2, last=7, text="Let me look."),)
    closing = ended("Sunny.", step=2, attempt=1, last=3, calls=CALLS[:1], finish="tool_calls", earlier=earlier)
    rest = (Rest(1, (TextDelta(text="Let me look."),)), Rest(2, (TextDelta(text="Sunny."),)))
    assert ids(encode.end(closing, rest)) == [
        f"1.2.8.0.{measure('Let me look.')}",
        f"2.1.4.0.{measure('Sunny.')}",
        *(f"2.1.5.{k}.{measure('Sunny.')}" for k in range(4)),
    ]


@pytest.mark.requirement("resume:position-says-what-was-shown")
def test_an_answer_behind_a_hold_opens_where_the_hold_was() -> None:
    assert ids(encoder(resumable=True, after_step=2).start()) == [f"2.0.0.0.{measure('')}~2"]
    speaker = encoder(resumable=True, after_step=2, include_usage=True)
    assert ids(speaker.delta(Place(3, 1, 1), (TextDelta(text="a"),))) == [f"3.1.1.0.{measure('a')}~2u"]
    assert ids(encoder(resumable=True, include_usage=True).start()) == [f"0.0.0.0.{measure('')}"]


@pytest.mark.requirement("resume:errors-have-no-position")
def test_an_error_leaves_a_resumable_stream_at_its_last_event() -> None:
    error = ErrorInfo(code=ErrorCode.DRAINING, message="It stops")
    data = encoder(resumable=True).error(Place(1, 1, 4), error, "req_2")
    assert data.startswith(b'data: {"error":')
    assert data.endswith(b"}\n\n")
