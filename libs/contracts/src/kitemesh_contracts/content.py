"""What is said in a conversation: messages, their parts, tool calls and token counts.

Canonical and free of any dialect: every HTTP shape is parsed into these and rendered from them.
"""

from typing import Literal

from msgspec import Struct


class TextPart(Struct, frozen=True, kw_only=True, tag="text", omit_defaults=True):
    """Plain text in a user's message."""

    text: str


Part = TextPart
"""One piece of a user's message. Images and files become further members."""


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


class Sampling(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a model is asked to generate. `None` leaves a choice to the provider.

    Attributes:
        max_tokens: Upper bound of generated tokens.
        logit_bias: Token id (decimal text) to bias, -100 to 100.

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


def user_text(message: UserMessage) -> str:
    """Join the text of a user's message."""
    return "".join(part.text for part in message.parts)
