"""How large a prompt is, where nobody has counted: characters, and four of them for a token. Pure.

A file counts as much as a picture costs with usual models; what is in it is not known here.
"""

from collections.abc import Iterable
from typing import Final

from kitemesh_contracts.content import (
    AssistantMessage,
    Message,
    SystemMessage,
    ToolMessage,
    UserMessage,
    files_of,
    user_text,
)

CHARACTERS_PER_TOKEN: Final = 4
FILE_CHARACTERS: Final = 4_000


def characters_of(message: Message) -> int:
    """Return the characters that a message counts as."""
    match message:
        case UserMessage():
            return len(user_text(message)) + FILE_CHARACTERS * len(files_of(message))
        case AssistantMessage():
            return len(message.text) + sum(len(call.arguments) for call in message.calls)
        case SystemMessage() | ToolMessage():
            return len(message.text)


def total_characters(messages: Iterable[Message]) -> int:
    """Return the characters that messages count as."""
    return sum(map(characters_of, messages))


def tokens(characters: int) -> int:
    """Estimate what a text costs."""
    return -(-characters // CHARACTERS_PER_TOKEN)
