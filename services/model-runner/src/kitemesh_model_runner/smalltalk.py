"""What the scripted model says and calls when no instruction prescribes it. Pure.

It understands two wishes, so that a newcomer's own words start a tool; everything else gets the same friendly reply.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from kitemesh_contracts.content import Message, ToolSpec, UserMessage, files_of

RESULT_MAX_CHARACTERS: Final = 500

_WEATHER: Final = re.compile(r"\bweather in (.+)", re.IGNORECASE)
_DELETE: Final = re.compile(r"\bdelete record #?([\w-]+)", re.IGNORECASE)
_ENDS: Final = ".,;:!?"


class Wish(NamedTuple):
    """A call, as it is to be made.

    Attributes:
        arguments: JSON text, malformed or not.

    """

    name: str
    arguments: str


def wishes(text: str, tools: Sequence[ToolSpec]) -> tuple[Wish, ...]:
    """Find what a text asks of `get_weather` and `delete_record`, each by its first parameter, in the tools' order."""
    found = []
    for tool in tools:
        wanted = _wanted(tool.name, text)
        parameter = _first_parameter(tool) if wanted else None
        if parameter is not None:
            found.append(Wish(tool.name, msgspec.json.encode({parameter: wanted}).decode()))
    return tuple(found)


def came_back(results: Sequence[tuple[str, str]]) -> str:
    """Say what came of calls, given the name and the result of each."""
    return "Here is what came back:" + "".join(f"\n- {name}: {_cut(text)}" for name, text in results)


def reply(messages: Sequence[Message]) -> str:
    """Say something friendly that quotes nobody."""
    turns = sum(isinstance(message, UserMessage) for message in messages)
    return (
        "Hello! This is the scripted model that comes with kitemesh. It runs inside the model-runner, needs no key "
        "and no network, and answers the same prompt with the same words. "
        f"You have said {turns} thing{'' if turns == 1 else 's'} in this conversation so far. "
        f"{_seen(messages)}"
        "To talk to a real model, set OPENAI_API_KEY (and OPENAI_BASE_URL for an endpoint of your own) and start "
        "again, or add a provider of kind openai to the catalog."
    )


def _seen(messages: Sequence[Message]) -> str:
    count = sum(len(files_of(message)) for message in messages if isinstance(message, UserMessage))
    return f"You have shown me {count} file{'' if count == 1 else 's'}. " if count else ""


def _wanted(tool: str, text: str) -> str | None:
    if tool == "get_weather" and (found := _WEATHER.search(text)):
        return _place(found[1])
    if tool == "delete_record" and (found := _DELETE.search(text)):
        return found[1]
    return None


def _place(text: str) -> str:
    """Return the first word and the capitalised ones behind it: New York, but not Paris today."""
    words: list[str] = []
    for word in text.split():
        if words and not word[0].isupper():
            break
        words.append(word.rstrip(_ENDS))
        if word[-1] in _ENDS:
            break
    return " ".join(words)


def _first_parameter(tool: ToolSpec) -> str | None:
    schema: Any = msgspec.json.decode(tool.parameters)
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return next(iter(properties), None) if isinstance(properties, dict) else None


def _cut(text: str) -> str:
    return text if len(text) <= RESULT_MAX_CHARACTERS else text[:RESULT_MAX_CHARACTERS] + "…"
