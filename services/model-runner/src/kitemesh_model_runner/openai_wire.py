"""Canonical messages to the JSON body of an OpenAI-compatible chat completion: a pure function.

It keeps the one rule that servers enforce over history: behind every assistant message with tool calls stand the
results of exactly those calls.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, assert_never

import msgspec
from msgspec import Raw, Struct

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
from kitemesh_model_runner.openai_content import Content, content_of

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
    content: Content


class _Called(Struct, frozen=True, kw_only=True):
    role: Literal["assistant"]
    content: str | None
    tool_calls: tuple[_ToolCall, ...]


class _Reasoned(Struct, frozen=True, kw_only=True):
    role: Literal["assistant"]
    content: str | None
    reasoning_content: str
    tool_calls: tuple[_ToolCall, ...]


class _Result(Struct, frozen=True, kw_only=True):
    role: Literal["tool"]
    tool_call_id: str
    content: str


_Wire = _Said | _Called | _Reasoned | _Result


class _Definition(Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    parameters: Raw
    description: str = ""
    strict: bool = False


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


_OPEN: Final = Raw(b"null")


class _JsonSchema(Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    description: str = ""
    schema: Raw = _OPEN
    strict: bool | None = None


class _Format(Struct, frozen=True, kw_only=True, omit_defaults=True):
    type: Literal["json_object", "json_schema"]
    json_schema: _JsonSchema | None = None


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
    n: int = 1
    logprobs: bool = False
    top_logprobs: int | None = None
    response_format: _Format | None = None
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
    files: Mapping[str, bytes] = MappingProxyType({}),
    reasoning: bool = False,
) -> bytes:
    """Render the body of a streaming request; without tools nothing is said of how to use them.

    Args:
        model: The endpoint's own name for it.
        messages: The prompt.
        sampling: How to generate.
        token_limit: What the endpoint calls it.
        tools: What the model may call.
        tool_choice: As `ModelCall` has it.
        parallel_calls: As `ModelCall` has it.
        begun: An answer to be continued, in the words of vLLM and SGLang, which other servers refuse or overlook.
        files: The bytes of every blob in the prompt.
        reasoning: Models that think between calls are given back what they thought since the user spoke.

    """
    wire = _wire(messages, files, reasoning=reasoning)
    newer = token_limit == "max_completion_tokens"  # noqa: S105  a field's name, not a secret
    return _encode(
        _Body(
            model=model,
            messages=[*wire, _Said(role="assistant", content=begun)] if begun else wire,
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
            n=sampling.choices,
            logprobs=sampling.logprobs,
            top_logprobs=sampling.top_logprobs if sampling.logprobs else None,
            response_format=_format(sampling.response_format),
            tools=tuple(map(_tool, tools)),
            tool_choice=_choice(tool_choice) if tools else None,
            parallel_tool_calls=parallel_calls if tools else None,
            continue_final_message=True if begun else None,
            add_generation_prompt=False if begun else None,
        ),
    )


def _tool(tool: ToolSpec) -> _Tool:
    return _Tool(
        function=_Definition(
            name=tool.name, parameters=tool.parameters, description=tool.description, strict=tool.strict
        )
    )


def _format(wanted: ResponseFormat | None) -> _Format | None:
    if wanted is None:
        return None
    if wanted.kind == "json_object":
        return _Format(type="json_object")
    schema = _JsonSchema(
        name=wanted.name,
        description=wanted.description,
        schema=_OPEN if bytes(wanted.schema) == b"null" else wanted.schema,
        strict=wanted.strict,
    )
    return _Format(type="json_schema", json_schema=schema)


def _choice(choice: str) -> str | _Choice:
    word, _, name = choice.partition(":")
    return _Choice(function=_Named(name=name)) if word == "tool" else choice


def _wire(messages: Sequence[Message], files: Mapping[str, bytes], *, reasoning: bool) -> list[_Wire]:
    asked = max((place for place, each in enumerate(messages) if isinstance(each, UserMessage)), default=-1)
    results = {message.call: message.text for message in messages if isinstance(message, ToolMessage)}
    wire: list[_Wire] = []
    for place, message in enumerate(messages):
        match message:
            case SystemMessage(text=text):
                wire.append(_Said(role="system", content=text))
            case UserMessage():
                wire.append(_Said(role="user", content=content_of(message, files)))
            case AssistantMessage(calls=()):
                wire.append(_Said(role="assistant", content=message.text))
            case AssistantMessage(calls=calls):
                called = tuple(map(_call, calls))
                said = message.text or None
                if reasoning and message.reasoning and place > asked:
                    thought = message.reasoning
                    wire.append(_Reasoned(role="assistant", content=said, reasoning_content=thought, tool_calls=called))
                else:
                    wire.append(_Called(role="assistant", content=said, tool_calls=called))
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
