"""What is said in a conversation: messages, their parts, tools, tool calls and token counts.

Canonical and free of any dialect: every HTTP shape is parsed into these and rendered from them.
"""

from typing import Final, Literal

from msgspec import Raw, Struct

from kitemesh_contracts.errors import ErrorInfo


class TextPart(Struct, frozen=True, kw_only=True, tag="text", omit_defaults=True):
    """Plain text in a user's message."""

    text: str


class FilePart(Struct, frozen=True, kw_only=True, tag="file", omit_defaults=True):
    """An image or a document in a user's message: either `blob` or `url`.

    Attributes:
        media_type: Such as `image/png`; never empty for a blob, empty for an address that does not say.
        blob: Where its bytes are, in the tenant's blobs.
        url: An https address. Only the provider ever reads it.
        size: Of the blob, in bytes.
        detail: How closely an image is to be looked at; empty leaves it to the provider.

    """

    media_type: str
    name: str = ""
    blob: str | None = None
    url: str | None = None
    size: int = 0
    detail: str = ""


Part = TextPart | FilePart
"""One piece of a user's message."""


class ToolCall(Struct, frozen=True, kw_only=True):
    """A model's wish to call a tool; it has no authority.

    Attributes:
        id: The tool execution id.
        name: As the model wrote it.
        arguments: The JSON text as the model wrote it, not validated.

    """

    id: str
    name: str
    arguments: str


class ToolSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool as a model is told of it.

    Attributes:
        parameters: JSON Schema of the arguments.
        strict: The model must keep to the schema.

    """

    name: str
    parameters: Raw
    description: str = ""
    strict: bool = False


class CallResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one tool call ended: `text`, or the blob that holds a long one, or `error`.

    Attributes:
        text: The result as the model will see it.
        blob: Where the text is when it is too large to travel.
        error: Why there is none; the model sees its message.

    """

    call: str
    text: str = ""
    blob: str | None = None
    error: ErrorInfo | None = None


class SystemMessage(Struct, frozen=True, kw_only=True, tag="system", tag_field="role"):
    """An instruction."""

    text: str


class UserMessage(Struct, frozen=True, kw_only=True, tag="user", tag_field="role"):
    """What the caller said."""

    parts: tuple[Part, ...]


class AssistantMessage(Struct, frozen=True, kw_only=True, tag="assistant", tag_field="role", omit_defaults=True):
    """What a model said."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()


class ToolMessage(Struct, frozen=True, kw_only=True, tag="tool", tag_field="role"):
    """The result of the call named by `call`."""

    call: str
    text: str


Message = SystemMessage | UserMessage | AssistantMessage | ToolMessage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Token counts as the provider reported them, or as estimated when it did not.

    Attributes:
        cached_tokens: The part of `input_tokens` that the provider read from its cache.
        reasoning_tokens: The part of `output_tokens` that was reasoning.

    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class ResponseFormat(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The form that an answer must have.

    Attributes:
        schema: JSON Schema of a `json_schema`; `null` leaves the form of the JSON open.

    """

    kind: Literal["json_object", "json_schema"]
    name: str = ""
    description: str = ""
    schema: Raw = Raw(b"null")
    strict: bool | None = None


class TopLogprob(Struct, frozen=True, kw_only=True):
    """A token that could have stood in a place, and how likely it was."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None


class Logprob(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A token of an answer, how likely it was, and what else could have stood there."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top: tuple[TopLogprob, ...] = ()


class Alternative(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A further choice of one model call, beside the first.

    Attributes:
        index: From 1; the first choice is the step's own text.

    """

    index: int
    finish: FinishReason
    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[Logprob, ...] = ()


class Sampling(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a model is asked to generate. `None` leaves a choice to the provider.

    Attributes:
        max_tokens: Upper bound of generated tokens.
        logit_bias: Token id (decimal text) to bias, -100 to 100.
        choices: How many answers; above 1 only for a classic turn without tools that run here.
        logprobs: How likely each token was is told, and `top_logprobs` that many others for its place.

    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    reasoning_effort: str | None = None
    user: str | None = None
    choices: int = 1
    logprobs: bool = False
    top_logprobs: int | None = None
    response_format: ResponseFormat | None = None


class Step(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model call of a turn and what came of it.

    Attributes:
        attempt: Whose answer counts.
        last: Number of the last frame published for that attempt.
        calls: What the model asked for, in its order, the caller's own tools included.
        results: Of the calls that ran here or were refused; a caller's own have none.
        texts: What the caller added behind the results, when it answered a hold.

    """

    step: int
    attempt: int = 0
    last: int = 0
    model: str = ""
    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    results: tuple[CallResult, ...] = ()
    texts: tuple[str, ...] = ()


TOOL_CHOICES: Final = ("auto", "none", "required")
"""How a model may be told to use its tools; any other choice is `tool:` and the one that it must call."""


def user_text(message: UserMessage) -> str:
    """Join the text of a user's message."""
    return "".join(part.text for part in message.parts if isinstance(part, TextPart))


def files_of(message: UserMessage) -> tuple[FilePart, ...]:
    """Return the files of a user's message."""
    return tuple(part for part in message.parts if isinstance(part, FilePart))
