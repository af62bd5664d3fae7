"""Token counts for a provider that gives none: a rough estimate, four characters a token. Pure."""

from collections.abc import Sequence
from typing import Final

import msgspec

from kitemesh_contracts.content import Message, Usage, UserMessage, user_text

CHARACTERS_PER_TOKEN: Final = 4


def estimate(messages: Sequence[Message], *, text_characters: int, reasoning_characters: int) -> Usage:
    """Estimate what a prompt and its answer cost."""
    prompt = sum(
        len(user_text(message)) if isinstance(message, UserMessage) else len(message.text) for message in messages
    )
    reasoning = estimate_tokens(reasoning_characters)
    return Usage(
        input_tokens=estimate_tokens(prompt),
        output_tokens=estimate_tokens(text_characters) + reasoning,
        reasoning_tokens=reasoning,
    )


def count_as_said(usage: Usage, tokens: int) -> Usage:
    """Count tokens as said and not as asked: of a continued answer, an endpoint finds the beginning in the prompt."""
    asked = max(0, usage.input_tokens - tokens)
    return msgspec.structs.replace(
        usage,
        input_tokens=asked,
        output_tokens=usage.output_tokens + tokens,
        cached_tokens=min(usage.cached_tokens, asked),
    )


def estimate_tokens(characters: int) -> int:
    """Estimate what a text costs."""
    return -(-characters // CHARACTERS_PER_TOKEN)
