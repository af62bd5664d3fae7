"""The native events, byte by byte, and the bodies of background runs."""

import json
from typing import Any
from zlib import crc32

import pytest

from kitemesh_contracts.content import CallResult, Step, ToolCall, Usage
from kitemesh_contracts.deltas import CallDelta, Delta, HoldRef, ReasoningDelta, TextDelta
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_gateway.dialects.base import Facts, Mistakes, Place, Rest
from kitemesh_gateway.dialects.native import Native
from kitemesh_gateway.dialects.native_bodies import parse_background
from kitemesh_gateway.dialects.native_stream import NativeEncoder
from kitemesh_gateway.positions import parse
from unit.gateway.rig import TURN, ended

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
FRAMES: list[tuple[Place, tuple[Delta, ...]]] = [
    (Place(1, 1, 1), (ReasoningDelta(text="Hm"), TextDelta(text="Let me see"))),
    (Place(1, 1, 2), (CallDelta(index=0, id="c1", name="look"), CallDelta(index=0, arguments="{}"))),
    (Place(2, 1, 1), (TextDelta(text="Gr\u00fc\u00dfe"),)),
]


def encoder(*, resumable: bool = True, **fields: Any) -> NativeEncoder:
    values: dict[str, Any] = {"model": "m", "created_s": 1_700_000_000, "label": "req_1", "conversation": "conv"}
    return NativeEncoder(Facts(turn=TURN, include_usage=False, resumable=resumable, **{**values, **fields}))


def told(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Take events apart: the id behind the execution's, and the JSON."""
    events = data.decode().split("\n\n")
    assert events.pop() == ""
    found = []
    for event in events:
        *ids, line = event.split("\n")
        assert line.startswith("data: ")
        found.append(("".join(ids).removeprefix(f"id: {TURN}:"), json.loads(line.removeprefix("data: "))))
    return found


def measure(text: str) -> str:
    return f"{len(text)}-{crc32(text.encode()):08x}"


@pytest.mark.requirement("executions:native-events")
def test_a_turn_is_told_in_order_and_every_id_says_what_was_shown() -> None:
    speaker = encoder()
    assert (
        speaker.start()
        == (
            f'id: {TURN}:0.0.0.0.0-00000000~0n0\ndata: {{"type":"turn.started","execution_id":"{TURN}",'
            '"request_id":"req_1","conversation_id":"conv","model":"m","created_at":"2023-11-14T22:13:20.000Z"}\n\n'
        ).encode()
    )
    thought, seen, greeted = measure("Hm"), measure("Let me see"), measure("Gr\u00fc\u00dfe")
    assert told(b"".join(speaker.delta(place, items) for place, items in FRAMES)) == [
        (f"1.1.1.0.0-00000000.{thought}~0n0", {"type": "reasoning.delta", "step": 1, "text": "Hm"}),
        (f"1.1.1.1.{seen}.{thought}~0n0", {"type": "text.delta", "step": 1, "text": "Let me see"}),
        (
            f"1.1.2.0.{seen}.{thought}~0n1",
            {"type": "call.requested", "step": 1, "tool_execution_id": "c1", "name": "look"},
        ),
        (f"2.1.1.0.{greeted}~0n0", {"type": "text.delta", "step": 2, "text": "Gr\u00fc\u00dfe"}),
    ]
    made = Step(
        step=1,
        attempt=1,
        last=2,
        text="Let me see",
        calls=(ToolCall(id="c1", name="look", arguments="{}"), ToolCall(id="c2", name="ask", arguments="{}")),
        results=(
            CallResult(call="c1", text="42"),
            CallResult(call="c2", error=ErrorInfo(code=ErrorCode.TOOL_DENIED, message="no")),
        ),
    )
    end = ended("Gr\u00fc\u00dfe, all", step=2, last=1, earlier=(made,), usage=Usage(input_tokens=3, output_tokens=2))
    whole = measure("Gr\u00fc\u00dfe, all")
    assert told(speaker.end(end, (Rest(2, (TextDelta(text=", all"),)),))) == [
        (f"2.1.2.0.{whole}~0n0", {"type": "text.delta", "step": 2, "text": ", all"}),
        (
            f"2.1.3.0.{whole}~0n0",
            {
                "type": "turn.ended",
                "status": "completed",
                "finish_reason": "stop",
                "usage": {"input_tokens": 3, "output_tokens": 2, "cached_tokens": 0, "reasoning_tokens": 0},
                "tool_calls": [
                    {"step": 1, "tool_execution_id": "c1", "name": "look", "status": "completed"},
                    {"step": 1, "tool_execution_id": "c2", "name": "ask", "status": "denied"},
                ],
            },
        ),
    ]


def test_every_id_is_one_that_can_be_gone_on_from() -> None:
    speaker = encoder()
    data = speaker.start() + b"".join(speaker.delta(place, items) for place, items in FRAMES)
    data += speaker.end(ended("Gr\u00fc\u00dfe", step=2, last=1), ())
    ids = [line.removeprefix("id: ") for line in data.decode().split("\n") if line.startswith("id: ")]
    assert [parse(each)[0] for each in ids] == [TURN] * 6


def test_what_a_classic_turn_said_has_ids_without_measures_and_an_end() -> None:
    speaker = encoder(resumable=False)
    data = speaker.start() + speaker.end(ended("Hi"), (Rest(1, (TextDelta(text="Hi"),)),))
    assert [place for place, _ in told(data)] == ["0.0.0.0", "1.1.1.0", "1.1.2.0"]


def test_a_hold_ends_the_stream_with_what_is_to_be_decided() -> None:
    call = ToolCall(id="c9", name="refund", arguments='{"pin":"***"}')
    hold = HoldRef(id="hold-1", expires_at_ms=1_767_323_045_600)
    ((place, event),) = told(
        encoder().end(ended("", last=4, outcome="held", finish=None, calls=(call,), hold=hold), ())
    )
    assert place == "1.1.6.0.0-00000000~0n0"
    assert event == {
        "type": "turn.held",
        "approval_id": "hold-1",
        "expires_at": "2026-01-02T03:04:05.600Z",
        "to_decide": [{"tool_execution_id": "c9", "name": "refund", "arguments": '{"pin":"***"}'}],
        "tool_calls": [],
        "usage": {"input_tokens": 0, "output_tokens": 0, "cached_tokens": 0, "reasoning_tokens": 0},
    }


def test_the_callers_own_calls_and_an_answer_that_is_not_stored_are_told() -> None:
    call = ToolCall(id="c9", name="mine", arguments="{}")
    ((_, event),) = told(encoder().end(ended("", calls=(call,), finish="tool_calls", stored=False), ()))
    assert (event["finish_reason"], event["stored"]) == ("tool_calls", False)
    assert event["to_run"] == [{"tool_execution_id": "c9", "name": "mine", "arguments": "{}"}]


@pytest.mark.requirement("executions:native-events")
@pytest.mark.parametrize(
    ("code", "status"),
    [
        (ErrorCode.UPSTREAM_FAILED, "failed"),
        (ErrorCode.TURN_EXHAUSTED, "failed"),
        (ErrorCode.CONVERSATION_BUSY, "failed"),
        (ErrorCode.TURN_CANCELLED, "cancelled"),
        (ErrorCode.TURN_TIMEOUT, "expired"),
    ],
)
def test_a_turn_that_failed_has_ended(code: ErrorCode, status: str) -> None:
    data = encoder().error(Place(1, 1, 2), ErrorInfo(code=code, message="why"), "req_1")
    assert told(data) == [
        ("", {"type": "turn.ended", "status": status, "error": {"code": code.value, "message": "why"}}),
    ]


@pytest.mark.requirement("executions:native-events")
@pytest.mark.parametrize("code", [ErrorCode.DRAINING, ErrorCode.STREAM_GAP, ErrorCode.TURN_LOST])
def test_a_stream_that_cannot_go_on_says_nothing_of_its_turn(code: ErrorCode) -> None:
    data = encoder().error(Place(1, 1, 2), ErrorInfo(code=code, message="why"), "req_1")
    assert told(data) == [
        ("", {"type": "error", "error": {"code": code.value, "message": "why"}, "request_id": "req_1"}),
    ]


def test_the_error_of_a_classic_stream_has_an_id() -> None:
    error = ErrorInfo(code=ErrorCode.INTERNAL, message="secret words")
    data = encoder(resumable=False).error(Place(1, 1, 2), error, "req_1")
    assert data.startswith(f"id: {TURN}:1.1.2.0\n".encode())
    assert b"secret" not in data


def test_the_whole_is_the_last_event() -> None:
    assert json.loads(encoder().whole(ended("Hi")))["type"] == "turn.ended"


# Bodies of background runs


@pytest.mark.requirement("background:durable")
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"mode": None},
        {"mode": "auto"},
        {"mode": "durable"},
        {"metadata": {"mode": "auto"}},
        {"metadata": {"mode": "durable"}, "stream": False},
        {"stream": True, "stream_options": {"include_usage": True}},
    ],
)
def test_a_background_run_is_durable_and_its_events_are_kept(more: dict[str, Any]) -> None:
    request = Native().parse({**ASK, **more})
    assert (request.mode, request.stream, request.model) == ("durable", True, "m")
    assert request.include_usage == ("stream_options" in more)


@pytest.mark.requirement("background:durable")
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"mode": "classic"}, "mode: must be 'auto' or 'durable'"),
        ({"mode": "fast"}, "mode: must be 'auto' or 'durable'"),
        (
            {"metadata": {"mode": "classic"}},
            "metadata.mode: must be 'auto' or 'durable': a background run has no client to live for",
        ),
        (
            {"mode": "classic", "metadata": {"mode": "classic"}, "temperature": 3},
            (
                "temperature: must be at most 2; mode: must be 'auto' or 'durable'; "
                "metadata.mode: must be 'auto' or 'durable': a background run has no client to live for"
            ),
        ),
        ({"messages": []}, "messages: must have at least 1 item(s)"),
    ],
)
def test_one_that_lives_for_its_client_is_refused_with_everything_else(more: dict[str, Any], said: str) -> None:
    with pytest.raises(Mistakes) as refused:
        parse_background({**ASK, **more})
    assert refused.value.message == said
    assert refused.value.code is ErrorCode.REQUEST_INVALID


def test_a_body_that_is_no_object_is_refused() -> None:
    with pytest.raises(Mistakes):
        parse_background([])
