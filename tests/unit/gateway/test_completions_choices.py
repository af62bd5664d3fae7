import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitemesh_contracts.content import Alternative, Logprob, ToolCall, TopLogprob
from kitemesh_contracts.deltas import CallDelta, Delta, ResultDelta, TextDelta
from kitemesh_gateway.dialects.base import Facts, Place, Rest
from kitemesh_gateway.dialects.completions_answers import Chunk, Completion
from kitemesh_gateway.dialects.completions_encoder import CompletionsEncoder
from unit.gateway.rig import TURN, ended

OWN = frozenset({"f", "g"})
CALLS = (ToolCall(id="id-1", name="f", arguments='{"x":1}'), ToolCall(id="id-2", name="g", arguments="{}"))


def encoder(
    own_tools: frozenset[str] = OWN, *, one_call: bool = False, resumable: bool = False, include_usage: bool = False
) -> CompletionsEncoder:
    return CompletionsEncoder(
        Facts(
            turn=TURN,
            model="m",
            created_s=17,
            label="req_1",
            conversation=None,
            include_usage=include_usage,
            own_tools=own_tools,
            one_call=one_call,
            resumable=resumable,
        ),
    )


def chunks(data: bytes) -> list[dict[str, Any]]:
    """Return the chunks, each of which is what the published schema says."""
    lines = [line[6:] for line in data.decode().splitlines() if line.startswith("data: {")]
    for line in lines:
        if not line.startswith('{"error"'):
            msgspec.json.decode(line, type=Chunk)
    return [json.loads(line) for line in lines]


def deltas(data: bytes, index: int = 0) -> list[dict[str, Any]]:
    choices = [choice for each in chunks(data) for choice in each.get("choices", ()) if choice["index"] == index]
    return [choice["delta"] for choice in choices if choice["delta"]]


def put_together(data: bytes) -> list[tuple[str, str, str]]:
    """Return the calls as a client puts them together."""
    calls: list[list[str]] = []
    for delta in deltas(data):
        for piece in delta.get("tool_calls", ()):
            if "id" in piece:
                assert piece["index"] == len(calls)
                assert piece["type"] == "function"
                calls.append([piece["id"], piece["function"]["name"], ""])
            calls[piece["index"]][2] += piece["function"]["arguments"]
    return [(id_, name, arguments) for id_, name, arguments in calls]


def begin(call: int, arguments: str = "", index: int | None = None) -> CallDelta:
    return CallDelta(
        index=call if index is None else index, id=CALLS[call].id, name=CALLS[call].name, arguments=arguments
    )


@pytest.mark.requirement("stream:client-calls-as-they-come", "stream:call-deltas-carry-an-index")
def test_where_the_caller_has_all_tools_its_calls_are_streamed_as_they_come() -> None:
    encode = encoder()
    data = encode.delta(Place(1, 1, 1), (begin(0), CallDelta(index=0, arguments='{"x"')))
    assert deltas(data) == [
        {"tool_calls": [{"type": "function", "index": 0, "id": "id-1", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]},
    ]
    data += encode.delta(Place(1, 1, 2), (CallDelta(index=0, arguments=":1}"), begin(1, "{}")))
    last = encode.end(ended("", last=2, calls=CALLS, finish="tool_calls"), ())
    assert deltas(last) == []
    assert put_together(data + last) == [("id-1", "f", '{"x":1}'), ("id-2", "g", "{}")]
    assert chunks(last)[-1]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]
    assert last.endswith(b"data: [DONE]\n\n")


@pytest.mark.requirement("stream:client-calls-as-they-come")
def test_where_it_is_not_known_whose_a_call_is_it_is_told_at_the_end() -> None:
    for encode in (encoder(frozenset()), encoder(resumable=True)):
        assert encode.delta(Place(1, 1, 1), (begin(0, '{"x":1}'), begin(1, "{}"))) == b""
        data = encode.end(ended("", last=1, calls=CALLS, finish="tool_calls"), ())
        assert put_together(data) == [("id-1", "f", '{"x":1}'), ("id-2", "g", "{}")]


def test_a_call_that_is_not_the_callers_is_not_told_and_takes_no_place() -> None:
    encode = encoder()
    unknown = (CallDelta(index=0, id="id-0", name="nothing"), CallDelta(index=0, arguments="{}"))
    assert encode.delta(Place(1, 1, 1), unknown) == b""
    assert encode.delta(Place(1, 1, 2), (ResultDelta(call="id-0", text="?"),)) == b""
    data = encode.delta(Place(1, 1, 3), (begin(0, '{"x":1}', index=1),))
    data += encode.end(ended("", last=3, calls=CALLS[:1], finish="tool_calls"), ())
    assert put_together(data) == [("id-1", "f", '{"x":1}')]


def test_where_only_one_call_counts_no_second_one_is_told() -> None:
    encode = encoder(one_call=True)
    data = encode.delta(Place(1, 1, 1), (begin(0, '{"x":1}'), begin(1, "{}")))
    data += encode.end(ended("", last=1, calls=CALLS[:1], finish="tool_calls"), ())
    assert put_together(data) == [("id-1", "f", '{"x":1}')]


@pytest.mark.requirement("stream:client-calls-as-they-come")
@given(st.data())
def test_however_much_came_live_and_how_often_the_caller_has_each_call_once(data: st.DataObject) -> None:
    encode = encoder()
    told = b""
    for attempt in range(1, data.draw(st.integers(1, 3)) + 1):
        items: list[Delta] = []
        for number, call in enumerate(CALLS[: data.draw(st.integers(0, 2))]):
            cuts = sorted(data.draw(st.lists(st.integers(0, len(call.arguments)), min_size=2, max_size=4)))
            items.append(begin(number, call.arguments[: cuts[0]]))
            pairs = pairwise(cuts)
            items += [CallDelta(index=number, arguments=call.arguments[start:end]) for start, end in pairs]
        told += b"".join(encode.delta(Place(1, attempt, n), (item,)) for n, item in enumerate(items, 1))
    told += encode.end(ended("", last=9, calls=CALLS, finish="tool_calls"), ())
    assert put_together(told) == [(call.id, call.name, call.arguments) for call in CALLS]
    assert told.endswith(b"data: [DONE]\n\n")


@pytest.mark.requirement("stream:failure-is-never-complete")
@pytest.mark.parametrize("calls", [(), CALLS[1:], (ToolCall(id="id-1", name="f", arguments='{"y":1}'),)])
def test_a_stream_whose_calls_turn_out_otherwise_ends_with_an_error(calls: tuple[ToolCall, ...]) -> None:
    encode = encoder()
    encode.delta(Place(1, 1, 1), (begin(0, '{"x"'),))
    data = encode.end(ended("", last=3, calls=calls), ())
    assert chunks(data)[-1]["error"]["code"] == "stream.gap"
    assert b"[DONE]" not in data
    assert b'"finish_reason":"' not in data


def test_a_stream_whose_attempts_contradict_each_other_ends_with_an_error() -> None:
    encode = encoder()
    encode.delta(Place(1, 1, 1), (begin(0, '{"x"'),))
    assert encode.delta(Place(1, 2, 1), (begin(0, '{"y"'), CallDelta(index=0, arguments=":1}"))) == b""
    assert b"stream.gap" in encode.end(ended("", last=3, calls=CALLS[:1]), ())


# Further choices

OTHERS = (
    Alternative(index=1, finish="length", text="B", reasoning="hm"),
    Alternative(index=2, finish="stop", calls=CALLS[:1]),
)


@pytest.mark.requirement("completions:several-choices")
def test_the_first_choice_is_streamed_and_the_others_come_whole_at_the_end() -> None:
    encode = encoder(include_usage=True)
    data = encode.start() + encode.delta(Place(1, 1, 1), (TextDelta(text="A"),))
    data += encode.end(ended("A", last=1, alternatives=OTHERS), ())
    assert deltas(data) == [{"role": "assistant", "content": ""}, {"content": "A"}]
    assert deltas(data, 1) == [{"role": "assistant", "content": "B", "reasoning_content": "hm"}]
    call = {"type": "function", "index": 0, "id": "id-1", "function": {"name": "f", "arguments": '{"x":1}'}}
    assert deltas(data, 2) == [{"role": "assistant", "content": "", "tool_calls": [call]}]
    finishes = [
        (choice["index"], choice["finish_reason"])
        for each in chunks(data)
        for choice in each["choices"]
        if choice["finish_reason"]
    ]
    assert finishes == [(1, "length"), (2, "tool_calls"), (0, "stop")]
    positions = [line for line in data.decode().splitlines() if line.startswith("id: ")]
    assert len(set(positions)) == len(positions)


@pytest.mark.requirement("completions:several-choices")
def test_a_whole_answer_has_its_choices_in_order() -> None:
    body = encoder().whole(ended("A", alternatives=OTHERS))
    assert isinstance(msgspec.json.decode(body, type=Completion), Completion)
    call = {"type": "function", "id": "id-1", "function": {"name": "f", "arguments": '{"x":1}'}}
    assert json.loads(body)["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "A"}, "finish_reason": "stop"},
        {
            "index": 1,
            "message": {"role": "assistant", "content": "B", "reasoning_content": "hm"},
            "finish_reason": "length",
        },
        {
            "index": 2,
            "message": {"role": "assistant", "content": None, "tool_calls": [call]},
            "finish_reason": "tool_calls",
        },
    ]


# How likely the tokens were

A = Logprob(token="A", logprob=-0.5, bytes=(65,), top=(TopLogprob(token="B", logprob=-1.5),))
B = Logprob(token="B", logprob=-2.0)
C = Logprob(token="C", logprob=-3.0)
A_OUT = {
    "token": "A",
    "logprob": -0.5,
    "bytes": [65],
    "top_logprobs": [{"token": "B", "logprob": -1.5, "bytes": None}],
}
B_OUT = {"token": "B", "logprob": -2.0, "bytes": None, "top_logprobs": []}
C_OUT = {"token": "C", "logprob": -3.0, "bytes": None, "top_logprobs": []}


def told_logprobs(data: bytes) -> list[tuple[str | None, list[Any]]]:
    choices = [each["choices"][0] for each in chunks(data) if each["choices"]]
    return [
        (choice["delta"].get("content"), choice["logprobs"]["content"]) for choice in choices if "logprobs" in choice
    ]


@pytest.mark.requirement("completions:logprobs")
def test_how_likely_tokens_were_is_told_beside_their_text() -> None:
    encode = encoder()
    data = encode.delta(Place(1, 1, 1), (TextDelta(text="A", logprobs=(A,)),))
    data += encode.delta(Place(1, 1, 2), (TextDelta(text="BC", logprobs=(B, C)),))
    data += encode.end(ended("ABC", last=2, logprobs=(A, B, C)), ())
    assert told_logprobs(data) == [("A", [A_OUT]), ("BC", [B_OUT, C_OUT])]


@pytest.mark.requirement("completions:logprobs")
@pytest.mark.parametrize(
    ("rest", "told"),
    [
        ((TextDelta(text="B"), TextDelta(text="C")), [("A", [A_OUT]), ("B", [B_OUT, C_OUT])]),
        ((), [("A", [A_OUT]), ("", [B_OUT, C_OUT])]),
    ],
)
def test_what_was_not_told_of_them_comes_with_the_rest(
    rest: tuple[TextDelta, ...], told: list[tuple[str, list[Any]]]
) -> None:
    encode = encoder()
    data = encode.delta(Place(1, 1, 1), (TextDelta(text="A", logprobs=(A,)),))
    data += encode.end(ended("ABC", last=3, logprobs=(A, B, C)), (Rest(1, rest),) if rest else ())
    assert told_logprobs(data) == told


@pytest.mark.requirement("completions:logprobs")
def test_a_whole_answer_tells_how_likely_its_tokens_were() -> None:
    other = Alternative(index=1, finish="stop", text="B", logprobs=(B,))
    choices = json.loads(encoder().whole(ended("A", logprobs=(A,), alternatives=(other,))))["choices"]
    assert [choice["logprobs"] for choice in choices] == [
        {"content": [A_OUT], "refusal": None},
        {"content": [B_OUT], "refusal": None},
    ]
    assert "logprobs" not in json.loads(encoder().whole(ended("A")))["choices"][0]
