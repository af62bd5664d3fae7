"""Token counts for a provider that gives none: a rough estimate. Pure."""

from collections.abc import Sequence

import msgspec

from kitemesh_contracts.content import Message, Usage
from kitemesh_runtime.prompt_sizes import tokens, total_characters


def estimate(messages: Sequence[Message], *, text_characters: int, reasoning_characters: int) -> Usage:
    """Estimate what a prompt and its answer cost."""
    reasoning = tokens(reasoning_characters)
    return Usage(
        input_tokens=tokens(total_characters(messages)),
        output_tokens=tokens(text_characters) + reasoning,
        reasoning_tokens=reasoning,
    )


def count_as_said(usage: Usage, said: int) -> Usage:
    """Count tokens as said and not as asked: of a continued answer, an endpoint finds the beginning in the prompt."""
    asked = max(0, usage.input_tokens - said)
    return msgspec.structs.replace(
        usage,
        input_tokens=asked,
        output_tokens=usage.output_tokens + said,
        cached_tokens=min(usage.cached_tokens, asked),
    )
