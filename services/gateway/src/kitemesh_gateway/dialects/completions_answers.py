"""What `completions` answers: bodies as structs, so that `/openapi.json` shows what is really encoded."""

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from kitemesh_contracts.content import FinishReason, Logprob, ToolCall, Usage


class CalledFunction(Struct, frozen=True, kw_only=True):
    """A function and its arguments as the model wrote them."""

    name: str
    arguments: str


class CallOut(Struct, frozen=True, kw_only=True, tag_field="type", tag="function"):
    """A tool call for the caller: to run, or with `kitemesh.approval_id` to decide; `id` is its execution id."""

    id: str
    function: CalledFunction


class MessageOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer; `content` is null only beside tool calls, and always beside those that are to be decided."""

    role: Literal["assistant"]
    content: str | None
    reasoning_content: str = ""
    tool_calls: tuple[CallOut, ...] = ()


class TopLogprobOut(Struct, frozen=True, kw_only=True):
    """A token that could have stood in a place; `bytes` is null where it is no text by itself."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None


class LogprobOut(Struct, frozen=True, kw_only=True):
    """A token and how likely it was."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None
    top_logprobs: tuple[TopLogprobOut, ...]


class LogprobsOut(Struct, frozen=True, kw_only=True):
    """Of the tokens of the content, in order."""

    content: tuple[LogprobOut, ...]
    refusal: None = None


class ChoiceOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of the choices, in order: there are as many as `n` says."""

    index: int
    message: MessageOut
    logprobs: LogprobsOut | None = None
    finish_reason: FinishReason


class PromptDetails(Struct, frozen=True, kw_only=True):
    """Of the prompt's tokens."""

    cached_tokens: int


class CompletionDetails(Struct, frozen=True, kw_only=True):
    """Of the completion's tokens."""

    reasoning_tokens: int


class UsageOut(Struct, frozen=True, kw_only=True):
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class KitemeshOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """This server's own words.

    Attributes:
        execution_id: The turn.
        request_id: `metadata.request_id`, else the request's id.
        conversation_id: Absent when none is kept.
        stored: Only ever `false`: the answer could not be stored.
        approval_id: The calls wait for a person's decision: `POST /v1/chat/resume` takes it.
        expires_at: When they count as denied, ISO 8601 in UTC.
        timings: Milliseconds by hop, as in `Server-Timing`: those that were not known when a stream's header was sent.

    """

    execution_id: str
    request_id: str
    conversation_id: str | None = None
    stored: bool = True
    approval_id: str | None = None
    expires_at: str | None = None
    timings: Mapping[str, float] = {}


class Completion(Struct, frozen=True, kw_only=True, tag_field="object", tag="chat.completion"):
    """A whole answer."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: tuple[ChoiceOut, ...]
    usage: UsageOut
    kitemesh: KitemeshOut


class FunctionDeltaOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """More of a function's arguments; its name comes first, and once."""

    name: str = ""
    arguments: str


class CallDeltaOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """More of a tool call for the caller: `type`, `id` and name come with its first piece."""

    type: Literal["", "function"] = ""
    index: int
    id: str = ""
    function: FunctionDeltaOut


class DeltaOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one chunk adds."""

    role: Literal["", "assistant"] = ""
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[CallDeltaOut, ...] = ()


class ChunkChoice(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The one choice of a chunk; only the last one of an index has a finish reason."""

    index: int
    delta: DeltaOut
    logprobs: LogprobsOut | None = None
    finish_reason: FinishReason | None


class Chunk(Struct, frozen=True, kw_only=True, tag_field="object", tag="chat.completion.chunk", omit_defaults=True):
    """One event of a stream. `choices` is empty only in the chunk that carries the usage."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: tuple[ChunkChoice, ...]
    usage: UsageOut | None = None
    kitemesh: KitemeshOut | None = None


class ModelStateOut(Struct, frozen=True, kw_only=True):
    """How something that may be named looks from here.

    Attributes:
        health: `degraded`: a fallback answers, or some calls are tried to see whether its provider is back. `down`: no
            model behind it can be called.

    """

    health: Literal["ok", "degraded", "down"]


class ModelOut(Struct, frozen=True, kw_only=True, tag_field="object", tag="model"):
    """A model, group or agent.

    Attributes:
        created: Always 0: the catalog does not say when.

    """

    id: str
    owned_by: str
    kitemesh: ModelStateOut
    created: int = 0


class ModelList(Struct, frozen=True, kw_only=True, tag_field="object", tag="list"):
    """Everything that the key may name: models, then groups, then agents."""

    data: tuple[ModelOut, ...]


def usage_out(usage: Usage) -> UsageOut:
    """Render token counts."""
    return UsageOut(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        prompt_tokens_details=PromptDetails(cached_tokens=usage.cached_tokens),
        completion_tokens_details=CompletionDetails(reasoning_tokens=usage.reasoning_tokens),
    )


def logprobs_out(logprobs: Sequence[Logprob]) -> LogprobsOut | None:
    """Render how likely the tokens were; `None` where that is not known."""
    if not logprobs:
        return None
    return LogprobsOut(
        content=tuple(
            LogprobOut(
                token=each.token,
                logprob=each.logprob,
                bytes=each.bytes,
                top_logprobs=tuple(
                    TopLogprobOut(token=other.token, logprob=other.logprob, bytes=other.bytes) for other in each.top
                ),
            )
            for each in logprobs
        ),
    )


def call_out(call: ToolCall) -> CallOut:
    """Render a tool call."""
    return CallOut(id=call.id, function=CalledFunction(name=call.name, arguments=call.arguments))
