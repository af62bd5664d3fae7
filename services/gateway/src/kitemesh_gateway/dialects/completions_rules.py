"""What must hold between the fields of a chat request. Pure.

It looks at the raw body, so that it can speak beside the mistakes of single fields.
"""

from collections.abc import Mapping
from typing import Any, Final

from kitemesh_contracts.codec import encode
from kitemesh_gateway.dialects.base import Mistake
from kitemesh_gateway.dialects.completions_models import MAX_METADATA_BYTES, MAX_USED_MESSAGES, MetadataIn
from kitemesh_gateway.dialects.files import MAX_FILES

_NO_USER: Final = "needs at least one user message"
_NO_NEW_USER: Final = "needs a user or tool message after the last assistant message"
_NO_CALL: Final = "answers no call of an earlier assistant message"
_TOO_MANY_FILES: Final = f"must not bring more than {MAX_FILES} files"
_TOO_LONG: Final = f"must not have more than {MAX_METADATA_BYTES} bytes beside what is named here"
_FILE_PARTS: Final = ("image_url", "file")


def across(body: object) -> list[Mistake]:
    """Find what is wrong between fields."""
    if not isinstance(body, dict):
        return []
    mistakes: list[Mistake] = []
    metadata = body.get("metadata")
    continues = isinstance(metadata, dict) and metadata.get("conversation_id") is not None
    messages = body.get("messages")
    if isinstance(messages, list) and messages:
        roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
        first = _first_new(roles) if continues else 0
        used = roles[first:]
        if "user" not in used and not (continues and "tool" in used):
            needs_new = continues and any(role in ("user", "tool") for role in roles)
            mistakes.append(Mistake("messages", _NO_NEW_USER if needs_new else _NO_USER))
        if not continues:
            mistakes += _unasked(messages)
        if len(used) > MAX_USED_MESSAGES:
            mistakes.append(Mistake("messages", f"must not bring more than {MAX_USED_MESSAGES} messages"))
        if _count_files(messages[first:]) > MAX_FILES:
            mistakes.append(Mistake("messages", _TOO_MANY_FILES))
    if continues and body.get("store") is False:
        mistakes.append(Mistake("store", "must not be false with metadata.conversation_id"))
    if body.get("top_logprobs") is not None and body.get("logprobs") is not True:
        mistakes.append(Mistake("top_logprobs", "is only allowed with logprobs"))
    if isinstance(metadata, dict) and len(encode(other_metadata(metadata))) > MAX_METADATA_BYTES:
        mistakes.append(Mistake("metadata", _TOO_LONG))
    return mistakes + stream_mistakes(body) + _tool_mistakes(body)


def other_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the metadata says beside what this server understands."""
    return {name: value for name, value in metadata.items() if name not in MetadataIn.model_fields}


def stream_mistakes(body: dict[str, Any]) -> list[Mistake]:
    """Find options of a stream that is not asked for."""
    if body.get("stream_options") is not None and body.get("stream") is not True:
        return [Mistake("stream_options", "is only allowed with stream")]
    return []


def _count_files(messages: list[Any]) -> int:
    return sum(
        isinstance(part, dict) and part.get("type") in _FILE_PARTS
        for message in messages
        if isinstance(message, dict) and isinstance(message.get("content"), list)
        for part in message["content"]
    )


def _unasked(messages: list[Any]) -> list[Mistake]:
    """Find results of calls that nobody made."""
    mistakes: list[Mistake] = []
    calls: set[str] = set()
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            continue
        made = message.get("tool_calls")
        if message.get("role") == "assistant" and isinstance(made, list):
            calls.update(each["id"] for each in made if isinstance(each, dict) and isinstance(each.get("id"), str))
        answered = message.get("tool_call_id")
        if message.get("role") == "tool" and isinstance(answered, str) and answered not in calls:
            mistakes.append(Mistake(f"messages.{index}.tool_call_id", _NO_CALL))
    return mistakes


def _tool_mistakes(body: dict[str, Any]) -> list[Mistake]:
    """Find tools that are named twice, and a choice that is none of them."""
    mistakes: list[Mistake] = []
    names: set[str] = set()
    tools = body.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        name = _name(tool)
        if name is not None and name in names:
            mistakes.append(Mistake(f"tools.{index}.function.name", "is the name of an earlier tool"))
        if name is not None:
            names.add(name)
    chosen = _name(body.get("tool_choice"))
    if chosen is not None and chosen not in names:
        mistakes.append(Mistake("tool_choice.function.name", "is not the name of one of the tools"))
    return mistakes


def _name(tool: object) -> str | None:
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _first_new(roles: list[object]) -> int:
    return max((index for index, role in enumerate(roles) if role == "assistant"), default=-1) + 1
