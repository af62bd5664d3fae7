"""What the scripted model says: a fixed reply, or what the last user message prescribes. Pure.

Each line of that message that reads like one of `LANGUAGE` is an instruction; any other text is ignored then.
"""

import re
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Final, NamedTuple

from kitemesh_contracts.content import (
    AssistantMessage,
    FinishReason,
    Message,
    SystemMessage,
    ToolMessage,
    UserMessage,
    user_text,
)
from kitemesh_contracts.deltas import Delta, ReasoningDelta, TextDelta
from kitemesh_contracts.errors import ErrorCode
from kitemesh_model_runner.provider import SENTENCES

LANGUAGE: Final = """\
@tokens N              answer N words
@echo TEXT             answer TEXT
@roles                 answer the roles of the messages that the model was given
@reason N              think N words first
@delay_ms X            pause X ms before each word
@first_ms X            pause X ms before the first word
@finish REASON         stop, length or content_filter
@fail CODE [after N]   fail with an upstream.* code, after N words
@hang [after N]        say nothing more, after N words
"""

MAX_TOKENS: Final = 100_000
MAX_PAUSE_MS: Final = 60_000.0

_MS: Final = 1000.0
_INSTRUCTION: Final = re.compile(r"^@(\w+)[ \t]*(.*?)[ \t\r]*$", re.MULTILINE)
_TOKEN: Final = re.compile(r"\s*\S+\s*")

_WORDS: Final[tuple[Delta, ...]] = tuple(
    TextDelta(text=word + " ")
    for word in ("alfa", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo")
)
_THOUGHT: Final = ReasoningDelta(text="hm ")


class Script(NamedTuple):
    """What to do.

    Attributes:
        deltas: What is said, word by word.
        delay_s: Pause before each word; `None` leaves it to the catalog.
        first_s: Pause before the first one, besides.
        stop_after: Words that are said before `error` is raised or, without one, silence falls; `None` says all.

    """

    deltas: tuple[Delta, ...]
    delay_s: float | None = None
    first_s: float = 0.0
    finish: FinishReason = "stop"
    stop_after: int | None = None
    error: ErrorCode | None = None


def write(messages: Sequence[Message]) -> Script:
    """Write the script for a prompt; the same prompt, the same script."""
    users = [message for message in messages if isinstance(message, UserMessage)]
    script = Script(())
    thoughts: tuple[Delta, ...] = ()
    said: tuple[Delta, ...] = ()
    for word, rest in _INSTRUCTION.findall(user_text(users[-1])) if users else ():
        match word, rest.split():
            case "tokens", [n] if _is_number(n):
                said += tuple(islice(cycle(_WORDS), _count(n)))
            case "echo", [_, *_]:
                said += _spell(rest)
            case "roles", []:
                said += _spell(" ".join(map(_role, messages)))
            case "reason", [n] if _is_number(n):
                thoughts = (_THOUGHT,) * _count(n)
            case "delay_ms", [x] if _is_number(x):
                script = script._replace(delay_s=_pause_s(x))
            case "first_ms", [x] if _is_number(x):
                script = script._replace(first_s=_pause_s(x))
            case "finish", ["stop" | "length" | "content_filter" as reason]:
                script = script._replace(finish=reason)
            case "fail", [code, *after] if code in SENTENCES and _is_after(after):
                script = script._replace(error=ErrorCode(code), stop_after=_count(after[-1]) if after else 0)
            case "hang", after if _is_after(after):
                script = script._replace(error=None, stop_after=_count(after[-1]) if after else 0)
            case _:
                pass
    return script._replace(deltas=thoughts + (said or _spell(reply(messages))))


def reply(messages: Sequence[Message]) -> str:
    """Say something friendly that quotes nobody."""
    turns = sum(isinstance(message, UserMessage) for message in messages)
    return (
        "Hello! This is the scripted model that comes with kitemesh. It runs inside the model-runner, needs no key "
        "and no network, and answers the same prompt with the same words. "
        f"You have said {turns} thing{'' if turns == 1 else 's'} in this conversation so far. "
        "To talk to a real model, set OPENAI_API_KEY (and OPENAI_BASE_URL for an endpoint of your own) and start "
        "again, or add a provider of kind openai to the catalog."
    )


def count_words(messages: Sequence[Message]) -> int:
    """Count the words of a prompt."""
    return sum(
        len((user_text(message) if isinstance(message, UserMessage) else message.text).split()) for message in messages
    )


def _spell(text: str) -> tuple[Delta, ...]:
    return tuple(TextDelta(text=token) for token in _TOKEN.findall(text))


def _role(message: Message) -> str:
    match message:
        case SystemMessage():
            return "system"
        case UserMessage():
            return "user"
        case AssistantMessage():
            return "assistant"
        case ToolMessage():
            return "tool"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _is_after(words: list[str]) -> bool:
    return not words or (len(words) == 2 and words[0] == "after" and _is_number(words[1]))  # noqa: PLR2004  after N


def _count(text: str) -> int:
    return min(int(text[:9]), MAX_TOKENS)


def _pause_s(text: str) -> float:
    return min(float(text[:9]), MAX_PAUSE_MS) / _MS
