"""The bytes of `agents`: events, whole answers and errors."""

import json
from typing import Any

import pytest

from kitemesh_contracts.content import Step, ToolCall
from kitemesh_contracts.deltas import CallDelta, HoldRef, ReasoningDelta, ResultDelta, TextDelta
from kitemesh_contracts.errors import MEANINGS, ErrorCode, ErrorInfo, NotFound
from kitemesh_gateway import positions
from kitemesh_gateway.dialects.agents import Agents
from kitemesh_gateway.dialects.agents_encoder import AgentsEncoder
from kitemesh_gateway.dialects.base import Facts, Mistake, Place, Refused, Rest
from unit.gateway.rig import TURN, ended

EARLIER = Step(step=1, attempt=1, last=1, text="Let me look.", calls=(ToolCall(id="a", name="f", arguments="{}"),))


def encoder(*, resumable: bool = True, row: int = 129) -> AgentsEncoder:
    facts = Facts(
        turn=TURN,
        model="agent:clerk",
        created_s=1_790_000_000,
        label="r",
        conversation="conv-1",
        include_usage=False,
        resumable=resumable,
        row=row,
        agent="clerk",
    )
    return Agents().encoder(facts)


def data(block: bytes) -> list[Any]:
    """Read events as the published client does."""
    return [json.loads(line[6:]) for line in block.decode().split("\n") if line.startswith("data: ")]


def ids(block: bytes) -> list[str]:
    return [line.removeprefix("id: ") for line in block.decode().split("\n") if line.startswith("id: ")]


def test_a_stream_is_these_bytes() -> None:
    told = encoder()
    blocks = [
        told.start(),
        told.delta(Place(1, 1, 1), (TextDelta(text="Once"),)),
        told.delta(Place(1, 1, 2), (TextDelta(text=" upon"),)),
        told.end(ended("Once upon", last=2, ended_at_ms=1_790_000_001_250), ()),
    ]
    assert [block.decode() for block in blocks] == [
        f'id: {TURN}:0.0.0.0.0-00000000~0a0\ndata: {{"type":"start","id":256}}\n\n',
        f'id: {TURN}:1.1.1.0.4-d372dcee~0a0\ndata: {{"type":"delta","content":"Once"}}\n\n',
        f'id: {TURN}:1.1.2.0.9-419a8ead~0a0\ndata: {{"type":"delta","content":" upon"}}\n\n',
        (
            f'id: {TURN}:1.1.4.0.9-419a8ead~0a0\ndata: {{"type":"done","message":{{"id":256,"role":"assistant",'
            '"content":"Once upon","tool_calls":null,"conversation_id":"conv-1",'
            '"created_at":"2026-09-21T14:13:21.250Z"}}\n\n'
        ),
    ]
    assert all(positions.parse(each)[1].words == "a" for block in blocks for each in ids(block))


@pytest.mark.requirement("agents:stream")
def test_the_deltas_are_the_answer_over_all_steps() -> None:
    told = encoder()
    blocks = b"".join(
        [
            told.start(),
            told.delta(Place(1, 1, 1), (ReasoningDelta(text="hm"), TextDelta(text="Let me look."))),
            told.delta(Place(1, 1, 2), (CallDelta(index=0, id="a", name="f"),)),
            told.delta(Place(2, 1, 1), (ResultDelta(call="a", text="42"), TextDelta(text="It"))),
            told.end(ended(" is.It is.", step=2, last=2, earlier=(EARLIER,)), [Rest(2, (TextDelta(text=" is 42."),))]),
        ]
    )
    start, *deltas, done = data(blocks)
    assert [delta["content"] for delta in deltas] == ["Let me look.", "\n\nIt", " is 42."]
    assert start["id"] == done["message"]["id"]


def test_reasoning_calls_and_results_have_no_events_of_their_own() -> None:
    told = encoder()
    silent = (ReasoningDelta(text="hm"), CallDelta(index=0, arguments="{}"), ResultDelta(call="a", text="42"))
    assert told.delta(Place(1, 1, 1), silent) == b""
    (position,) = ids(told.delta(Place(1, 1, 2), (TextDelta(text="x"),)))
    assert positions.parse(position)[1].reasoning.length == 2


@pytest.mark.requirement("agents:whole-answer")
def test_a_whole_answer_is_the_row_of_the_turns_end() -> None:
    answer = json.loads(encoder().whole(ended("Done.", step=2, earlier=(EARLIER,), ended_at_ms=1_790_000_001_250)))
    assert answer == {
        "id": 256,
        "role": "assistant",
        "content": "Let me look.\n\nDone.",
        "tool_calls": None,
        "conversation_id": "conv-1",
        "created_at": "2026-09-21T14:13:21.250Z",
    }
    assert json.loads(encoder().whole(ended("Hi")))["created_at"] == "2026-09-21T14:13:20.000Z"


@pytest.mark.requirement("agents:hold", "agents:hold-stream")
def test_a_held_answer_is_the_row_of_its_calls() -> None:
    calls = (ToolCall(id="b", name="wipe", arguments='{"id":"***"}'),)
    held = ended(
        "Shall I?",
        step=2,
        outcome="held",
        calls=calls,
        earlier=(EARLIER,),
        hold=HoldRef(id="h-1", expires_at_ms=1_790_000_600_000),
    )
    answer = json.loads(encoder().whole(held))
    assert answer == {
        "id": 132,
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "function", "id": "b", "function": {"name": "wipe", "arguments": '{"id":"***"}'}}],
        "conversation_id": "conv-1",
        "created_at": "2026-09-21T14:13:20.000Z",
        "approval_id": "h-1",
        "expires_at": "2026-09-21T14:23:20.000Z",
    }
    assert data(encoder().end(held, ())) == [{"type": "done", "message": answer}]


def test_an_error_closes_a_stream_without_an_id_where_it_can_be_resumed() -> None:
    error = ErrorInfo(code=ErrorCode.UPSTREAM_CUT, message="the provider's own words")
    assert encoder().error(Place(1, 1, 2), error, "r") == b'data: {"type":"error","message":"AI service error"}\n\n'
    plain = encoder(resumable=False).error(Place(1, 1, 2), error, "r")
    assert plain == b'id: %b:1.1.2.0\ndata: {"type":"error","message":"AI service error"}\n\n' % TURN.encode()
    late = ErrorInfo(code=ErrorCode.TURN_CANCELLED, message="The turn was cancelled: on request")
    assert data(encoder().error(Place(1, 1, 2), late, "r"))[0]["message"] == late.message


def test_a_turn_without_rows_is_none_of_an_agents() -> None:
    with pytest.raises(NotFound):
        encoder(row=0)


@pytest.mark.requirement("agents:never-done-marker")
def test_no_line_is_anything_but_json() -> None:
    told = encoder()
    texts = ("a\nb\r\n\n", "data: [DONE]", "\u2028", '"')
    blocks = [told.start(), *(told.delta(Place(1, 1, n), (TextDelta(text=text),)) for n, text in enumerate(texts, 1))]
    blocks.append(told.end(ended("".join(texts), last=4), ()))
    for block in blocks:
        lines = block.removesuffix(b"\n\n").split(b"\n")
        assert [line.split(b": ", 1)[0] for line in lines] == [b"id", b"data"]
    assert "".join(event["content"] for event in data(b"".join(blocks[1:-1]))) == "".join(texts)


def refusal(code: ErrorCode, *mistakes: Mistake, **fields: Any) -> tuple[int, dict[str, Any]]:
    told = Agents().refusal(ErrorInfo(code=code, message="why", **fields), Refused("r", "/", mistakes))
    assert told.content_type == "application/json"
    return told.status, json.loads(told.body)["error"]


@pytest.mark.requirement("agents:error-object")
@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_is_told_in_the_same_object(code: ErrorCode) -> None:
    status, error = refusal(code)
    assert error.keys() == {"code", "message"}
    assert error["code"] == status
    assert status not in (502, 504)
    if MEANINGS[code].status >= 500 and status != 503:
        assert (status, error["message"]) == (500, "AI service error")
    if status == 429:
        assert error["message"] == "Rate limited"


def test_what_is_in_the_way_is_named() -> None:
    assert refusal(ErrorCode.CONVERSATION_BUSY) == (429, {"code": 429, "message": "Rate limited"})
    held = refusal(ErrorCode.CONVERSATION_HELD, approval="h-1", expires_at_ms=1_790_000_600_000)
    assert held == (
        409,
        {"code": 409, "message": "why", "approval_id": "h-1", "expires_at": "2026-09-21T14:23:20.000Z"},
    )


@pytest.mark.requirement("agents:invalid-message", "agents:every-mistake-at-once")
def test_a_missing_message_is_said_in_the_published_words() -> None:
    assert refusal(ErrorCode.REQUEST_INVALID, Mistake("message", "is required"))[1]["message"] == "Invalid message"
    both = refusal(ErrorCode.REQUEST_INVALID, Mistake("message", "is required"), Mistake("stream", "must be true"))
    assert both[1]["message"] == "Invalid message; stream: must be true"
    assert refusal(ErrorCode.REQUEST_INVALID, Mistake("stream", "must be true"))[1]["message"] == "why"
