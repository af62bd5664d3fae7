"""What the messages of a `run_chat` request say: its new message, its instructions, and its answers to approvals. Pure.

It looks at the raw messages, so that it can speak beside the mistakes of single fields.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic_core import PydanticCustomError

from kitemesh_contracts.content import FilePart, Message, Part, SystemMessage, TextPart, UserMessage
from kitemesh_contracts.ids import is_id
from kitemesh_gateway.dialects.base import Mistake
from kitemesh_gateway.dialects.files import MAX_FILES, MAX_NAME_CHARS, Files, read_source

REGENERATE: Final = "regenerate-message"
MAX_INSTRUCTIONS: Final = 255
MAX_REASON_CHARS: Final = 2000
_INSTRUCTIONS: Final = ("system", "developer")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_NOT_AN_ID: Final = "must be 1 to 64 of A-Z, a-z, 0-9, _ and -"


class Reply(NamedTuple):
    """What a person answered to one held call.

    Attributes:
        message: The id of the message that it stands in.
        call: The tool execution id.

    """

    message: str
    call: str
    approved: bool
    reason: str


class Said(NamedTuple):
    """What the messages of a request say.

    Attributes:
        new: What goes to the model; empty when nothing is new.
        id: The client's id of the new message; empty when it gave none, or when the message is not new to the server.
        files: The bytes of the files in `new`.
        replies: In the order of the messages.

    """

    new: tuple[Message, ...]
    id: str
    files: tuple[bytes, ...]
    replies: tuple[Reply, ...]


def read_messages(body: Mapping[str, Any], mistakes: list[Mistake]) -> Said:
    """Read the messages of a request.

    Args:
        body: Decoded, and not validated.
        mistakes: Gets what is wrong.

    """
    found = body.get("messages")
    messages = [each if isinstance(each, dict) else {} for each in found] if isinstance(found, list) else []
    replies = tuple(_replies(messages, mistakes))
    files = Files()
    regenerates = body.get("trigger") == REGENERATE
    place = _new_place(messages, regenerates=regenerates)
    instructions = [_text(each) for each in messages if each.get("role") in _INSTRUCTIONS]
    if len(instructions) > MAX_INSTRUCTIONS:
        mistakes.append(Mistake("messages", f"must not bring more than {MAX_INSTRUCTIONS} instructions"))
    id_ = body.get("messageId") if isinstance(body.get("messageId"), str) else ""
    new: tuple[Message, ...] = ()
    if place is not None:
        parts = _parts(messages[place], f"messages.{place}", files, mistakes)
        new = (*(SystemMessage(text=text) for text in instructions if text), UserMessage(parts=parts))
        id_ = "" if regenerates else _id(messages[place], f"messages.{place}.id", mistakes) or id_
    elif messages and len(instructions) == len(messages):
        # Without anything to answer, the instructions are what is asked.
        new = (UserMessage(parts=tuple(TextPart(text=text) for text in instructions)),)
    else:
        id_ = ""
    return Said(new, id_ or "", files.all(), replies)


def _new_place(messages: Sequence[Mapping[str, Any]], *, regenerates: bool) -> int | None:
    """Return where the new message of the user stands: behind it nobody has spoken."""
    for place in range(len(messages) - 1, -1, -1):
        role = messages[place].get("role")
        if role == "user":
            return place
        if role not in _INSTRUCTIONS and not regenerates:
            return None
    return None


def _id(message: Mapping[str, Any], field: str, mistakes: list[Mistake]) -> str:
    found = message.get("id")
    if not isinstance(found, str):
        return ""
    if not is_id(found):
        mistakes.append(Mistake(field, _NOT_AN_ID))
    return found


def _given(message: Mapping[str, Any]) -> list[Any]:
    """Return a message's parts, whichever of the two fields has them."""
    parts, content = message.get("parts"), message.get("content")
    if isinstance(parts, list) and parts:
        return parts
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if isinstance(content, str) else []


def _text(message: Mapping[str, Any]) -> str:
    return "".join(
        part["text"]
        for part in _given(message)
        if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
    )


def _parts(message: Mapping[str, Any], field: str, files: Files, mistakes: list[Mistake]) -> tuple[Part, ...]:
    parts: list[Part] = []
    known = count = 0
    for place, part in enumerate(_given(message)):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "file"):
            continue
        known += 1
        at = f"{field}.parts.{place}"
        if kind == "text" and isinstance(part.get("text"), str):
            parts.append(TextPart(text=part["text"]))
        elif kind == "text":
            mistakes.append(Mistake(f"{at}.text", "must be a string"))
        else:
            count += 1
            file = _file(part, at, files, mistakes)
            parts += () if file is None else (file,)
    if count > MAX_FILES:
        mistakes.append(Mistake(field, f"must not bring more than {MAX_FILES} files"))
    if not known:
        mistakes.append(Mistake(field, "needs a text or a file"))
    return tuple(parts)


def _file(part: Mapping[str, Any], at: str, files: Files, mistakes: list[Mistake]) -> FilePart | None:
    url, media_type, name = part.get("url"), part.get("mediaType") or "", part.get("filename") or ""
    wrong = [
        Mistake(f"{at}.{field}", "must be a string")
        for field, value in (("url", url), ("mediaType", media_type), ("filename", name))
        if not isinstance(value, str)
    ]
    if isinstance(name, str) and (len(name) > MAX_NAME_CHARS or _CONTROL.search(name)):
        wrong.append(Mistake(f"{at}.filename", f"must be at most {MAX_NAME_CHARS} characters, none of them a control"))
    if wrong:
        mistakes += wrong
        return None
    try:
        source = read_source(str(url), media_type=str(media_type), name=str(name))
    except PydanticCustomError as exc:
        mistakes.append(Mistake(f"{at}.url", exc.message()))
        return None
    return files.add(source, name=str(name))


def _replies(messages: Sequence[Mapping[str, Any]], mistakes: list[Mistake]) -> Iterator[Reply]:
    for place, message in enumerate(messages):
        parts = message.get("parts")
        if message.get("role") != "assistant" or not isinstance(parts, list):
            continue
        name = message.get("id")
        for number, part in enumerate(parts):
            if isinstance(part, dict) and part.get("state") == "approval-responded" and _is_tool(part):
                reply = _reply(part, f"messages.{place}.parts.{number}", mistakes)
                if reply is not None:
                    yield reply._replace(message=name if isinstance(name, str) and is_id(name) else "")


def _is_tool(part: Mapping[str, Any]) -> bool:
    kind = part.get("type")
    return isinstance(kind, str) and (kind == "dynamic-tool" or kind.startswith("tool-"))


def _reply(part: Mapping[str, Any], at: str, mistakes: list[Mistake]) -> Reply | None:
    approval = {} if part.get("approval") is None else part["approval"]
    if not isinstance(approval, dict):
        mistakes.append(Mistake(f"{at}.approval", "must be an object"))
        return None
    call = part.get("toolCallId")
    approved = False if approval.get("approved") is None else approval["approved"]
    reason = "" if approval.get("reason") is None else approval["reason"]
    wrong = []
    if not isinstance(call, str):
        wrong.append(Mistake(f"{at}.toolCallId", "must be a string"))
    if not isinstance(approved, bool):
        wrong.append(Mistake(f"{at}.approval.approved", "must be true or false"))
    if not isinstance(reason, str):
        wrong.append(Mistake(f"{at}.approval.reason", "must be a string"))
    elif len(reason) > MAX_REASON_CHARS:
        wrong.append(Mistake(f"{at}.approval.reason", f"must have at most {MAX_REASON_CHARS} character(s)"))
    mistakes += wrong
    return None if wrong else Reply("", str(call), bool(approved), str(reason))
