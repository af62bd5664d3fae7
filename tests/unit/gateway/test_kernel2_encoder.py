"""What `kernel2` answers, byte for byte."""

import json
from zlib import crc32

import msgspec
import pytest

from kitemesh_contracts.content import Step, ToolCall, Usage
from kitemesh_contracts.deltas import CallDelta, Delta, ReasoningDelta, ResultDelta, TextDelta
from kitemesh_contracts.errors import MEANINGS, ErrorCode, ErrorInfo
from kitemesh_gateway.dialects.base import Encoder, Facts, Place, Refused, Rest
from kitemesh_gateway.dialects.kernel2 import Kernel2
from kitemesh_gateway.dialects.kernel2_answers import KernelChunk, KernelCompletion, KernelRefusal
from unit.gateway.rig import TURN, ended

HEAD = (
    '{"id":"chatcmpl-' + TURN + '","object":"chat.completion.chunk","created":17,"model":"m\\"",'
    '"system_fingerprint":"fp_kitemesh","choices":[{"index":0,"delta":'
)
CUT = ErrorInfo(code=ErrorCode.UPSTREAM_CUT, message="It broke off")
USAGE = Usage(input_tokens=3, output_tokens=4)


def encoder(*, include_usage: bool = False, resumable: bool = False) -> Encoder:
    return Kernel2().encoder(
        Facts(
            turn=TURN,
            model='m"',
            created_s=17,
            label="req_1",
            conversation="conv",
            include_usage=include_usage,
            resumable=resumable,
        ),
    )


def event(position: str, data: str) -> bytes:
    return f"id: {TURN}:{position}\ndata: {data}\n\n".encode()


def chunk(position: str, delta: str, finish: str = "null", extra: str = "") -> bytes:
    return event(position, HEAD + delta + ',"finish_reason":' + finish + "}]" + extra + "}")


def datas(stream: bytes) -> list[str]:
    return [line.removeprefix("data: ") for line in stream.decode().split("\n") if line.startswith("data: ")]


def test_a_stream_opens_with_the_role() -> None:
    assert encoder().start() == chunk("0.0.0.0", '{"role":"assistant","content":""}')


@pytest.mark.requirement("kernel:chunks")
def test_a_text_delta_is_one_chunk() -> None:
    encode = encoder()
    assert encode.delta(Place(1, 2, 7), (TextDelta(text='a "b"\n'),)) == chunk("1.2.7.0", '{"content":"a \\"b\\"\\n"}')
    assert encode.delta(Place(1, 2, 8), (TextDelta(text="c"),)) == chunk("1.2.8.0", '{"content":"c"}')


def test_calls_and_results_are_not_shown() -> None:
    items: tuple[Delta, ...] = (
        ResultDelta(call="c", text="secret"),
        CallDelta(index=0, id="c", name="f", arguments="{}"),
        ReasoningDelta(text="why"),
        TextDelta(text="a"),
    )
    assert encoder().delta(Place(1, 1, 3), items) == (
        chunk("1.1.3.0", '{"reasoning_content":"why"}') + chunk("1.1.3.1", '{"content":"a"}')
    )
    assert encoder().delta(Place(1, 1, 3), items[:2]) == b""
    assert encoder().delta(Place(1, 1, 3), ()) == b""


def test_the_texts_of_steps_are_parted_by_a_blank_line() -> None:
    encode = encoder()
    encode.delta(Place(1, 1, 1), (TextDelta(text="a"),))
    assert encode.delta(Place(2, 1, 1), (TextDelta(text="b"),)) == chunk("2.1.1.0", '{"content":"\\n\\nb"}')


@pytest.mark.requirement("kernel:every-ending-is-stop")
@pytest.mark.parametrize("finish", ["stop", "length", "content_filter", "tool_calls", None])
def test_every_ending_is_stop_and_then_done_once(finish: str | None) -> None:
    stream = encoder().end(ended("ab", attempt=2, last=9, finish=finish), ())
    assert stream == chunk("1.2.11.0", '{"content":""}', '"stop"') + event("1.2.11.1", "[DONE]")


def test_what_was_not_shown_comes_before_the_end() -> None:
    stream = encoder().end(ended("ab", last=4), (Rest(1, (TextDelta(text="b"),)),))
    assert stream.startswith(chunk("1.1.5.0", '{"content":"b"}'))


@pytest.mark.requirement("kernel:chunks")
@pytest.mark.parametrize("include_usage", [False, True])
def test_every_event_but_the_last_has_a_choice_with_a_delta(include_usage: bool) -> None:
    encode = encoder(include_usage=include_usage)
    stream = encode.start()
    stream += encode.delta(Place(1, 1, 1), (ReasoningDelta(text="r"), TextDelta(text="a")))
    stream += encode.end(ended("a", last=1, usage=USAGE, calls=(ToolCall(id="c", name="f", arguments="{}"),)), ())
    *chunks, last = datas(stream)
    assert last == "[DONE]"
    for data in chunks:
        read = json.loads(data)
        assert read.keys() >= {"id", "object", "created", "model", "system_fingerprint", "choices"}
        assert read["choices"][0]["index"] == 0
        assert read["choices"][0]["delta"]
        assert msgspec.json.decode(data, type=KernelChunk).error is None
    assert [("usage" in json.loads(data)) for data in chunks] == [False] * (len(chunks) - 1) + [include_usage]
    assert [json.loads(data)["choices"][0]["finish_reason"] for data in chunks][-2:] == [None, "stop"]


@pytest.mark.requirement("kernel:failure-in-a-stream")
def test_a_failure_is_a_last_chunk_that_says_so_and_done() -> None:
    told = ',"error":{"success":false,"message":"It broke off","code":502}'
    assert encoder().error(Place(1, 1, 4), CUT, "req_2") == (
        chunk("1.1.4.0", "{}", '"stop"', told) + event("1.1.4.1", "[DONE]")
    )
    # One that can be resumed leaves the last id that was reached.
    resumable = encoder(resumable=True).error(Place(1, 1, 4), CUT, "req_2")
    assert b"id: " not in resumable
    assert datas(resumable) == datas(encoder().error(Place(1, 1, 4), CUT, "req_2"))


def test_the_ids_of_a_resumable_stream_say_what_was_shown() -> None:
    encode = encoder(resumable=True)
    assert encode.start().startswith(f"id: {TURN}:0.0.0.0.0-00000000\n".encode())
    for n, text in enumerate(("", "ab", "c"), start=1):
        shown = encode.delta(Place(1, 1, n), (TextDelta(text=text),))
    assert shown.startswith(f"id: {TURN}:1.1.3.0.3-{crc32(b'abc'):08x}\n".encode())


@pytest.mark.requirement("kernel:whole-answer")
def test_a_whole_answer_is_one_object() -> None:
    closing = ended("b", step=2, earlier=(Step(step=1, text="a"),), usage=USAGE, finish="length", reasoning="why")
    answer = json.loads(encoder().whole(closing))
    assert answer["object"] == "chat.completion"
    assert answer["id"] == f"chatcmpl-{TURN}"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "a\n\nb", "reasoning_content": "why"},
            "finish_reason": "stop",
        }
    ]
    assert answer["usage"]["total_tokens"] == 7
    assert answer.keys() == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    msgspec.json.decode(encoder().whole(closing), type=KernelCompletion)


@pytest.mark.requirement("kernel:errors")
@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_refusal_has_the_published_body(code: ErrorCode) -> None:
    told = Kernel2().refusal(ErrorInfo(code=code, message="No"), Refused("req_1", "/api/kernel2/chat"))
    assert told.content_type == "application/json"
    assert json.loads(told.body) == {"success": False, "message": "No", "code": MEANINGS[code].status}
    msgspec.json.decode(told.body, type=KernelRefusal)
