"""The body of `POST /api/kernel2/chat`, as it is validated and as `/openapi.json` shows it.

It is that of a chat completion with other defaults. What its answers have no place for is refused.
"""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field, WithJsonSchema

from kitemesh_gateway.dialects.completions_messages import Body
from kitemesh_gateway.dialects.completions_models import ChatRequest, ModelIn, Tokens, ToolDefinitionIn
from kitemesh_gateway.dialects.mistakes import wrong

TEMPERATURE: Final = 0.1
MAX_TOKENS: Final = 2000
_UUID: Final = re.compile(r"\A[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\Z", re.IGNORECASE)


def _check_uuid(text: str) -> str:
    if not _UUID.match(text):
        raise wrong("must be a UUID")
    return text.lower()


def _check_none(tools: list[ToolDefinitionIn]) -> list[ToolDefinitionIn]:
    if tools:
        raise wrong("must be empty: answers of this API have no tool calls")
    return tools


def _check_off(wanted: bool) -> bool:
    if wanted:
        raise wrong("must be false: answers of this API have none")
    return wanted


class KernelMetadataIn(Body):
    """How the request is to be processed. Other keys are ignored."""

    enable_l0_retrieval: (
        Annotated[
            bool,
            Field(description="Passages of the knowledge base that fit the last user message go with the prompt."),
        ]
        | None
    ) = None
    role_id: (
        Annotated[
            str,
            AfterValidator(_check_uuid),
            Field(
                description="A role of the catalog: its prompt takes the place of the system messages, and its own "
                "retrieval setting wins. One that is not known changes nothing and switches retrieval off.",
                json_schema_extra={"format": "uuid"},
            ),
        ]
        | None
    ) = None


class KernelRequest(ChatRequest):
    """A chat request with its whole history. Fields that are not listed are ignored."""

    # A request of this API may leave it out; whoever reads one as its parent does not ask for it.
    model: Annotated[ModelIn, Field(description="The configured default without it.")] | None = None  # type: ignore[assignment]  # see above
    metadata: KernelMetadataIn | None = None  # type: ignore[assignment]  # another object, replaced before it is read as the parent's
    stream: Annotated[bool, Field(description="`true` without it.")] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, description=f"{TEMPERATURE} without it.")] | None = None
    max_tokens: Annotated[Tokens, Field(description=f"{MAX_TOKENS} without it.")] | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    logprobs: Annotated[bool, AfterValidator(_check_off), WithJsonSchema({"const": False})] | None = None
    tools: (
        Annotated[
            list[ToolDefinitionIn],
            AfterValidator(_check_none),
            WithJsonSchema({"type": "array", "maxItems": 0}),
        ]
        | None
    ) = None
