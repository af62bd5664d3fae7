"""What the scripted model says and calls: what a user message prescribes, or small talk. Pure.

Each line of that message that reads like one of `LANGUAGE` is an instruction; any other text is ignored then.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from types import MappingProxyType
from typing import Final, NamedTuple

from kitemesh_contracts.content import (
    AssistantMessage,
    FinishReason,
    Message,
    ResponseFormat,
    SystemMessage,
    ToolMessage,
    ToolSpec,
    UserMessage,
    files_of,
    user_text,
)
from kitemesh_contracts.deltas import Delta, ReasoningDelta, TextDelta
from kitemesh_contracts.errors import ErrorCode
from kitemesh_model_runner.provider import SENTENCES
from kitemesh_model_runner.sample_json import sample
from kitemesh_model_runner.smalltalk import Wish, came_back, reply, wishes

LANGUAGE: Final = """\
@tokens N              answer N words
@count N               answer the numbers from 1 to N, one a word
@echo TEXT             answer TEXT
@roles                 answer the roles of the messages that the model was given
@files                 answer the name, type, size and SHA-256 (16 digits) or address of each file, a line each
@reason N              think N words first
@call NAME [JSON]      call a tool, offered or not, with JSON as it stands or {}; several lines call at once
@then                  what follows is for the next step, when the results of the calls are there
@delay_ms X            pause X ms before each word
@first_ms X            pause X ms before the first word
@finish REASON         stop, length or content_filter
@fail CODE [after N]   fail with an upstream.* code, after N words
@hang [after N]        say nothing more, after N words

A step for which nothing is written says what came of the calls. Without any instruction "weather in CITY" calls
get_weather and "delete record ID" calls delete_record, if they are offered, with that as their first parameter.
Where JSON is asked for and nothing else is to be said, it is JSON that fits. Of several choices each further one
begins with its number in parentheses.
"""

NO_ARGUMENTS: Final = "{}"
MAX_TOKENS: Final = 100_000
MAX_PAUSE_MS: Final = 60_000.0

_MS: Final = 1000.0
_INSTRUCTION: Final = re.compile(r"^@(\w+)(.*)$", re.MULTILINE)
_BLANKS: Final = " \t\r"
_TOKEN: Final = re.compile(r"\s*\S+\s*")

_WORDS: Final[tuple[Delta, ...]] = tuple(
    TextDelta(text=word + " ")
    for word in ("alfa", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo")
)
_THOUGHT: Final = ReasoningDelta(text="hm ")


class Script(NamedTuple):
    """What to do in one step.

    Attributes:
        deltas: What is said, word by word.
        calls: What is called after that.
        delay_s: Pause before each word; `None` leaves it to the catalog.
        first_s: Pause before the first one, besides.
        stop_after: Words that are said before `error` is raised or, without one, silence falls; `None` says all. A
            piece of a call is a word here.

    """

    deltas: tuple[Delta, ...] = ()
    calls: tuple[Wish, ...] = ()
    delay_s: float | None = None
    first_s: float = 0.0
    finish: FinishReason = "stop"
    stop_after: int | None = None
    error: ErrorCode | None = None


def write(
    messages: Sequence[Message],
    tools: Sequence[ToolSpec] = (),
    choice: str = "auto",
    files: Mapping[str, bytes] = MappingProxyType({}),
    form: ResponseFormat | None = None,
) -> Script:
    """Write the script of the next step; the same prompt and tools, the same script.

    Args:
        messages: The prompt. The newest message with instructions rules, and the steps behind it say how far it got.
        tools: What is offered.
        choice: `none` keeps plain words from starting a tool.
        files: The bytes of the blobs in the prompt.
        form: Of the answer.

    """
    scenes: list[_Scene] = []
    place = 0
    spoken = ""
    names: dict[str, str] = {}
    results: list[tuple[str, str]] = []
    for message in _exchange(messages):
        match message:
            case UserMessage():
                spoken = user_text(message)
                found = _read(spoken, messages, files)
                if found or place == 0:
                    scenes, place = found, 0
            case AssistantMessage(calls=calls) if calls:
                place += 1
                spoken, results = "", []
                names = {call.id: call.name for call in calls}
            case ToolMessage():
                results.append((names.get(message.call, "a tool"), message.text))
            case _:
                pass
    if place < len(scenes):
        script, thoughts, said = scenes[place]
    else:
        wished = wishes(spoken, tools) if spoken and not scenes and choice != "none" else ()
        script, thoughts, said = Script(calls=wished), (), ()
    if script.calls:
        finish: FinishReason = "tool_calls" if script.finish == "stop" else script.finish
        return script._replace(deltas=thoughts + said, finish=finish)
    if not said:
        words = came_back(results) if results else reply(messages)
        said = _spell(words if form is None else _json(form, words))
    return script._replace(deltas=thoughts + said)


def count_words(messages: Sequence[Message]) -> int:
    """Count the words of a prompt."""
    return sum(
        len((user_text(message) if isinstance(message, UserMessage) else message.text).split()) for message in messages
    )


class _Scene(NamedTuple):
    """What a message prescribes for one step: how, what is thought, what is said."""

    script: Script
    thoughts: tuple[Delta, ...]
    said: tuple[Delta, ...]


def _exchange(messages: Sequence[Message]) -> Sequence[Message]:
    """Return what stands behind the answer, a message without calls, that the newest user message follows."""
    asked = False
    for place in range(len(messages) - 1, -1, -1):
        message = messages[place]
        if isinstance(message, UserMessage):
            asked = True
        elif asked and isinstance(message, AssistantMessage) and not message.calls:
            return messages[place + 1 :]
    return messages


def _json(form: ResponseFormat, words: str) -> str:
    return json.dumps({"answer": words} if form.kind == "json_object" else sample(form.schema), ensure_ascii=False)


def _described(messages: Sequence[Message], files: Mapping[str, bytes]) -> str:
    """List the files of a prompt."""
    lines = []
    for message in messages:
        for part in files_of(message) if isinstance(message, UserMessage) else ():
            what = part.url or ""
            if part.blob is not None:
                data = files[part.blob]
                what = f"{len(data)} {hashlib.sha256(data).hexdigest()[:16]}"
            lines.append(f"{part.name or '-'} {part.media_type or '-'} {what}")
    return "\n".join(lines) or "none"


def _read(text: str, messages: Sequence[Message], files: Mapping[str, bytes]) -> list[_Scene]:
    """Read a message's instructions, step by step; nothing when it holds none."""
    scenes = [_Scene(Script(), (), ())]
    followed = False
    for word, tail in _INSTRUCTION.findall(text):
        rest = tail.strip(_BLANKS)
        if word == "then" and not rest:
            scenes.append(_Scene(Script(), (), ()))
            followed = True
            continue
        if word == "files" and not rest:
            scenes[-1] = scenes[-1]._replace(said=scenes[-1].said + _spell(_described(messages, files)))
            followed = True
            continue
        scene = _follow(scenes[-1], word, rest, messages)
        if scene is not None:
            scenes[-1] = scene
            followed = True
    return scenes if followed else []


def _follow(scene: _Scene, word: str, rest: str, messages: Sequence[Message]) -> _Scene | None:
    """Add an instruction to a scene; `None` when it is none."""
    script, thoughts, said = scene
    match word, rest.split():
        case "tokens", [n] if _is_number(n):
            return scene._replace(said=said + tuple(islice(cycle(_WORDS), _count(n))))
        case "count", [n] if _is_number(n):
            return scene._replace(said=said + tuple(TextDelta(text=f"{i} ") for i in range(1, _count(n) + 1)))
        case "echo", [_, *_]:
            return scene._replace(said=said + _spell(rest))
        case "roles", []:
            return scene._replace(said=said + _spell(" ".join(map(_role, messages))))
        case "reason", [n] if _is_number(n):
            return scene._replace(thoughts=(_THOUGHT,) * _count(n))
        case "call", [name, *_]:
            wish = Wish(name, rest[len(name) :].strip() or NO_ARGUMENTS)
            return scene._replace(script=script._replace(calls=(*script.calls, wish)))
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
            return None
    return _Scene(script, thoughts, said)


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
