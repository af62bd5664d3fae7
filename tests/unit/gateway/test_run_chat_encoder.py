"""The bytes of the UI message stream: which events follow from which deltas, in an order that its clients accept."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitemesh_contracts.content import CallResult, Step, ToolCall, Usage
from kitemesh_contracts.deltas import CallDelta, Delta, HoldRef, ReasoningDelta, ResultDelta, TextDelta, TurnEnded
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_gateway import positions
from kitemesh_gateway.dialects.base import Encoder, Facts, Place, Rest
from kitemesh_gateway.dialects.run_chat import RunChat
from ui_message import UiMessage, events_of, types_of
from unit.gateway.holding import CATALOG
from unit.gateway.rig import TURN, ended

WEATHER = '{"city":"Oslo"}'
CALL = CallDelta(index=0, id="c1", name="get_weather", arguments=WEATHER)
CALL_MADE = ToolCall(id="c1", name="get_weather", arguments=WEATHER)
CUT = ErrorInfo(code=ErrorCode.UPSTREAM_CUT, message="It broke off")
DENIED = ErrorInfo(code=ErrorCode.TOOL_DENIED, message="A person denied the call: no", approval="hold-1")
META = {"executionId": TURN, "conversationId": "conv"}


def encoder(*, after_step: int = 0, resumable: bool = False, conversation: str | None = "conv", **told: Any) -> Encoder:
    facts = Facts(
        turn=TURN,
        model="m",
        created_s=17,
        label="req_1",
        conversation=conversation,
        include_usage=False,
        resumable=resumable,
        after_step=after_step,
    )
    return RunChat(lambda: CATALOG.tools).told(**told).encoder(facts)


def step(number: int, *calls: ToolCall, text: str = "", results: tuple[CallResult, ...] = ()) -> Step:
    return Step(step=number, attempt=1, last=4, text=text, calls=calls, results=results)


WEATHER_STEP = step(
    1, ToolCall(id="c1", name="get_weather", arguments=WEATHER), results=(CallResult(call="c1", text='{"t":5}'),)
)


def answered(text: str = "Fine", number: int = 2, **fields: Any) -> TurnEnded:
    values: dict[str, Any] = {"step": number, "last": 9, "earlier": (WEATHER_STEP,), **fields}
    return ended(text, **values)


@pytest.mark.requirement("run-chat:order-of-a-text")
def test_a_text_is_one_piece_of_one_step() -> None:
    told = encoder()
    data = told.start() + told.delta(Place(1, 1, 1), (TextDelta(text="He"),))
    data += told.delta(Place(1, 1, 2), (TextDelta(text='l"lo'),)) + told.end(ended("Hello", last=2), ())
    assert [event for event in events_of(data) if event["type"] != "done"] == [
        {"type": "start", "messageId": TURN, "messageMetadata": META},
        {"type": "start-step"},
        {"type": "text-start", "id": "text-1"},
        {"type": "text-delta", "id": "text-1", "delta": "He"},
        {"type": "text-delta", "id": "text-1", "delta": 'l"lo'},
        {"type": "text-end", "id": "text-1"},
        {"type": "finish-step"},
        {"type": "finish", "finishReason": "stop", "messageMetadata": META},
    ]
    assert types_of(data)[-1] == "done"
    assert UiMessage().read(data).text == 'Hel"lo'


@pytest.mark.requirement("stream:results-are-told-first")
def test_a_held_step_of_which_every_frame_was_lost_is_told_with_the_calls_that_ran_beside_the_held_one() -> None:
    told = encoder()
    held = ToolCall(id="c2", name="delete_record", arguments='{"id":"4"}')
    closing = ended(
        "",
        outcome="held",
        calls=(held,),
        hold=HoldRef(id="hold-1", expires_at_ms=0),
        step_calls=(CALL_MADE, held),
        results=(CallResult(call="c1", text='{"t":5}'),),
    )
    data = told.start() + told.end(closing, ())
    message = UiMessage().read(data)
    states = {part["toolCallId"]: part["state"] for part in message.parts if "toolCallId" in part}
    assert states == {"c1": "output-available", "c2": "approval-requested"}
    assert [each["type"] for each in events_of(data)].count("tool-input-start") == 2


@pytest.mark.requirement("run-chat:event-ids")
def test_every_event_has_an_id_that_a_client_can_come_back_with() -> None:
    told = encoder(resumable=True)
    data = told.start() + told.delta(Place(1, 1, 1), (ReasoningDelta(text="why"), TextDelta(text="a"), CALL))
    data += told.delta(Place(1, 1, 2), (TextDelta(text="ü"),)) + told.end(ended("aü", last=2), ())
    ids = [block.split(b"\n")[0].removeprefix(b"id: ").decode() for block in data.split(b"\n\n")[:-1]]
    places = [positions.parse(each)[1] for each in ids]
    assert [(place.step, place.n, place.k) for place in places] == [
        (0, 0, 0),
        *((1, 1, k) for k in range(10)),
        *((1, 2, k) for k in range(2)),
        # What was missing has no number, what closes the stream has.
        *((1, 0, k) for k in range(2)),
        *((1, 4, k) for k in range(3)),
    ]
    assert {place.words for place in places} == {"r"}
    assert [place.text.length for place in places if place.text is not None][-1] == 2
    assert [place.calls for place in places][-1] == 1
    assert [positions.write(*positions.parse(each)) for each in ids] == ids


@pytest.mark.requirement("run-chat:order-of-a-call")
def test_a_call_and_its_result_stand_in_the_step_that_made_it() -> None:
    told = encoder()
    data = told.start()
    data += told.delta(Place(1, 1, 1), (TextDelta(text="I look."),))
    data += told.delta(Place(1, 1, 2), (CallDelta(index=0, id="c1", name="get_weather", arguments='{"ci'),))
    data += told.delta(Place(1, 1, 3), (CallDelta(index=0, arguments='ty":"Oslo"}'),))
    data += told.delta(Place(2, 1, 1), (ResultDelta(call="c1", text='{"t":5}'),))
    data += told.delta(Place(2, 1, 2), (TextDelta(text="Fine"),))
    data += told.end(answered(), ())
    assert types_of(data) == [
        "start",
        "start-step",
        "text-start",
        "text-delta",
        "text-end",
        "tool-input-start",
        "tool-input-delta",
        "tool-input-delta",
        "tool-input-available",
        "tool-output-available",
        "finish-step",
        "start-step",
        "text-start",
        "text-delta",
        "text-end",
        "finish-step",
        "finish",
        "done",
    ]
    message = UiMessage().read(data)
    assert message.tool("c1") == {
        "type": "tool-get_weather",
        "toolCallId": "c1",
        "state": "output-available",
        "input": {"city": "Oslo"},
        "typed": WEATHER,
        "output": {"t": 5},
    }
    assert message.text == "I look.|Fine"


def test_reasoning_is_a_piece_of_its_own() -> None:
    told = encoder()
    items: tuple[Delta, ...] = (ReasoningDelta(text="why"), TextDelta(text="a"), ReasoningDelta(text="hm"))
    message = UiMessage().read(told.start() + told.delta(Place(1, 1, 1), items) + told.end(ended("a"), ()))
    assert [(part["type"], part.get("text")) for part in message.parts] == [
        ("step-start", None),
        ("reasoning", "why"),
        ("text", "a"),
        ("reasoning", "hm"),
    ]


@pytest.mark.parametrize(
    ("text", "output"),
    [('{"a":[1]}', {"a": [1]}), ("[1]", [1]), ("true", "true"), ("Sunny", "Sunny"), ('{"a":', '{"a":'), ("", "")],
)
def test_an_output_is_an_object_or_an_array_where_the_tool_gave_one(text: str, output: Any) -> None:
    told = encoder()
    told.delta(Place(1, 1, 1), (CALL,))
    data = told.delta(Place(2, 1, 1), (ResultDelta(call="c1", text=text),))
    assert events_of(data)[-1] == {"type": "tool-output-available", "toolCallId": "c1", "output": output}


@pytest.mark.requirement("run-chat:failed-call")
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (ErrorCode.TOOL_FAILED, "tool-output-error"),
        (ErrorCode.TOOL_DENIED, "tool-output-error"),
        (ErrorCode.TOOL_ARGUMENTS, "tool-output-error"),
        (ErrorCode.TOOL_UNKNOWN, "tool-output-error"),
    ],
)
def test_a_call_that_failed_says_why(code: ErrorCode, kind: str) -> None:
    told = encoder()
    told.start()
    told.delta(Place(1, 1, 1), (CALL,))
    data = told.delta(Place(2, 1, 1), (ResultDelta(call="c1", error=ErrorInfo(code=code, message="why")),))
    event = events_of(data)[-1]
    assert (event["type"], event["errorText"]) == (kind, "why")


@pytest.mark.parametrize("code", [ErrorCode.TOOL_ARGUMENTS, ErrorCode.TOOL_UNKNOWN])
def test_what_a_model_wrote_and_nobody_can_call_is_a_wrong_input(code: ErrorCode) -> None:
    told = encoder()
    told.delta(Place(1, 1, 1), (CallDelta(index=0, id="c1", name="get_weather", arguments='{"ci'),))
    data = told.delta(Place(2, 1, 1), (ResultDelta(call="c1", error=ErrorInfo(code=code, message="why")),))
    assert events_of(data) == [
        {
            "type": "tool-input-error",
            "toolCallId": "c1",
            "toolName": "get_weather",
            "input": None,
            "errorText": "why",
        }
    ]


@pytest.mark.requirement("run-chat:told-once")
def test_an_attempt_with_other_arguments_replaces_them() -> None:
    told = encoder(resumable=True)
    data = told.start() + told.delta(Place(1, 1, 1), (CALL,))
    other = CallDelta(index=0, id="c1", name="get_weather", arguments='{"city":"Rome"}')
    data += told.delta(Place(1, 2, 1), (other,))
    data += told.delta(Place(2, 1, 1), (ResultDelta(call="c1", text="a"), TextDelta(text="Fine")))
    assert UiMessage().read(data + told.end(answered(), ())).tool("c1")["input"] == {"city": "Rome"}


def test_an_internal_error_of_a_call_stays_inside() -> None:
    told = encoder()
    told.delta(Place(1, 1, 1), (CALL,))
    error = ErrorInfo(code=ErrorCode.INTERNAL, message="/srv/secret.py")
    assert b"secret" not in told.delta(Place(2, 1, 1), (ResultDelta(call="c1", error=error),))


@pytest.mark.parametrize("arguments", ["[1]", "{", "nonsense"])
def test_arguments_that_are_no_object_make_no_input(arguments: str) -> None:
    told = encoder()
    data = told.start()
    data += told.delta(Place(1, 1, 1), (CallDelta(index=0, id="c1", name="get_weather", arguments=arguments),))
    data += told.delta(Place(2, 1, 1), (ResultDelta(call="c1", text="ran all the same"),))
    data += told.delta(Place(2, 1, 2), (TextDelta(text="a"),)) + told.end(answered("a"), ())
    part = UiMessage().read(data).tool("c1")
    assert (part["state"], part["input"]) == ("output-error", None)


def refund(call: str = "c1", arguments: str = '{"amount":5,"pin":"1234"}') -> CallDelta:
    return CallDelta(index=0, id=call, name="refund", arguments=arguments)


@pytest.mark.requirement("run-chat:secrets-are-masked")
def test_secret_arguments_are_shown_to_nobody() -> None:
    told = encoder()
    data = told.start() + told.delta(Place(1, 1, 1), (refund(),))
    data += told.delta(Place(2, 1, 1), (ResultDelta(call="c1", text="paid"),)) + told.end(ended("", step=2), ())
    assert b"1234" not in data
    part = UiMessage().read(data).tool("c1")
    assert part["input"] == {"amount": 5, "pin": "***"}
    assert part["typed"] == ""


HELD = ended(
    "",
    last=2,
    outcome="held",
    finish="tool_calls",
    calls=(ToolCall(id="c2", name="refund", arguments='{"amount":5,"pin":"***"}'),),
    results=(CallResult(call="c1", text="ok"),),
    hold=HoldRef(id="hold-1", expires_at_ms=1_700_000_000_250),
)


def held_stream(told: Encoder) -> bytes:
    other = CallDelta(index=1, id="c2", name="refund", arguments='{"amount":5,"pin":"1234"}')
    return told.start() + told.delta(Place(1, 1, 1), (CALL, other)) + told.end(HELD, ())


@pytest.mark.requirement("run-chat:hold")
def test_a_hold_asks_for_approval_and_ends_the_stream_with_tool_calls() -> None:
    data = held_stream(encoder())
    assert types_of(data)[-6:] == [
        "tool-input-available",
        "tool-output-available",
        "tool-approval-request",
        "finish-step",
        "finish",
        "done",
    ]
    message = UiMessage().read(data)
    assert message.tool("c1")["state"] == "output-available"
    assert message.tool("c2")["approval"] == "c2"
    assert message.finishes == ["tool-calls"]
    assert message.metadata == META | {"approvalId": "hold-1", "expiresAt": "2023-11-14T22:13:20.250Z"}


@pytest.mark.requirement("run-chat:continuation")
@pytest.mark.parametrize(
    ("result", "state"),
    [
        (ResultDelta(call="c2", text="paid"), "output-available"),
        (ResultDelta(call="c2", error=DENIED), "output-denied"),
        (ResultDelta(call="c2", error=ErrorInfo(code=ErrorCode.TOOL_FAILED, message="no")), "output-error"),
    ],
)
def test_what_follows_a_hold_goes_on_with_the_same_message(result: ResultDelta, state: str) -> None:
    message = UiMessage().read(held_stream(encoder()))
    told = encoder(after_step=1, resumable=True)
    data = told.start() + told.delta(Place(2, 1, 1), (ResultDelta(call="c1", text="ok"), result))
    data += told.delta(Place(2, 1, 2), (TextDelta(text="Done"),)) + told.end(ended("Done", step=2, last=2), ())
    assert types_of(data)[:4] == ["start", "tool-output-available", f"tool-{state}", "start-step"]
    message.read(data)
    assert message.id == TURN
    assert message.tool("c2")["state"] == state
    assert message.text == "Done"
    assert message.metadata == META | {"approvalId": None, "expiresAt": None}


@pytest.mark.requirement("run-chat:partial-answer")
def test_an_answer_to_some_calls_holds_again_for_the_others() -> None:
    both = ended(
        "",
        outcome="held",
        calls=(ToolCall(id="c1", name="refund", arguments="{}"), ToolCall(id="c2", name="refund", arguments="{}")),
        hold=HoldRef(id="hold-1", expires_at_ms=0),
    )
    first = encoder()
    calls = (refund("c1"), CallDelta(index=1, id="c2", name="refund", arguments="{}"))
    message = UiMessage().read(first.start() + first.delta(Place(1, 1, 1), calls) + first.end(both, ()))
    told = encoder(after_step=1, resumable=True)
    message.read(told.start() + told.end(HELD, ()))
    assert message.tool("c1")["state"] == "output-available"
    assert message.tool("c2")["state"] == "approval-requested"
    assert message.finishes == ["tool-calls", "tool-calls"]


def test_a_call_that_was_denied_is_an_error_to_a_client_that_did_not_answer() -> None:
    told = encoder(resumable=True)
    data = told.start() + told.delta(Place(1, 1, 1), (CALL,))
    data += told.delta(Place(2, 1, 1), (ResultDelta(call="c1", error=DENIED), TextDelta(text="a")))
    part = UiMessage().read(data + told.end(answered("a"), ())).tool("c1")
    assert (part["state"], part["error"]) == ("output-error", "A person denied the call: no")


def test_a_result_of_a_call_that_was_not_told_is_not_told() -> None:
    told = encoder()
    assert told.delta(Place(2, 1, 1), (ResultDelta(call="c1", text="a"),)) == b""


@pytest.mark.requirement("run-chat:told-once")
def test_what_another_attempt_repeats_is_told_once() -> None:
    told = encoder(resumable=True)
    data = told.start()
    data += told.delta(Place(1, 1, 1), (CallDelta(index=0, id="c1", name="get_weather", arguments='{"ci'),))
    data += told.delta(Place(1, 2, 1), (CallDelta(index=0, id="c1", name="get_weather", arguments='{"'),))
    data += told.delta(Place(1, 2, 2), (CallDelta(index=0, arguments='city":"Oslo"}'),))
    data += told.delta(Place(2, 1, 1), (ResultDelta(call="c1", text='{"t":5}'),))
    data += told.delta(Place(2, 2, 1), (ResultDelta(call="c1", text='{"t":5}'), TextDelta(text="Fine")))
    part = UiMessage().read(data + told.end(answered(), ())).tool("c1")
    assert part["typed"] == WEATHER
    assert types_of(data).count("tool-output-available") == 1


def test_a_call_that_the_attempt_that_counts_did_not_make_is_closed() -> None:
    told = encoder(resumable=True)
    data = told.start() + told.delta(Place(1, 1, 1), (CALL, CallDelta(index=1, id="c9", name="x", arguments="{")))
    data += told.delta(Place(2, 1, 1), (ResultDelta(call="c1", text="a"), TextDelta(text="Fine")))
    part = UiMessage().read(data + told.end(answered(), ())).tool("c9")
    assert (part["state"], part["error"]) == ("output-error", "The call was not made")


@pytest.mark.requirement("run-chat:closing-event-completes")
def test_what_no_frame_told_is_told_at_the_end() -> None:
    told = encoder()
    message = UiMessage().read(
        told.start() + told.end(answered("Fine"), (Rest(2, (ReasoningDelta(text="hm"), TextDelta(text="Fine"))),))
    )
    assert message.tool("c1")["output"] == {"t": 5}
    assert [part["type"] for part in message.parts] == [
        "step-start",
        "tool-get_weather",
        "step-start",
        "reasoning",
        "text",
    ]


def test_a_call_without_a_result_when_the_frames_broke_off_has_one_at_the_end() -> None:
    told = encoder()
    data = told.start() + told.delta(Place(1, 1, 1), (CALL,))
    message = UiMessage().read(data + told.end(answered(""), ()))
    assert message.tool("c1")["output"] == {"t": 5}


def test_an_empty_answer_is_a_step_without_anything() -> None:
    told = encoder()
    assert types_of(told.start() + told.end(ended(""), ())) == ["start", "start-step", "finish-step", "finish", "done"]


@pytest.mark.requirement("run-chat:finish-reasons")
@pytest.mark.parametrize(
    ("finish", "shown"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "content-filter"), ("tool_calls", "tool-calls")],
)
def test_finish_reasons_are_those_of_the_sdk(finish: str, shown: str) -> None:
    told = encoder()
    assert UiMessage().read(told.start() + told.end(ended("", finish=finish), ())).finishes == [shown]


def test_an_answer_that_could_not_be_stored_says_so() -> None:
    told = encoder()
    assert UiMessage().read(told.start() + told.end(ended("a", stored=False), ())).metadata["stored"] is False


def test_without_a_conversation_none_is_named() -> None:
    assert events_of(encoder(conversation=None).start())[0]["messageMetadata"] == {"executionId": TURN}


@pytest.mark.requirement("run-chat:failure-closes-what-is-open")
def test_a_failure_closes_what_is_open_and_then_says_so() -> None:
    told = encoder()
    data = told.start() + told.delta(Place(1, 1, 1), (TextDelta(text="a"), CALL, ReasoningDelta(text="b")))
    data += told.error(Place(1, 1, 2), CUT, "req_2")
    message = UiMessage().read(data)
    assert message.errors == ["It broke off"]
    assert message.finishes == []
    assert message.tool("c1")["state"] == "output-error"
    assert types_of(data)[-3:] == ["finish-step", "error", "done"]
    assert events_of(data)[-2] == {
        "type": "error",
        "errorText": "It broke off",
        "code": "upstream.cut",
        "requestId": "req_2",
    }


def test_a_failure_before_anything_was_told_opens_the_message_first() -> None:
    assert types_of(encoder().error(Place(0, 0, 1), CUT, "req_2")) == ["start", "error", "done"]
    assert types_of(encoder(resumable=True).error(Place(0, 0, 1), CUT, "req_2")) == ["error", "done"]


def test_the_error_of_a_stream_that_can_be_gone_on_with_has_no_id() -> None:
    told = encoder(resumable=True)
    told.delta(Place(1, 1, 1), (TextDelta(text="a"),))
    assert b"id: " not in told.error(Place(1, 1, 2), CUT, "req_2")


def test_a_client_that_is_sent_elsewhere_goes_on_with_what_is_open() -> None:
    told = encoder(resumable=True)
    told.delta(Place(1, 1, 1), (TextDelta(text="a"),))
    draining = ErrorInfo(code=ErrorCode.DRAINING, message="Elsewhere")
    assert types_of(told.error(Place(1, 1, 2), draining, "req_2")) == ["error", "done"]


@pytest.mark.requirement("run-chat:operations")
def test_operations_are_told_to_who_asked_for_them() -> None:
    told = encoder(tells_operations=True, resumable=True)
    data = told.start() + told.delta(Place(1, 1, 1), (CALL,))
    data += told.delta(Place(2, 1, 1), (ResultDelta(call="c1", text="a"), TextDelta(text="Fine")))
    data += told.end(answered(), ())
    operations = [event for event in events_of(data) if event["type"] == "data-operation"]
    assert [(event["data"]["type"], event["data"]["step"]) for event in operations] == [
        ("step-started", 1),
        ("tool-called", 1),
        ("tool-returned", 1),
        ("step-finished", 1),
        ("step-started", 2),
        ("step-finished", 2),
    ]
    assert operations[1]["data"] == {
        "type": "tool-called",
        "step": 1,
        "toolCallId": "c1",
        "toolName": "get_weather",
    }
    assert all(event["transient"] for event in operations)
    plain = encoder(resumable=True)
    without = plain.start() + plain.delta(Place(1, 1, 1), (CALL,))
    without += plain.delta(Place(2, 1, 1), (ResultDelta(call="c1", text="a"), TextDelta(text="Fine")))
    without += plain.end(answered(), ())
    assert [event for event in events_of(data) if event not in operations] == events_of(without)
    assert b"~0o" in data
    assert b"~0o" not in without


@pytest.mark.requirement("run-chat:after-idx")
@pytest.mark.parametrize("count", [0, 1, 3, 8, 9, 20])
def test_a_stream_can_begin_behind_any_of_its_events(count: int) -> None:
    def stream(told: Encoder) -> bytes:
        data = told.start() + told.delta(Place(1, 1, 1), (TextDelta(text="a"),))
        return data + told.delta(Place(1, 1, 2), (TextDelta(text="b"),)) + told.end(ended("ab", last=2), ())

    whole = stream(encoder())
    assert stream(encoder(skips=count)) == b"".join(block + b"\n\n" for block in whole.split(b"\n\n")[count:-1])
    assert types_of(encoder(skips=count).error(Place(1, 1, 1), CUT, "r"))[-2:] == ["error", "done"]


@pytest.mark.requirement("run-chat:after-idx")
def test_the_event_that_opens_a_stream_counts_although_it_is_encoded_behind_the_first_others() -> None:
    told, rest = encoder(), encoder(skips=2)
    items = (TextDelta(text="a"), TextDelta(text="b"))
    first, behind = told.delta(Place(1, 1, 1), items), rest.delta(Place(1, 1, 1), items)
    whole, left = told.start() + first, rest.start() + behind
    assert left == b"".join(block + b"\n\n" for block in whole.split(b"\n\n")[2:-1])


@pytest.mark.requirement("run-chat:order-of-a-call")
@pytest.mark.parametrize("begun", ["", '{"ci'])
def test_a_call_whose_pieces_were_lost_is_told_to_its_end_by_the_closing_event(begun: str) -> None:
    told = encoder()
    data = told.start() + told.delta(
        Place(1, 1, 1), (CallDelta(index=0, id="c1", name="get_weather", arguments=begun),)
    )
    wanted = ToolCall(id="c1", name="get_weather", arguments=WEATHER)
    message = UiMessage().read(data + told.end(ended("", last=4, finish="tool_calls", calls=(wanted,)), ()))
    assert (message.tool("c1")["state"], message.tool("c1")["input"]) == ("input-available", {"city": "Oslo"})


@pytest.mark.requirement("run-chat:order-of-a-call")
def test_a_newer_attempt_may_call_another_tool_in_the_place_of_a_call() -> None:
    told = encoder()
    data = told.start() + told.delta(Place(1, 1, 1), (CallDelta(index=0, id="c1", name="look", arguments='{"a":1}'),))
    data += told.delta(Place(1, 2, 1), (CALL,))
    message = UiMessage().read(data + told.end(answered(), ()))
    assert (message.tool("c1")["type"], message.tool("c1")["input"]) == ("tool-get_weather", {"city": "Oslo"})


@pytest.mark.requirement("run-chat:event-ids")
def test_what_closes_a_stream_is_the_same_whatever_was_lost_of_it() -> None:
    hold = HoldRef(id="h", expires_at_ms=0)
    held = ToolCall(id="c1", name="get_weather", arguments=WEATHER)
    closing = ended("a", last=2, outcome="held", calls=(held,), hold=hold, finish="tool_calls")
    lost, had = encoder(resumable=True), encoder(resumable=True)
    lost_data = lost.start() + lost.delta(Place(1, 1, 1), (TextDelta(text="a"),)) + lost.end(closing, ())
    had_data = had.start() + had.delta(Place(1, 1, 1), (TextDelta(text="a"), CALL)) + had.end(closing, ())
    wanted = ["tool-approval-request", "finish-step", "finish", "done"]
    for data in (lost_data, had_data):
        *blocks, _ = data.split(b"\n\n")
        found = b"\n\n".join(block for block in blocks if block.startswith(b"id: %b:1.1.4." % TURN.encode())) + b"\n\n"
        assert types_of(found) == wanted


@pytest.mark.requirement("run-chat:event-ids")
@pytest.mark.parametrize("told", range(12))
def test_whoever_comes_back_by_the_text_alone_has_the_parts_open_that_it_had(told: int) -> None:
    items = (ReasoningDelta(text="why"), TextDelta(text="a"), CALL)
    whole, again = encoder(resumable=True), encoder(resumable=True)
    *blocks, _ = (whole.start() + whole.delta(Place(1, 1, 1), items)).split(b"\n\n")
    if told >= len(blocks):
        blocks = blocks[:-1]
    had = blocks[: told + 1]
    position = positions.parse(had[-1].split(b"\n")[0].removeprefix(b"id: ").decode())[1].by_content()
    again.start()
    if position.reasoning.length:
        again.delta(Place(1, 2, 1), items[:1])
    if position.text is not None and position.text.length:
        again.delta(Place(1, 2, 2), items[1:2])
    if position.calls:
        again.delta(Place(1, 2, 3), items[2:])
    again.resume(position)
    have = [bool(position.reasoning.length), bool(position.text and position.text.length), bool(position.calls)]
    data = again.delta(Place(1, 2, 4), [item for item, is_had in zip(items, have, strict=True) if not is_had])
    data += again.end(ended("a", last=9, earlier=(), finish="tool_calls", calls=(CALL_MADE,)), ())
    events = events_of(b"".join(block + b"\n\n" for block in had) + data)
    opened = [event for event in events if event["type"].endswith(("text-start", "reasoning-start", "start-step"))]
    closed = [event for event in events if event["type"].endswith(("text-end", "reasoning-end", "finish-step"))]
    assert (len(opened), len(closed)) == (3, 3)


@pytest.mark.requirement("run-chat:whole-answer")
def test_a_whole_answer_is_a_chat_completion_that_names_its_conversation() -> None:
    closing = answered("Fine", usage=Usage(input_tokens=3, output_tokens=4))
    whole = json.loads(encoder().whole(closing))
    assert whole["object"] == "chat.completion"
    assert whole["conversationId"] == "conv"
    assert whole["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "Fine"}, "finish_reason": "stop"}
    ]
    assert whole["usage"]["total_tokens"] == 7
    assert whole["kitemesh"]["execution_id"] == TURN


def test_a_whole_answer_that_is_held_names_its_approval() -> None:
    whole = json.loads(encoder().whole(HELD))
    (choice,) = whole["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert choice["message"]["tool_calls"][0]["id"] == "c2"
    assert whole["kitemesh"]["approval_id"] == "hold-1"


ITEMS = st.one_of(
    st.builds(TextDelta, text=st.text(max_size=3)),
    st.builds(ReasoningDelta, text=st.text(max_size=3)),
    st.builds(
        CallDelta,
        index=st.integers(0, 2),
        id=st.sampled_from(["", "c0", "c1", "c2"]),
        name=st.just("refund"),
        arguments=st.sampled_from(["", "{}", '{"a":', '"b"}', '{"token":"']),
    ),
    st.builds(ResultDelta, call=st.sampled_from(["c0", "c1", "c2", "c3"]), text=st.just("r")),
)
FRAMES = st.lists(st.tuples(st.integers(1, 3), st.lists(ITEMS, min_size=1, max_size=4)), max_size=8)


@given(frames=FRAMES, fails=st.booleans(), operations=st.booleans())
def test_whatever_comes_the_order_is_one_that_clients_accept(
    frames: list[tuple[int, list[Delta]]], *, fails: bool, operations: bool
) -> None:
    def stream() -> bytes:
        told = encoder(resumable=True, tells_operations=operations)
        data = told.start()
        for n, (number, items) in enumerate(sorted(frames, key=lambda frame: frame[0]), start=1):
            data += told.delta(Place(number, 1, n), tuple(items))
        if fails:
            return data + told.error(Place(3, 1, 99), CUT, "req")
        return data + told.end(answered("", number=3), ())

    data = stream()
    UiMessage().read(data)
    assert stream() == data
