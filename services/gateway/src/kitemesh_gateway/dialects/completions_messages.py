"""The messages of `POST /v1/chat/completions`, as they are validated and as `/openapi.json` shows them.

Types are strict; unknown fields are ignored; what only a later version does is known and refused.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic.json_schema import SkipJsonSchema

from kitemesh_contracts.ids import is_id
from kitemesh_gateway.dialects.mistakes import only, wrong


class Body(BaseModel):
    """What every object of a request has in common."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


def _only_text(_: str) -> str:
    raise only("'text'")


def _check_tool_name(text: str) -> str:
    if not is_id(text):
        raise wrong("must be 1 to 64 of A-Z, a-z, 0-9, _ and -")
    return text


class TextPartIn(Body):
    """A piece of text."""

    type: Literal["text"]
    text: str


class MediaPartIn(Body):
    """A piece that is no text."""

    type: Annotated[Literal["image_url", "file", "input_audio"], AfterValidator(_only_text)]


class UnknownPartIn(Body):
    """Whatever else: its errors say what a part is."""

    type: Literal["text", "image_url", "file", "input_audio"]


def _part_tag(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return "#text"
    return "#media" if kind in ("image_url", "file", "input_audio") else "#unknown"


PartIn = Annotated[
    Annotated[TextPartIn, Tag("#text")]
    | Annotated[SkipJsonSchema[MediaPartIn], Tag("#media")]
    | Annotated[SkipJsonSchema[UnknownPartIn], Tag("#unknown")],
    Discriminator(_part_tag),
]


def content_tag(value: Any) -> str | None:
    """Tell a string from an array; `None` for anything else."""
    if isinstance(value, str):
        return "#string"
    return "#parts" if isinstance(value, list) else None


ContentIn = Annotated[
    Annotated[str, Tag("#string")] | Annotated[list[PartIn], Field(min_length=1), Tag("#parts")],
    Discriminator(
        content_tag,
        custom_error_type="wrong",
        custom_error_message="must be a string or an array of parts",
    ),
]


ToolName = Annotated[
    str, AfterValidator(_check_tool_name), Field(json_schema_extra={"pattern": "^[A-Za-z0-9_-]{1,64}$"})
]
CallId = Annotated[str, Field(min_length=1, max_length=256)]


class SystemIn(Body):
    """An instruction; appended to the agent's own prompt."""

    role: Literal["system", "developer"]
    content: ContentIn


class UserIn(Body):
    """What the user says."""

    role: Literal["user"]
    content: ContentIn


class CalledFunctionIn(Body):
    """A function and its arguments as the model wrote them."""

    name: ToolName
    arguments: str


class CallIn(Body):
    """A call of one of the caller's tools."""

    id: CallId
    type: Literal["function"]
    function: CalledFunctionIn


class AssistantIn(Body):
    """What the model said earlier; `content` may be null beside tool calls."""

    role: Literal["assistant"]
    content: ContentIn | None = None
    tool_calls: list[CallIn] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "AssistantIn":
        if self.content is None and not self.tool_calls:
            raise wrong("needs content or tool_calls")
        return self


class ToolIn(Body):
    """What came of a call of one of the caller's tools."""

    role: Literal["tool"]
    tool_call_id: CallId
    content: ContentIn


class UnknownIn(Body):
    """Whatever else: its errors say what a message is."""

    role: Literal["system", "developer", "user", "assistant", "tool"]


def _message_tag(value: Any) -> str:
    role = value.get("role") if isinstance(value, dict) else None
    if role in ("user", "assistant", "system", "tool"):
        return f"#{role}"
    return "#system" if role == "developer" else "#unknown"


MessageIn = Annotated[
    Annotated[SystemIn, Tag("#system")]
    | Annotated[UserIn, Tag("#user")]
    | Annotated[AssistantIn, Tag("#assistant")]
    | Annotated[ToolIn, Tag("#tool")]
    | Annotated[SkipJsonSchema[UnknownIn], Tag("#unknown")],
    Discriminator(_message_tag),
]


def texts_of(content: ContentIn) -> list[str]:
    """Return the texts of a message's content, in order."""
    if isinstance(content, str):
        return [content]
    return [part.text for part in content if isinstance(part, TextPartIn)]
