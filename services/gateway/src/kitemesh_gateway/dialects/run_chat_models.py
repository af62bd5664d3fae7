"""The body of `POST /run/api/chat`, as it is validated and as `/openapi.json` shows it.

Clients send their whole history again: of the messages that are not new only the shape is looked at.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from kitemesh_contracts.ids import is_id
from kitemesh_gateway.dialects.completions_messages import Body
from kitemesh_gateway.dialects.completions_models import Tokens
from kitemesh_gateway.dialects.mistakes import wrong

ID_PATTERN: Final = "^[A-Za-z0-9_-]+$"
ID_CHARS: Final = 64

_PART: Final = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": {
            "type": "string",
            "description": "`text`, `file`, `tool-<name>` or `dynamic-tool`; parts of any other type are ignored.",
        },
        "text": {"type": "string", "description": "Of a `text`."},
        "url": {
            "type": "string",
            "description": "Of a `file`: an https address of a public host, or a data URI. Images and PDFs have at "
            "most 10 MiB, texts 256 KiB.",
        },
        "mediaType": {"type": "string", "description": "Of a `file`."},
        "filename": {"type": "string", "maxLength": 255, "description": "Of a `file`."},
        "toolCallId": {"type": "string", "description": "Of a tool's part: the execution id."},
        "state": {"type": "string", "description": "Of a tool's part; `approval-responded` is an answer."},
        "approval": {
            "type": "object",
            "description": "Of a tool's part that is an answer.",
            "properties": {
                "id": {"type": "string"},
                "approved": {"type": "boolean", "description": "Without it the call is denied."},
                "reason": {"type": "string", "maxLength": 2000, "description": "Told to the model."},
            },
        },
    },
}


def check_id(text: str) -> str:
    """Refuse what is no id."""
    if not is_id(text):
        raise wrong("must be 1 to 64 of A-Z, a-z, 0-9, _ and -")
    return text


def _content(value: Any) -> Any:
    if value is None or isinstance(value, str) or (isinstance(value, list) and all(map(_is_object, value))):
        return value
    raise wrong("must be a string or an array of parts")


def _parts(value: Any) -> Any:
    if value is None or (isinstance(value, list) and all(map(_is_object, value))):
        return value
    raise wrong("must be an array of parts")


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


IdIn = Annotated[
    str,
    AfterValidator(check_id),
    Field(json_schema_extra={"pattern": ID_PATTERN, "minLength": 1, "maxLength": ID_CHARS}),
]
Kept = Annotated[dict[str, Any], Field(description="Kept with the turn.")]


class UiMessageIn(Body):
    """A message of the conversation. Only the last one, of the user, is new."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    id: (
        Annotated[str, Field(description="Of the new message: its id, which must not have been used before.")] | None
    ) = None
    content: Annotated[
        Any,
        PlainValidator(_content),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": _PART}, {"type": "null"}]}),
    ] = None
    parts: Annotated[
        Any,
        PlainValidator(_parts),
        WithJsonSchema(
            {
                "anyOf": [{"type": "array", "items": _PART}, {"type": "null"}],
                "description": "They count more than `content`.",
            }
        ),
    ] = None


class RunChatRequest(Body):
    """A chat request. Fields that are not listed are ignored."""

    messages: Annotated[list[UiMessageIn], Field(min_length=1)]
    id: Annotated[str, Field(description="The conversation, where `conversationId` is absent.")] | None = None
    conversationId: (  # noqa: N815  the wire's name
        Annotated[IdIn, Field(description="Goes on with this conversation, which is made if there is none.")] | None
    ) = None
    messageId: (  # noqa: N815  the wire's name
        Annotated[IdIn, Field(description="Of the new message, where that has no id of its own.")] | None
    ) = None
    trigger: (
        Annotated[str, Field(description="`regenerate-message`: the last message of the user is answered once more.")]
        | None
    ) = None
    executionMode: (  # noqa: N815  the wire's name
        Annotated[
            Literal["classic", "durable"],
            Field(description="Wins over the agent's own; `classic` where neither says anything."),
        ]
        | None
    ) = None
    stream: Annotated[bool, Field(description="`true` without it.")] | None = None
    max_tokens: Tokens | None = None
    headers: (
        Annotated[dict[str, Any], Field(description="For the places of the agent's prompt, as its schema wants them.")]
        | None
    ) = None
    userProperties: Kept | None = None  # noqa: N815  the wire's name
    properties: Kept | None = None
    runConfig: Kept | None = None  # noqa: N815  the wire's name
