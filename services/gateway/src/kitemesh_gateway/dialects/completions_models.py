"""The body of `POST /v1/chat/completions`, as it is validated and as `/openapi.json` shows it.

Types are strict; unknown fields are ignored. What the chosen model cannot do is refused later, by the catalog.
"""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag
from pydantic.json_schema import SkipJsonSchema

from kitemesh_contracts.commands import Priority
from kitemesh_contracts.ids import is_id
from kitemesh_gateway.dialects.base import WantedMode
from kitemesh_gateway.dialects.completions_messages import Body, MessageIn, ToolName, content_tag
from kitemesh_gateway.dialects.mistakes import wrong
from kitemesh_gateway.wishes import MAX_WAIT_S

MAX_USED_MESSAGES: Final = 256
MAX_TOOLS: Final = 64
MAX_METADATA_BYTES: Final = 16 * 1024
"""As JSON, of the keys that mean nothing here and are kept."""
_TOKENS_MAX: Final = 2**31 - 1
_TOKEN_ID_DIGITS: Final = 10
_UUID: Final = re.compile(r"\A[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\Z", re.IGNORECASE)


def _check_model(model: str) -> str:
    if model.startswith("group:") and not _UUID.match(model.removeprefix("group:")):
        raise wrong("group: must be followed by a UUID")
    return model


def _check_id(text: str) -> str:
    if not is_id(text):
        raise wrong("must be an id: 1 to 64 of A-Z, a-z, 0-9, _ and -")
    return text


def _check_token_id(text: str) -> str:
    if not (text.isascii() and text.isdigit() and len(text) <= _TOKEN_ID_DIGITS):
        raise wrong("must name a token by its decimal id")
    return text


class MetadataIn(Body):
    """What this server understands of the request's metadata; other keys are kept with the turn."""

    model_config = ConfigDict(extra="allow")

    request_id: Annotated[str, Field(max_length=255, description="Echoed in kitemesh.request_id.")] | None = None
    mode: (
        Annotated[
            WantedMode,
            Field(description="`auto`: as the agent says. `durable`: the turn survives its client and every process."),
        ]
        | None
    ) = None
    priority: (
        Annotated[
            Priority,
            Field(description="`batch`: behind interactive turns. A key that is for batches has no other."),
        ]
        | None
    ) = None
    max_wait_s: (
        Annotated[
            float,
            Field(gt=0, le=MAX_WAIT_S, description="Refused (`queue_full`) if its model cannot be called by then."),
        ]
        | None
    ) = None
    conversation_id: (
        Annotated[
            str,
            AfterValidator(_check_id),
            Field(
                description="Continues a stored conversation.", json_schema_extra={"pattern": "^[A-Za-z0-9_-]{1,64}$"}
            ),
        ]
        | None
    ) = None


FormatName = Annotated[str, AfterValidator(_check_id), Field(json_schema_extra={"pattern": "^[A-Za-z0-9_-]{1,64}$"})]


class StreamOptionsIn(Body):
    """How a stream ends."""

    include_usage: bool | None = None


class TextFormatIn(Body):
    """Text, as without it."""

    type: Literal["text"]


class ObjectFormatIn(Body):
    """A JSON object."""

    type: Literal["json_object"]


class JsonSchemaIn(Body):
    """The schema that the answer must satisfy."""

    name: FormatName
    description: Annotated[str, Field(max_length=4096)] | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema", description="JSON Schema of the answer.")] = None
    strict: bool | None = None


class SchemaFormatIn(Body):
    """JSON that satisfies a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchemaIn


class UnknownFormatIn(Body):
    """Whatever else: its errors say what a form is."""

    type: Literal["text", "json_object", "json_schema"]


_FORMAT_TAGS: Final = {"text": "#text", "json_object": "#object", "json_schema": "#schema"}


def _format_tag(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    return _FORMAT_TAGS.get(kind, "#unknown") if isinstance(kind, str) else "#unknown"


ResponseFormatIn = Annotated[
    Annotated[TextFormatIn, Tag("#text")]
    | Annotated[ObjectFormatIn, Tag("#object")]
    | Annotated[SchemaFormatIn, Tag("#schema")]
    | Annotated[SkipJsonSchema[UnknownFormatIn], Tag("#unknown")],
    Discriminator(_format_tag),
]


class FunctionIn(Body):
    """What a model is told of a tool."""

    name: ToolName
    description: str | None = None
    parameters: Annotated[dict[str, Any], Field(description="JSON Schema of the arguments.")] | None = None
    strict: Annotated[bool, Field(description="The model must keep to the schema.")] | None = None


class ToolDefinitionIn(Body):
    """One of the caller's own tools: its calls are returned to the caller, never run here."""

    type: Literal["function"]
    function: FunctionIn


class ChosenFunctionIn(Body):
    """The one to call."""

    name: ToolName


class ChosenToolIn(Body):
    """A tool that must be called."""

    type: Literal["function"]
    function: ChosenFunctionIn


def _choice_tag(value: Any) -> str | None:
    if isinstance(value, str):
        return "#word"
    return "#tool" if isinstance(value, dict) else None


ToolChoiceIn = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("#word")] | Annotated[ChosenToolIn, Tag("#tool")],
    Discriminator(
        _choice_tag,
        custom_error_type="wrong",
        custom_error_message="must be a string or an object that names a function",
    ),
]

Penalty = Annotated[float, Field(ge=-2, le=2)]
Tokens = Annotated[int, Field(ge=1, le=_TOKENS_MAX)]
StopText = Annotated[str, Field(min_length=1, max_length=256)]


StopIn = Annotated[
    Annotated[StopText, Tag("#string")] | Annotated[list[StopText], Field(max_length=4), Tag("#parts")],
    Discriminator(
        content_tag,
        custom_error_type="wrong",
        custom_error_message="must be a string or an array of strings",
    ),
]


ModelIn = Annotated[
    str,
    Field(min_length=1, max_length=256, description="`group:<uuid>`, `agent:<id>` or a model id."),
    AfterValidator(_check_model),
]


class ChatRequest(Body):
    """A chat completion request. Fields that are not listed are ignored."""

    model: ModelIn
    messages: Annotated[list[MessageIn], Field(min_length=1, description="At least one of them from the user.")]
    stream: bool | None = None
    stream_options: StreamOptionsIn | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Annotated[Tokens, Field(description="Wins over `max_tokens`.")] | None = None
    stop: StopIn | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: (
        Annotated[
            int,
            Field(
                ge=1,
                le=4,
                description="Above 1 only in a classic turn and where no tools run here. The first choice is streamed, "
                "the others come whole at the end.",
            ),
        ]
        | None
    ) = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: (
        dict[Annotated[str, AfterValidator(_check_token_id)], Annotated[float, Field(ge=-100, le=100)]] | None
    ) = None
    logprobs: (
        Annotated[bool, Field(description="`true` only in a classic turn and where no tools run here.")] | None
    ) = None
    top_logprobs: Annotated[int, Field(ge=0, le=20, description="Only with `logprobs`.")] | None = None
    response_format: ResponseFormatIn | None = None
    tools: (
        Annotated[
            list[ToolDefinitionIn],
            Field(max_length=MAX_TOOLS, description="The caller's own, beside those of the agent, which run here."),
        ]
        | None
    ) = None
    tool_choice: ToolChoiceIn | None = None
    parallel_tool_calls: Annotated[bool, Field(description="`false`: one call a step at the most.")] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    user: Annotated[str, Field(max_length=256)] | None = None
    metadata: MetadataIn | None = None
    store: Annotated[bool, Field(description="`false`: no conversation is kept.")] | None = None
