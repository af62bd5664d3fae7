"""The messages of `POST /v1/chat/completions`, as they are validated and as `/openapi.json` shows them.

Types are strict; unknown fields are ignored; what is not done here is known and refused.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from kitemesh_contracts.content import Part, TextPart
from kitemesh_contracts.ids import is_id
from kitemesh_gateway.dialects.files import FileName, Files, ImageSource, Source, read_bytes
from kitemesh_gateway.dialects.mistakes import not_supported, wrong


class Body(BaseModel):
    """What every object of a request has in common."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


def _never(_: str) -> str:
    raise not_supported("only 'text', 'image_url' and 'file' are supported")


def _no_files(_: str) -> str:
    raise not_supported("is not supported: there are no stored files here, file_data brings the bytes")


def _check_tool_name(text: str) -> str:
    if not is_id(text):
        raise wrong("must be 1 to 64 of A-Z, a-z, 0-9, _ and -")
    return text


class TextPartIn(Body):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ImageIn(Body):
    """An image, and how closely it is to be looked at."""

    url: ImageSource
    detail: Literal["auto", "low", "high"] | None = None


class ImagePartIn(Body):
    """An image, by its address or with its bytes."""

    type: Literal["image_url"]
    image_url: ImageIn


class FileIn(Body):
    """A file with its bytes; there is no list of files here that an id could name."""

    file_data: Annotated[
        str,
        Field(
            description="A data URI, or base64 alone where `filename` says the type: an image or a PDF of at most "
            "10 MiB, or a text of at most 256 KiB.",
        ),
    ]
    filename: FileName | None = None
    file_id: Annotated[str, AfterValidator(_no_files), WithJsonSchema({"type": "null"})] | None = None
    _source: Source = PrivateAttr()

    @model_validator(mode="after")
    def _is_a_file(self) -> "FileIn":
        self._source = read_bytes(self.file_data, name=self.filename or "")
        return self

    @property
    def source(self) -> Source:
        """What was read."""
        return self._source


class FilePartIn(Body):
    """A document or an image, with its bytes."""

    type: Literal["file"]
    file: FileIn


class AudioPartIn(Body):
    """Sound, which no model here is given."""

    type: Annotated[Literal["input_audio"], AfterValidator(_never)]


class UnknownPartIn(Body):
    """Whatever else: its errors say what a part is."""

    type: Literal["text", "image_url", "file", "input_audio"]


_PART_TAGS: Final = {"text": "#text", "image_url": "#image", "file": "#file", "input_audio": "#audio"}


def _part_tag(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    return _PART_TAGS.get(kind, "#unknown") if isinstance(kind, str) else "#unknown"


PartIn = Annotated[
    Annotated[TextPartIn, Tag("#text")]
    | Annotated[ImagePartIn, Tag("#image")]
    | Annotated[FilePartIn, Tag("#file")]
    | Annotated[SkipJsonSchema[AudioPartIn], Tag("#audio")]
    | Annotated[SkipJsonSchema[UnknownPartIn], Tag("#unknown")],
    Discriminator(_part_tag),
]


def content_tag(value: Any) -> str | None:
    """Tell a string from an array; `None` for anything else."""
    if isinstance(value, str):
        return "#string"
    return "#parts" if isinstance(value, list) else None


_STRING_OR_PARTS: Final = Discriminator(
    content_tag,
    custom_error_type="wrong",
    custom_error_message="must be a string or an array of parts",
)

ContentIn = Annotated[
    Annotated[str, Tag("#string")] | Annotated[list[PartIn], Field(min_length=1), Tag("#parts")],
    _STRING_OR_PARTS,
]
TextContentIn = Annotated[
    Annotated[str, Tag("#string")] | Annotated[list[TextPartIn], Field(min_length=1), Tag("#parts")],
    _STRING_OR_PARTS,
]


ToolName = Annotated[
    str, AfterValidator(_check_tool_name), Field(json_schema_extra={"pattern": "^[A-Za-z0-9_-]{1,64}$"})
]
CallId = Annotated[str, Field(min_length=1, max_length=256)]


class SystemIn(Body):
    """An instruction; appended to the agent's own prompt."""

    role: Literal["system", "developer"]
    content: TextContentIn


class UserIn(Body):
    """What the user says."""

    role: Literal["user"]
    content: ContentIn


class UserTextIn(Body):
    """What the user says, in words alone."""

    role: Literal["user"]
    content: TextContentIn


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
    content: TextContentIn | None = None
    reasoning_content: Annotated[str, Field(description="What it thought, as an answer told it.")] | None = None
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
    content: TextContentIn


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


def text_of(content: TextContentIn | ContentIn) -> str:
    """Join the texts of a message's content, in order."""
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content if isinstance(part, TextPartIn))


def parts_of(content: ContentIn, files: Files) -> tuple[Part, ...]:
    """Return a user's parts; what came with bytes is added to the files."""
    if isinstance(content, str):
        return (TextPart(text=content),)
    return tuple(_part(part, files) for part in content)


def _part(part: PartIn, files: Files) -> Part:
    if isinstance(part, ImagePartIn):
        return files.add(part.image_url.url, detail=part.image_url.detail or "")
    if isinstance(part, FilePartIn):
        return files.add(part.file.source, name=part.file.filename or "")
    assert isinstance(part, TextPartIn)  # noqa: S101  validation lets no other pass
    return TextPart(text=part.text)
