"""What `kernel2` answers: bodies as structs, so that `/openapi.json` shows what is really encoded."""

from typing import Literal

from msgspec import Struct

from kitemesh_gateway.dialects.completions_answers import UsageOut


class KernelMessage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer."""

    role: Literal["assistant"]
    content: str
    reasoning_content: str = ""


class KernelChoice(Struct, frozen=True, kw_only=True):
    """The one choice."""

    index: Literal[0]
    message: KernelMessage
    finish_reason: Literal["stop"]


class KernelCompletion(Struct, frozen=True, kw_only=True, tag_field="object", tag="chat.completion"):
    """A whole answer."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: tuple[KernelChoice]
    usage: UsageOut


class KernelRefusal(Struct, frozen=True, kw_only=True):
    """Body of every refusal, and what a stream that could not finish says under `error`.

    Attributes:
        code: The HTTP status, or what it would have been.

    """

    success: Literal[False]
    message: str
    code: int


class KernelDelta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one chunk adds."""

    role: Literal["", "assistant"] = ""
    content: str | None = None
    reasoning_content: str | None = None


class KernelChunkChoice(Struct, frozen=True, kw_only=True):
    """The one choice of a chunk; only the last one has a finish reason."""

    index: Literal[0]
    delta: KernelDelta
    finish_reason: Literal["stop"] | None


class KernelChunk(
    Struct, frozen=True, kw_only=True, tag_field="object", tag="chat.completion.chunk", omit_defaults=True
):
    """One event of a stream.

    Attributes:
        usage: In the last chunk, where `stream_options.include_usage` asks for it.
        error: Only in the last chunk of an answer that could not be finished.

    """

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: tuple[KernelChunkChoice]
    usage: UsageOut | None = None
    error: KernelRefusal | None = None
