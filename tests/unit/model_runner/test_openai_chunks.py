import json
from typing import Any

import pytest

from kitemesh_contracts.content import Alternative, Logprob, ToolCall, TopLogprob, Usage
from kitemesh_contracts.deltas import CallDelta, Delta, ReasoningDelta, TextDelta
from kitemesh_contracts.ids import call_id
from kitemesh_model_runner import openai_chunks
from kitemesh_model_runner.openai_choices import MAX_CALLS, MAX_NAME, ErrorReported
from kitemesh_model_runner.openai_chunks import MAX_COUNT, AnswerReader
from kitemesh_model_runner.openai_logprobs import ChunkRefused

IDS = [call_id("t", 2, place) for place in range(3)]


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    return json.dumps({"choices": [{"delta": delta or {}, "finish_reason": finish}], **more}).encode()


def piece(**fields: Any) -> dict[str, Any]:
    function = {key: fields.pop(key) for key in ("name", "arguments") if key in fields}
    return {"tool_calls": [{**fields, "function": function}]}


def read(*events: bytes) -> tuple[AnswerReader, list[Delta]]:
    reader = AnswerReader("t", 2)
    deltas: list[Delta] = []
    reader.read(events, deltas)
    return reader, deltas


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        ({"content": "x"}, [TextDelta(text="x")]),
        ({"role": "assistant", "content": ""}, []),
        ({"content": None}, []),
        ({"reasoning_content": "r"}, [ReasoningDelta(text="r")]),
        ({"reasoning": "r"}, [ReasoningDelta(text="r")]),
        ({"reasoning": "r", "reasoning_content": "r"}, [ReasoningDelta(text="r")]),
        ({"reasoning": "r", "content": "x"}, [ReasoningDelta(text="r"), TextDelta(text="x")]),
        ({"refusal": "no"}, [TextDelta(text="no")]),
        ({"tool_calls": None}, []),
        ({"unknown": [1]}, []),
    ],
)
def test_a_delta_says_what_it_adds(delta: dict[str, Any], expected: list[Delta]) -> None:
    assert read(chunk(delta))[1] == expected


@pytest.mark.parametrize(
    "event",
    [b"{}", b'{"choices":null}', b'{"choices":[]}', b'{"choices":[{}]}', b'{"choices":[{"delta":null}]}', b"[DONE]"],
)
def test_a_chunk_may_add_nothing(event: bytes) -> None:
    assert read(event)[1] == []


def test_other_choices_are_not_ours() -> None:
    event = json.dumps({"choices": [{"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "a"}}]})
    assert read(event.encode())[1] == [TextDelta(text="a")]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "stop"),
    ],
)
def test_finish_reasons_are_translated(theirs: str, ours: str) -> None:
    reader, _ = read(chunk({}, theirs))
    assert reader.result() == (ours, ())


@pytest.mark.requirement("provider:only-a-finish-reason-ends")
def test_an_answer_without_a_finish_reason_has_not_ended() -> None:
    reader, _ = read(chunk({"content": "x"}), b"[DONE]")
    assert reader.result() == (None, ())


def test_nothing_counts_after_the_end_mark() -> None:
    reader, deltas = read(chunk({"content": "x"}, "stop"), b"[DONE]", b"garbage")
    reader.read([b"more garbage", chunk({"content": "y"})], deltas)
    assert deltas == [TextDelta(text="x")]


def test_only_the_first_finish_reason_counts() -> None:
    reader, _ = read(chunk({}, "length"), chunk({}, "stop"))
    assert reader.result()[0] == "length"


def test_the_last_usage_counts_and_missing_numbers_are_zero() -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": None}}
    reader, _ = read(
        chunk({}, usage={"prompt_tokens": 1}),
        chunk({}, usage=None),
        chunk({}, usage={"prompt_tokens": 9, "completion_tokens": -1, **details}),
    )
    assert reader.usage == Usage(input_tokens=9, cached_tokens=2)


def test_a_count_that_no_store_could_hold_is_bounded() -> None:
    reader, _ = read(chunk(finish="stop", usage={"prompt_tokens": 10**30, "completion_tokens": -1}))
    assert reader.usage == Usage(input_tokens=MAX_COUNT)


CALLS = [
    pytest.param(
        [
            piece(index=0, id="a", name="f", arguments=""),
            piece(index=0, arguments="{}"),
            piece(index=1, id="b", name="g"),
        ],
        [("f", "{}"), ("g", "")],
        id="by index",
    ),
    pytest.param(
        [piece(id="a", name="f"), piece(arguments="{"), piece(arguments="}"), piece(id="b", name="g", arguments="[]")],
        [("f", "{}"), ("g", "[]")],
        id="without an index",
    ),
    pytest.param(
        [piece(name="f", arguments="1"), piece(name="g", arguments="2")],
        [("f", "1"), ("g", "2")],
        id="with neither index nor id",
    ),
    pytest.param(
        [piece(index=0, id="a", name="f", arguments="1"), piece(index=0, id="b", name="g", arguments="2")],
        [("f", "1"), ("g", "2")],
        id="all numbered 0",
    ),
    pytest.param(
        [piece(index=0, id="a", name="f", arguments="1"), piece(index=0, id="a", name="f", arguments="2")],
        [("f", "12")],
        id="name and id repeated",
    ),
    pytest.param(
        [piece(id="a", name="f", arguments="1"), piece(id="a", name="f", arguments="2")],
        [("f", "12")],
        id="name and id repeated without an index",
    ),
    pytest.param(
        [piece(index=0, id="a", name="f"), piece(index=1, id="b", name="g"), piece(index=0, arguments="x")],
        [("f", "x"), ("g", "")],
        id="interleaved",
    ),
]


@pytest.mark.parametrize(("pieces", "expected"), CALLS)
def test_calls_are_put_together(pieces: list[dict[str, Any]], expected: list[tuple[str, str]]) -> None:
    reader, deltas = read(*map(chunk, pieces), chunk({}, "tool_calls"))
    finish, calls = reader.result()
    assert finish == "tool_calls"
    assert calls == tuple(
        ToolCall(id=IDS[place], name=name, arguments=arguments) for place, (name, arguments) in enumerate(expected)
    )
    # The deltas tell the same, each call's id and name exactly once.
    for place, (name, arguments) in enumerate(expected):
        ours = [delta for delta in deltas if isinstance(delta, CallDelta) and delta.index == place]
        assert [(delta.id, delta.name) for delta in ours] == [(IDS[place], name)] + [("", "")] * (len(ours) - 1)
        assert "".join(delta.arguments for delta in ours) == arguments


@pytest.mark.parametrize("arguments", [None, "", " \n"])
def test_a_call_without_arguments_gets_an_empty_object_which_the_deltas_tell_too(arguments: str | None) -> None:
    reader, deltas = read(
        chunk(piece(index=0, id="a", name="f", arguments=arguments)),
        chunk(piece(index=1, id="b", name="g", arguments="[")),
        chunk(piece(index=2, id="c", name="h", arguments="{}")),
        chunk({}, "tool_calls"),
    )
    added = reader.complete()
    assert added == [CallDelta(index=0, arguments="{}")]
    assert reader.complete() == []
    _, calls = reader.result()
    assert [json.loads(calls[0].arguments), calls[1].arguments, calls[2].arguments] == [{}, "[", "{}"]
    told = [delta for delta in [*deltas, *added] if isinstance(delta, CallDelta) and delta.index == 0]
    assert "".join(delta.arguments for delta in told) == calls[0].arguments


def test_ids_that_an_upstream_invents_never_get_out() -> None:
    theirs = "call_invented"
    reader, deltas = read(chunk(piece(index=0, id=theirs, name="f", arguments="{}")), chunk({}, "tool_calls"))
    assert theirs not in repr((deltas, reader.result()))
    assert [call.id for call in reader.result()[1]] == [call_id("t", 2, 0)]


def test_a_stop_after_calls_is_a_stop_for_calls() -> None:
    reader, _ = read(chunk(piece(index=0, id="a", name="f")), chunk({}, "stop"))
    assert reader.result()[0] == "tool_calls"


@pytest.mark.parametrize(
    "event",
    [
        b"",
        b"not json",
        b'{"choices": [{"delta": {"con',
        b"[]",
        b'"text"',
        b"null",
        b'{"choices": {}}',
        b'{"choices": [{"delta": {"content": 1}}]}',
        b'{"choices": [{"delta": {"content": "\xff"}}]}',
        b'{"choices": [{"delta": {"content": "\\ud83d"}}]}',
        b'{"x": ' + b"[" * 100_000 + b"}",
        chunk(piece(index=0, name="n" * (MAX_NAME + 1))),
    ],
    ids=range(12),
)
def test_what_is_no_chunk_is_refused(event: bytes) -> None:
    with pytest.raises(ChunkRefused):
        read(event)


def test_more_calls_than_anybody_makes_are_refused() -> None:
    with pytest.raises(ChunkRefused):
        read(*(chunk(piece(index=n, id=str(n), name="f")) for n in range(MAX_CALLS + 1)))


@pytest.mark.parametrize("event", [b'{"error": {"message": "x"}}', b'{"error": "x"}', chunk({}, "error")])
def test_an_error_in_the_stream_is_an_error(event: bytes) -> None:
    with pytest.raises(ErrorReported):
        read(event)


def test_an_empty_error_is_none() -> None:
    assert read(b'{"error": null, "choices": []}')[1] == []


def test_what_came_before_a_failure_is_kept() -> None:
    deltas: list[Delta] = []
    with pytest.raises(ChunkRefused):
        AnswerReader("t", 2).read([chunk({"content": "x"}), b"garbage"], deltas)
    assert deltas == [TextDelta(text="x")]


def choice(index: int, delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    return json.dumps({"choices": [{"index": index, "delta": delta or {}, "finish_reason": finish, **more}]}).encode()


def test_further_choices_are_kept_until_the_end_each_with_its_own_calls() -> None:
    reader = AnswerReader("t", 2, choices=3)
    deltas: list[Delta] = []
    reader.read([choice(1, {"content": "b"}), choice(0, {"content": "a"}), choice(2, piece(index=0, name="f"))], deltas)
    assert deltas == [TextDelta(text="a")]
    reader.read([choice(0, finish="stop"), choice(1, {"reasoning": "hm", "content": "c"}, "length")], deltas)
    assert not reader.is_whole
    reader.read([choice(2, finish="stop"), choice(7, {"content": "unasked"})], deltas)
    assert reader.is_whole
    assert reader.alternatives() == (
        Alternative(index=1, finish="length", text="bc", reasoning="hm"),
        Alternative(
            index=2,
            finish="tool_calls",
            calls=(ToolCall(id=call_id("t", 2, 2 * MAX_CALLS), name="f", arguments="{}"),),
        ),
    )
    assert reader.result() == ("stop", ())


def test_one_answer_is_whole_with_its_own_end() -> None:
    reader, _ = read(chunk(finish="stop"))
    assert reader.is_whole
    assert reader.alternatives() == ()


def test_further_choices_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_chunks, "MAX_OTHERS", 100)
    reader = AnswerReader("t", 2, choices=2)
    with pytest.raises(ChunkRefused):
        reader.read([choice(1, {"content": "x" * 60})] * 2, [])


TOKEN = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": [{"token": "Ho", "logprob": -1.5}]}
LIKELY = Logprob(token="Hi", logprob=-0.5, bytes=(72, 105), top=(TopLogprob(token="Ho", logprob=-1.5),))


@pytest.mark.parametrize(
    ("delta", "logprobs", "expected"),
    [
        ({"content": "Hi"}, {"content": [TOKEN]}, [TextDelta(text="Hi", logprobs=(LIKELY,))]),
        ({"refusal": "Hi"}, {"refusal": [TOKEN]}, [TextDelta(text="Hi", logprobs=(LIKELY,))]),
        ({}, {"content": [TOKEN]}, [TextDelta(text="", logprobs=(LIKELY,))]),
        ({"content": "Hi"}, None, [TextDelta(text="Hi")]),
        ({"content": "Hi"}, {"content": None, "tokens": ["Hi"]}, [TextDelta(text="Hi")]),
    ],
)
def test_how_likely_the_tokens_were_comes_with_their_text(
    delta: dict[str, Any], logprobs: object, expected: list[Delta]
) -> None:
    reader = AnswerReader("t", 2, logprobs=True)
    deltas: list[Delta] = []
    reader.read([choice(0, delta, logprobs=logprobs)], deltas)
    assert deltas == expected


@pytest.mark.parametrize(
    "logprobs",
    [
        {"content": [{**TOKEN, "token": "x" * 2000}]},
        {"content": [{**TOKEN, "top_logprobs": [{"token": "o", "logprob": -1}] * 33}]},
        {"content": [{**TOKEN, "logprob": "likely"}]},
        {"content": 7},
    ],
)
def test_what_is_no_such_thing_is_refused_only_where_it_was_asked_for(logprobs: object) -> None:
    event = choice(0, {"content": "Hi"}, logprobs=logprobs)
    with pytest.raises(ChunkRefused):
        AnswerReader("t", 2, logprobs=True).read([event], [])
    assert read(event)[1] == [TextDelta(text="Hi")]
