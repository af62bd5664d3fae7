"""From the body of `POST /run/v1/chat/completions` to a canonical request. Pure.

What it has in common with a chat completion is checked and converted there.
"""

from typing import Any, Final

from msgspec.json import decode
from msgspec.structs import replace
from pydantic import ValidationError

from kitemesh_contracts.codec import encode
from kitemesh_contracts.content import Message, SystemMessage, TextPart, UserMessage
from kitemesh_gateway.dialects.base import Mistake, Mistakes, TurnRequest
from kitemesh_gateway.dialects.completions_models import MetadataIn
from kitemesh_gateway.dialects.completions_parse import turn_request
from kitemesh_gateway.dialects.completions_rules import across
from kitemesh_gateway.dialects.mistakes import mistakes_of
from kitemesh_gateway.dialects.run_completions_models import RunCompletionRequest

MAX_REPEATED_CHARS: Final = 256
_KEPT: Final = ("properties", "runConfig", "userProperties")
_INSTRUCTIONS: Final = ("system", "developer")


def parse(body: object) -> TurnRequest:
    """Validate a decoded body.

    Raises:
        Mistakes: With everything that is wrong, and the values that are.

    """
    try:
        request = RunCompletionRequest.model_validate(body)
    except ValidationError as exc:
        raise Mistakes(_with_values(body, [*mistakes_of(exc), *_between(body)])) from exc
    mistakes = _between(body)
    if mistakes:
        raise Mistakes(_with_values(body, mistakes))
    return _turn_request(request)


def _turn_request(request: RunCompletionRequest) -> TurnRequest:
    metadata = request.metadata or MetadataIn()
    own = {
        "conversation_id": request.conversationId or metadata.conversation_id,
        "mode": request.executionMode or metadata.mode,
    }
    asked = turn_request(request.model_copy(update={"metadata": metadata.model_copy(update=own)}))
    messages = _said(asked.messages)
    return replace(
        asked,
        messages=messages,
        stream=request.stream is not False,
        default_agent=True,
        creates=request.conversationId is not None,
        values=request.headers or {},
        # A request that ends with results of calls resends the user's message, which is not new.
        message=(request.messageId or "") if _ends_with_user(messages) else "",
        details=_details(asked.details, request),
    )


def _said(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Take instructions that come alone as what the user says."""
    if not all(isinstance(message, SystemMessage) for message in messages):
        return messages
    return (
        UserMessage(
            parts=tuple(TextPart(text=message.text) for message in messages if isinstance(message, SystemMessage)),
        ),
    )


def _ends_with_user(messages: tuple[Message, ...]) -> bool:
    said = [message for message in messages if not isinstance(message, SystemMessage)]
    return isinstance(said[-1], UserMessage)


def _details(details: str, request: RunCompletionRequest) -> str:
    kept: dict[str, Any] = decode(details) if details else {}
    kept |= {name: value for name in _KEPT if (value := getattr(request, name)) is not None}
    return encode(kept).decode() if kept else ""


def _between(body: object) -> list[Mistake]:
    """Find what is wrong between fields."""
    if not isinstance(body, dict):
        return []
    metadata = body.get("metadata")
    stated: dict[str, Any] = metadata if isinstance(metadata, dict) else {}
    mistakes = [
        Mistake(name, f"must not differ from metadata.{other}")
        for name, other, open_value in (("conversationId", "conversation_id", None), ("executionMode", "mode", "auto"))
        if body.get(name) is not None and stated.get(other, open_value) not in (None, open_value, body[name])
    ]
    conversation = body.get("conversationId") or stated.get("conversation_id")
    if conversation is not None and body.get("store") is False:
        mistakes.append(Mistake("store", "must not be false with conversationId"))
    view = {
        **body,
        "metadata": {
            **stated,
            "conversation_id": conversation,
            "mode": body.get("executionMode") or stated.get("mode"),
        },
        "stream": body.get("stream") is not False,
        "store": None,
    }
    messages = body.get("messages")
    if isinstance(messages, list) and messages and all(map(_is_instruction, messages)):
        view["messages"] = [{"role": "user"}]
    return mistakes + across(view)


def _is_instruction(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") in _INSTRUCTIONS


def _with_values(body: object, mistakes: list[Mistake]) -> list[Mistake]:
    return [mistake._replace(value=_value(body, mistake.field)) for mistake in mistakes]


def _value(body: object, field: str) -> str | float | bool | None:
    found = body
    for name in field.split("."):
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    if isinstance(found, str):
        return found if len(found) <= MAX_REPEATED_CHARS else None
    return found if isinstance(found, bool | int | float) else None
