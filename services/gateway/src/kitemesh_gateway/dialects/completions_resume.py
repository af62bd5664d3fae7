"""The body of `POST /v1/chat/resume`: as it is validated, as `/openapi.json` shows it, and what it asks for. Pure."""

import re
from typing import Annotated, Any, Final

from msgspec import Struct
from pydantic import AfterValidator, Field, ValidationError

from kitemesh_gateway.dialects.base import Mistake, Mistakes
from kitemesh_gateway.dialects.completions_messages import Body, UserTextIn, text_of
from kitemesh_gateway.dialects.completions_models import ModelIn, StreamOptionsIn
from kitemesh_gateway.dialects.completions_rules import stream_mistakes
from kitemesh_gateway.dialects.mistakes import mistakes_of, wrong

MAX_CALLS: Final = 64
MAX_MESSAGES: Final = 16
MAX_REASON_CHARS: Final = 2000
_UUID: Final = re.compile(r"\A[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\Z", re.IGNORECASE)


def _check_uuid(text: str) -> str:
    if not _UUID.match(text):
        raise wrong("must be a UUID")
    return text.lower()


ExecutionId = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(str.lower)]


class DeniedIn(Body):
    """A call that must not run."""

    tool_execution_id: ExecutionId
    reason: Annotated[str, Field(max_length=MAX_REASON_CHARS, description="Told to the model.")] | None = None


class ResumeRequest(Body):
    """The answer to an approval: every call of it that is not approved is denied."""

    model: ModelIn
    approval_id: Annotated[
        str,
        AfterValidator(_check_uuid),
        Field(description="`kitemesh.approval_id` of the held answer.", json_schema_extra={"format": "uuid"}),
    ]
    approved_tool_execution_ids: Annotated[
        list[ExecutionId],
        Field(max_length=MAX_CALLS, description="Ids of its `tool_calls`; they run exactly as they were held."),
    ]
    denied_tools: Annotated[list[DeniedIn], Field(max_length=MAX_CALLS)] | None = None
    messages: (
        Annotated[
            list[UserTextIn],
            Field(max_length=MAX_MESSAGES, description="Appended behind the results of the calls."),
        ]
        | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptionsIn | None = None


class Resumption(Struct, frozen=True, kw_only=True):
    """What a client answered.

    Attributes:
        approved: Execution ids.
        denied: The reason for each execution id; empty without one.
        texts: What the model is told besides.

    """

    model: str
    approval: str
    approved: frozenset[str]
    denied: dict[str, str]
    texts: tuple[str, ...]
    stream: bool
    include_usage: bool


def parse_resumption(body: object) -> Resumption:
    """Validate a decoded body.

    Raises:
        Mistakes: With everything that is wrong.

    """
    try:
        request = ResumeRequest.model_validate(body)
    except ValidationError as exc:
        raise Mistakes([*mistakes_of(exc), *_across(body)]) from exc
    mistakes = _across(body)
    if mistakes:
        raise Mistakes(mistakes)
    return Resumption(
        model=request.model,
        approval=request.approval_id,
        approved=frozenset(request.approved_tool_execution_ids),
        denied={each.tool_execution_id: each.reason or "" for each in request.denied_tools or ()},
        texts=tuple(text_of(message.content) for message in request.messages or ()),
        stream=request.stream or False,
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
    )


def _across(body: object) -> list[Mistake]:
    """Find what is wrong between fields; looks at the raw body, so that it can speak beside other mistakes."""
    if not isinstance(body, dict):
        return []
    approved = _ids(body.get("approved_tool_execution_ids"))
    seen: set[str] = set()
    mistakes: list[Mistake] = []
    denied = body.get("denied_tools")
    for index, each in enumerate(denied if isinstance(denied, list) else ()):
        for id_ in _ids([each.get("tool_execution_id")] if isinstance(each, dict) else None):
            field = f"denied_tools.{index}.tool_execution_id"
            if id_ in approved:
                mistakes.append(Mistake(field, "is approved as well"))
            if id_ in seen:
                mistakes.append(Mistake(field, "is denied twice"))
            seen.add(id_)
    return mistakes + stream_mistakes(body)


def _ids(values: Any) -> set[str]:
    return {value.lower() for value in values if isinstance(value, str)} if isinstance(values, list) else set()
