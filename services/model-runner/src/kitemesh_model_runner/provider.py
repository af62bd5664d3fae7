"""The port to whatever generates: one call in, canonical deltas out as they come, one result at the end.

A provider knows neither the bus nor frames. What it raises is a `ProviderFailed` with a sentence from here: nothing
that an upstream wrote ever reaches a client.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from kitemesh_contracts.content import (
    Alternative,
    FilePart,
    FinishReason,
    Message,
    Sampling,
    ToolCall,
    ToolSpec,
    Usage,
)
from kitemesh_contracts.deltas import Delta
from kitemesh_contracts.errors import ErrorCode, ProviderFailed


class Prefix(NamedTuple):
    """The beginning of an answer, which was generated before."""

    text: str
    reasoning: str = ""


Again = Callable[[ProviderFailed], bool]


def _always(_: ProviderFailed) -> bool:
    return True


class ModelCall(NamedTuple):
    """What to generate.

    Attributes:
        model: The provider's own name for the model.
        messages: The whole prompt, in order.
        budget_s: Seconds until nobody waits any more, retries included; whoever calls also enforces it.
        tools: What the model may call. What it calls has no authority, whether it is among them or not.
        tool_choice: One of `TOOL_CHOICES`, or `tool:<name>`; means nothing without tools.
        parallel_calls: `None` leaves it to the provider.
        prefix: Behind what to go on; the sink gets nothing of it again. Only for a provider that said it can.
        files: The bytes of every blob that the messages name.
        again: Told of each failed try before the provider would make another, and says whether it may.

    """

    turn: str
    step: int
    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    budget_s: float
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = "auto"
    parallel_calls: bool | None = None
    prefix: Prefix | None = None
    files: Mapping[str, bytes] = MappingProxyType({})
    again: Again = _always


class Generated(NamedTuple):
    """How a generation ended; its text went to the sink.

    Attributes:
        usage: Of the whole answer, as if it had been generated at once; `None` when the provider counted nothing.
        calls: Under the ids that turn, step and place derive, each with its arguments as JSON text, malformed or not.
        alternatives: The further choices, as many as were asked for.

    """

    finish: FinishReason
    usage: Usage | None
    calls: tuple[ToolCall, ...] = ()
    alternatives: tuple[Alternative, ...] = ()


Sink = Callable[[Sequence[Delta]], Awaitable[None]]
"""Takes the deltas that arrived together, never none. It may make the provider wait."""


def is_image(part: FilePart) -> bool:
    """Tell whether a file is to be looked at; an address that does not say what it leads to is taken for an image."""
    return part.media_type.startswith("image/") or not part.media_type


def is_text(part: FilePart) -> bool:
    """Tell whether a file can be given as text, since its bytes are here."""
    return part.media_type.startswith("text/") and part.blob is not None


class ModelMissing(ProviderFailed):
    """The provider does not have the model, or not for us: another one may."""


class Provider(Protocol):
    """One endpoint, with its own rules."""

    @property
    def kind(self) -> str:
        """The catalog's word for it."""

    def can_continue(self, prefix: Prefix) -> bool:
        """Tell whether it can go on with this beginning, for a model of which the catalog says so."""

    async def generate(self, call: ModelCall, sink: Sink) -> Generated:
        """Generate once; being cancelled stops the upstream at once.

        Raises:
            ProviderFailed: There is no complete answer. What the sink got before is all there will be.

        """


SENTENCES: Final = {
    ErrorCode.UPSTREAM_UNREACHABLE: "The model's provider cannot be reached",
    ErrorCode.UPSTREAM_REFUSED: "The model's provider refused the request",
    ErrorCode.UPSTREAM_FAILED: "The model's provider failed",
    ErrorCode.UPSTREAM_LIMITED: "The model's provider is over its limit; try again later",
    ErrorCode.UPSTREAM_TIMEOUT: "The model's provider did not answer in time",
    ErrorCode.UPSTREAM_CUT: "The model's answer broke off before its end",
    ErrorCode.UPSTREAM_CONTEXT: "The prompt is longer than the model takes",
}
"""What a client is told, by code."""


def failure(code: ErrorCode, *, retry_after_s: float | None = None) -> ProviderFailed:
    """Make the error for one of `SENTENCES`."""
    return ProviderFailed(code, SENTENCES[code], retry_after_s=retry_after_s)
