"""From the body of `POST /v1/chat/completions` to a canonical request. Pure."""

from collections.abc import Sequence
from typing import Final

from msgspec import Raw
from pydantic import ValidationError

from kitemesh_contracts.codec import encode
from kitemesh_contracts.content import (
    AssistantMessage,
    Message,
    ResponseFormat,
    Sampling,
    SystemMessage,
    ToolCall,
    ToolMessage,
    ToolSpec,
    UserMessage,
)
from kitemesh_gateway.dialects.base import Mistakes, TurnRequest
from kitemesh_gateway.dialects.completions_messages import (
    AssistantIn,
    MessageIn,
    SystemIn,
    ToolIn,
    UserIn,
    parts_of,
    text_of,
)
from kitemesh_gateway.dialects.completions_models import (
    ChatRequest,
    ObjectFormatIn,
    SchemaFormatIn,
    ToolDefinitionIn,
)
from kitemesh_gateway.dialects.completions_rules import across
from kitemesh_gateway.dialects.files import Files
from kitemesh_gateway.dialects.mistakes import mistakes_of

_ANY_ARGUMENTS: Final = Raw(b'{"type":"object"}')


def parse(body: object) -> TurnRequest:
    """Validate a body.

    Raises:
        Mistakes: With everything that is wrong.

    """
    try:
        request = ChatRequest.model_validate(body)
    except ValidationError as exc:
        raise Mistakes([*mistakes_of(exc), *across(body)]) from exc
    mistakes = across(body)
    if mistakes:
        raise Mistakes(mistakes)
    return turn_request(request)


def turn_request(request: ChatRequest) -> TurnRequest:
    """Convert a valid body."""
    metadata = request.metadata
    conversation = metadata.conversation_id if metadata else None
    files = Files()
    messages = tuple(_message(message, files) for message in _used(request.messages, conversation))
    return TurnRequest(
        model=request.model,
        messages=messages,
        sampling=_sampling(request),
        stream=request.stream or False,
        keep=request.store is not False,
        conversation=conversation,
        label=metadata.request_id if metadata else None,
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
        tools=tuple(_tool(each) for each in request.tools or ()),
        tool_choice=_choice(request),
        parallel_calls=request.parallel_tool_calls,
        mode=(metadata.mode if metadata else None) or "auto",
        priority=metadata.priority if metadata else None,
        max_wait_s=metadata.max_wait_s if metadata else None,
        details=encode({"metadata": metadata.model_extra}).decode() if metadata and metadata.model_extra else "",
        files=files.all(),
    )


def _used(messages: Sequence[MessageIn], conversation: str | None) -> Sequence[MessageIn]:
    """Keep what is new: with a stored conversation, what follows the last assistant message, and every instruction.

    Instructions are not stored history: a client that resends its system text means it for this turn, too.
    """
    if conversation is None:
        return messages
    last = max((i for i, message in enumerate(messages) if isinstance(message, AssistantIn)), default=-1)
    return [message for i, message in enumerate(messages) if i > last or isinstance(message, SystemIn)]


def _message(message: MessageIn, files: Files) -> Message:
    if isinstance(message, UserIn):
        return UserMessage(parts=parts_of(message.content, files))
    if isinstance(message, SystemIn):
        return SystemMessage(text=text_of(message.content))
    if isinstance(message, ToolIn):
        return ToolMessage(call=message.tool_call_id, text=text_of(message.content))
    assert isinstance(message, AssistantIn)  # noqa: S101  validation lets no other pass
    return AssistantMessage(
        text=text_of(message.content or ""),
        reasoning=message.reasoning_content or "",
        calls=tuple(
            ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
            for call in message.tool_calls or ()
        ),
    )


def _tool(tool: ToolDefinitionIn) -> ToolSpec:
    function = tool.function
    return ToolSpec(
        name=function.name,
        description=function.description or "",
        parameters=_ANY_ARGUMENTS if function.parameters is None else Raw(encode(function.parameters)),
        strict=function.strict or False,
    )


def _choice(request: ChatRequest) -> str:
    choice = request.tool_choice
    if choice is None or isinstance(choice, str):
        return choice or "auto"
    return f"tool:{choice.function.name}"


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
        choices=request.n or 1,
        logprobs=request.logprobs or False,
        top_logprobs=request.top_logprobs,
        response_format=_format(request),
    )


def _format(request: ChatRequest) -> ResponseFormat | None:
    wanted = request.response_format
    if isinstance(wanted, ObjectFormatIn):
        return ResponseFormat(kind="json_object")
    if not isinstance(wanted, SchemaFormatIn):
        return None
    form = wanted.json_schema
    return ResponseFormat(
        kind="json_schema",
        name=form.name,
        description=form.description or "",
        schema=Raw(b"null") if form.schema_ is None else Raw(encode(form.schema_)),
        strict=form.strict,
    )
