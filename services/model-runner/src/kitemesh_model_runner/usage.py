"""Token counts for a provider that gives none: a rough estimate, four characters a token. Pure."""

from collections.abc import Sequence
from typing import Final

from kitemesh_contracts.content import Message, Usage, UserMessage, user_text

CHARACTERS_PER_TOKEN: Final = 4


def estimate(messages: Sequence[Message], *, text_characters: int, reasoning_characters: int) -> Usage:
    """Estimate what a prompt and its answer cost."""
    prompt = sum(
        len(user_text(message)) if isinstance(message, UserMessage) else len(message.text) for message in messages
    )
    reasoning = _tokens(reasoning_characters)
    return Usage(
        input_tokens=_tokens(prompt),
        output_tokens=_tokens(text_characters) + reasoning,
        reasoning_tokens=reasoning,
    )


def _tokens(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)
