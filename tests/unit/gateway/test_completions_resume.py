import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kitemesh_contracts.errors import ErrorCode
from kitemesh_gateway.dialects.base import Mistakes
from kitemesh_gateway.dialects.completions_resume import ResumeRequest, Resumption, parse_resumption

GROUP = "group:123e4567-e89b-12d3-a456-426614174000"
APPROVAL = "86dd028d-6f5c-4f13-83db-d4fe9bc5b865"
CALL = "1fb2fd25-8f78-412a-a0b8-7976e3700fc4"
OTHER = "2fb2fd25-8f78-412a-a0b8-7976e3700fc4"
OK: dict[str, Any] = {"model": GROUP, "approval_id": APPROVAL, "approved_tool_execution_ids": [CALL]}


@pytest.mark.requirement("completions:seeds-examples")
def test_the_seeds_request_is_understood() -> None:
    assert parse_resumption({**OK, "messages": [{"role": "user", "content": "You can continue."}]}) == Resumption(
        model=GROUP,
        approval=APPROVAL,
        approved=frozenset({CALL}),
        denied={},
        texts=("You can continue.",),
        stream=False,
        include_usage=False,
    )


def test_every_field_is_carried_and_ids_are_read_in_either_case() -> None:
    resumption = parse_resumption(
        {
            "model": "m",
            "approval_id": APPROVAL.upper(),
            "approved_tool_execution_ids": [CALL.upper(), CALL],
            "denied_tools": [{"tool_execution_id": OTHER, "reason": "No."}, {"tool_execution_id": "x"}],
            "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "unknown": {"is": "ignored"},
        },
    )
    assert resumption == Resumption(
        model="m",
        approval=APPROVAL,
        approved=frozenset({CALL}),
        denied={OTHER: "No.", "x": ""},
        texts=("ab",),
        stream=True,
        include_usage=True,
    )


def test_nothing_needs_to_be_approved() -> None:
    assert parse_resumption({**OK, "approved_tool_execution_ids": []}).approved == frozenset()


def test_null_is_the_same_as_absent() -> None:
    fields = set(ResumeRequest.model_fields) - set(OK)
    assert parse_resumption({**OK, **dict.fromkeys(fields)}) == parse_resumption(OK)


MISTAKES: list[tuple[object, str | None, str]] = [
    ([], None, "The body must be a JSON object"),
    (
        {},
        "model",
        "model: is required; approval_id: is required; approved_tool_execution_ids: is required",
    ),
    ({**OK, "approval_id": "h-1"}, "approval_id", "approval_id: must be a UUID"),
    ({**OK, "approval_id": APPROVAL + "\n"}, "approval_id", "approval_id: must be a UUID"),
    (
        {**OK, "approval_id": 5, "model": "group:x", "stream": "yes"},
        "model",
        "model: group: must be followed by a UUID; approval_id: must be a string; stream: must be true or false",
    ),
    (
        {**OK, "approved_tool_execution_ids": "all"},
        "approved_tool_execution_ids",
        "approved_tool_execution_ids: must be an array",
    ),
    (
        {**OK, "approved_tool_execution_ids": [CALL, "", 5, "x" * 65]},
        "approved_tool_execution_ids.1",
        (
            "approved_tool_execution_ids.1: must have at least 1 character(s); "
            "approved_tool_execution_ids.2: must be a string; "
            "approved_tool_execution_ids.3: must have at most 64 character(s)"
        ),
    ),
    (
        {**OK, "denied_tools": [{"tool_execution_id": CALL.upper()}]},
        "denied_tools.0.tool_execution_id",
        "denied_tools.0.tool_execution_id: is approved as well",
    ),
    (
        {**OK, "denied_tools": [{"tool_execution_id": OTHER}, {"tool_execution_id": OTHER, "reason": "x"}]},
        "denied_tools.1.tool_execution_id",
        "denied_tools.1.tool_execution_id: is denied twice",
    ),
    (
        {**OK, "denied_tools": [5, {}, {"tool_execution_id": OTHER, "reason": "x" * 2001}]},
        "denied_tools.0",
        (
            "denied_tools.0: must be an object; denied_tools.1.tool_execution_id: is required; "
            "denied_tools.2.reason: must have at most 2000 character(s)"
        ),
    ),
    (
        {**OK, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages.0.content.0.type",
        "messages.0.content.0.type: must be 'text'; messages.0.content.0.text: is required",
    ),
    (
        {**OK, "messages": [{"role": "assistant", "content": "x"}, {"role": "user", "content": None}]},
        "messages.0.role",
        "messages.0.role: must be 'user'; messages.1.content: must be a string or an array of parts",
    ),
    (
        {**OK, "stream_options": {"include_usage": True}},
        "stream_options",
        "stream_options: is only allowed with stream",
    ),
]


@pytest.mark.requirement("http:all-mistakes-at-once", "resume:answers-are-checked")
@pytest.mark.parametrize(("body", "param", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_every_mistake_is_named_at_once(body: object, param: str | None, message: str) -> None:
    with pytest.raises(Mistakes) as refused:
        parse_resumption(body)
    assert (refused.value.code, refused.value.param, refused.value.message) == (
        ErrorCode.REQUEST_INVALID,
        param,
        message,
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8) | st.just(APPROVAL),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from([*ResumeRequest.model_fields]), JSON, max_size=6) | JSON)
def test_no_json_whatever_raises_anything_but_a_refusal(body: object) -> None:
    with contextlib.suppress(Mistakes):
        assert parse_resumption(body).approval == APPROVAL
