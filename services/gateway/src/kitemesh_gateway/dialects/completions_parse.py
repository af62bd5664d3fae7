"""From the body of `POST /v1/chat/completions` to a canonical request. Pure."""

from typing import Final

from pydantic import ValidationError

from kitemesh_contracts.content import (
    AssistantMessage,
    Message,
    Sampling,
    SystemMessage,
    TextPart,
    UserMessage,
)
from kitemesh_gateway.dialects.base import Mistake, Mistakes, TurnRequest
from kitemesh_gateway.dialects.completions_models import (
    MAX_USED_MESSAGES,
    AssistantIn,
    ChatRequest,
    ContentIn,
    MessageIn,
    SystemIn,
    TextPartIn,
    UserIn,
)
from kitemesh_gateway.dialects.mistakes import mistakes_of

_NO_USER: Final = "needs at least one user message"
_NO_NEW_USER: Final = "needs a user message after the last assistant message"


def parse(body: object) -> TurnRequest:
    """Validate a body.

    Raises:
        Mistakes: With everything that is wrong.

    """
    try:
        request = ChatRequest.model_validate(body)
    except ValidationError as exc:
        raise Mistakes([*mistakes_of(exc), *_across(body)]) from exc
    mistakes = _across(body)
    if mistakes:
        raise Mistakes(mistakes)
    metadata = request.metadata
    conversation = metadata.conversation_id if metadata else None
    return TurnRequest(
        model=request.model,
        messages=_used([_message(message) for message in request.messages], conversation),
        sampling=_sampling(request),
        stream=request.stream or False,
        keep=request.store is not False,
        conversation=conversation,
        label=metadata.request_id if metadata else None,
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
    )


def _across(body: object) -> list[Mistake]:
    """Find what is wrong between fields; looks at the raw body, so that it can speak beside other mistakes."""
    if not isinstance(body, dict):
        return []
    mistakes: list[Mistake] = []
    metadata = body.get("metadata")
    continues = isinstance(metadata, dict) and metadata.get("conversation_id") is not None
    messages = body.get("messages")
    if isinstance(messages, list) and messages:
        roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
        used = roles[_first_new(roles) :] if continues else roles
        if "user" not in used:
            mistakes.append(Mistake("messages", _NO_NEW_USER if "user" in roles else _NO_USER))
        if len(used) > MAX_USED_MESSAGES:
            mistakes.append(Mistake("messages", f"must not bring more than {MAX_USED_MESSAGES} messages"))
    if continues and body.get("store") is False:
        mistakes.append(Mistake("store", "must not be false with metadata.conversation_id"))
    if body.get("stream_options") is not None and body.get("stream") is not True:
        mistakes.append(Mistake("stream_options", "is only allowed with stream"))
    return mistakes


def _first_new(roles: list[object]) -> int:
    return max((index for index, role in enumerate(roles) if role == "assistant"), default=-1) + 1


def _used(messages: list[Message], conversation: str | None) -> tuple[Message, ...]:
    """Keep what is new: with a stored conversation, what follows the last assistant message, and every instruction.

    Instructions are not stored history: a client that resends its system text means it for this turn, too.
    """
    if conversation is None:
        return tuple(messages)
    last = max((i for i, message in enumerate(messages) if isinstance(message, AssistantMessage)), default=-1)
    return tuple(message for i, message in enumerate(messages) if i > last or isinstance(message, SystemMessage))


def _message(message: MessageIn) -> Message:
    if isinstance(message, UserIn):
        if isinstance(message.content, str):
            return UserMessage(parts=(TextPart(text=message.content),))
        return UserMessage(parts=tuple(TextPart(text=text) for text in _texts(message.content)))
    if isinstance(message, SystemIn):
        return SystemMessage(text="".join(_texts(message.content)))
    assert isinstance(message, AssistantIn)  # noqa: S101  validation lets no other pass
    return AssistantMessage(text="".join(_texts(message.content)))


def _texts(content: ContentIn) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [part.text for part in content if isinstance(part, TextPartIn)]


def _sampling(request: ChatRequest) -> Sampling:
    stop = request.stop
    return Sampling(
        temperature=request.temperature,
        top_p=request.top_p,
        max_tokens=request.max_completion_tokens or request.max_tokens,
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        seed=request.seed,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        logit_bias=request.logit_bias,
        reasoning_effort=request.reasoning_effort,
        user=request.user,
    )
