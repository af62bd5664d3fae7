"""Canonical messages to the JSON body of an OpenAI-compatible chat completion: a pure function.

It keeps the one rule that servers enforce over history: behind every assistant message with tool calls stand the
results of exactly those calls.
"""

from collections.abc import Sequence
from typing import Final, Literal, assert_never

import msgspec
from msgspec import Raw, Struct

from kitemesh_contracts.content import (
    AssistantMessage,
    Message,
    Sampling,
    SystemMessage,
    ToolCall,
    ToolMessage,
    ToolSpec,
    UserMessage,
    user_text,
)

NO_RESULT: Final = "No result: this call was not run."
"""Stands in for the result of a call that has none."""

TokenLimit = Literal["max_tokens", "max_completion_tokens"]
"""What an endpoint calls the bound of generated tokens; none may be sent both."""


class _Function(Struct, frozen=True, kw_only=True):
    name: str
    arguments: str


class _ToolCall(Struct, frozen=True, kw_only=True):
    id: str
    function: _Function
    type: Literal["function"] = "function"


class _Said(Struct, frozen=True, kw_only=True):
    role: Literal["system", "user", "assistant"]
    content: str


class _Called(Struct, frozen=True, kw_only=True):
    role: Literal["assistant"]
    content: str | None
    tool_calls: tuple[_ToolCall, ...]


class _Result(Struct, frozen=True, kw_only=True):
    role: Literal["tool"]
    tool_call_id: str
    content: str


_Wire = _Said | _Called | _Result


class _Definition(Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    parameters: Raw
    description: str = ""


class _Tool(Struct, frozen=True, kw_only=True):
    function: _Definition
    type: Literal["function"] = "function"


class _Named(Struct, frozen=True, kw_only=True):
    name: str


class _Choice(Struct, frozen=True, kw_only=True):
    function: _Named
    type: Literal["function"] = "function"


class _StreamOptions(Struct, frozen=True, kw_only=True):
    include_usage: Literal[True]


class _Body(Struct, frozen=True, kw_only=True, omit_defaults=True):
    model: str
    messages: list[_Wire]
    stream: Literal[True]
    stream_options: _StreamOptions
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    reasoning_effort: str | None = None
    user: str | None = None
    tools: tuple[_Tool, ...] = ()
    tool_choice: str | _Choice | None = None
    parallel_tool_calls: bool | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None


_encode: Final = msgspec.json.Encoder().encode
_WITH_USAGE: Final = _StreamOptions(include_usage=True)


def render(
    model: str,
    messages: Sequence[Message],
    sampling: Sampling,
    *,
    token_limit: TokenLimit = "max_tokens",  # noqa: S107  a field's name, not a secret
    tools: Sequence[ToolSpec] = (),
    tool_choice: str = "auto",
    parallel_calls: bool | None = None,
    begun: str = "",
) -> bytes:
    """Render the body of a streaming request; without tools nothing is said of how to use them.

    An answer that was begun is asked to be continued in the words of vLLM and SGLang, which other servers refuse or
    overlook.
    """
    newer = token_limit == "max_completion_tokens"  # noqa: S105  a field's name, not a secret
    return _encode(
        _Body(
            model=model,
            messages=[*_wire(messages), _Said(role="assistant", content=begun)] if begun else _wire(messages),
            stream=True,
            stream_options=_WITH_USAGE,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=None if newer else sampling.max_tokens,
            max_completion_tokens=sampling.max_tokens if newer else None,
            stop=sampling.stop,
            seed=sampling.seed,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            logit_bias=sampling.logit_bias,
            reasoning_effort=sampling.reasoning_effort,
            user=sampling.user,
            tools=tuple(map(_tool, tools)),
            tool_choice=_choice(tool_choice) if tools else None,
            parallel_tool_calls=parallel_calls if tools else None,
            continue_final_message=True if begun else None,
            add_generation_prompt=False if begun else None,
        ),
    )


def _tool(tool: ToolSpec) -> _Tool:
    return _Tool(function=_Definition(name=tool.name, parameters=tool.parameters, description=tool.description))


def _choice(choice: str) -> str | _Choice:
    word, _, name = choice.partition(":")
    return _Choice(function=_Named(name=name)) if word == "tool" else choice


def _wire(messages: Sequence[Message]) -> list[_Wire]:
    results = {message.call: message.text for message in messages if isinstance(message, ToolMessage)}
    wire: list[_Wire] = []
    for message in messages:
        match message:
            case SystemMessage(text=text):
                wire.append(_Said(role="system", content=text))
            case UserMessage():
                wire.append(_Said(role="user", content=user_text(message)))
            case AssistantMessage(calls=()):
                wire.append(_Said(role="assistant", content=message.text))
            case AssistantMessage(calls=calls):
                called = tuple(map(_call, calls))
                wire.append(_Called(role="assistant", content=message.text or None, tool_calls=called))
                wire.extend(
                    _Result(role="tool", tool_call_id=call.id, content=results.get(call.id, NO_RESULT))
                    for call in calls
                )
            case ToolMessage():
                # It went out behind its call; one without a call would be refused.
                pass
            case _:
                assert_never(message)
    return wire


def _call(call: ToolCall) -> _ToolCall:
    return _ToolCall(id=call.id, function=_Function(name=call.name, arguments=call.arguments))
