"""Which of some models can take a call, by what the catalog says that each can do and how much it takes. Pure.

A model of which the catalog says nothing can do everything and takes anything. Nothing is known here of how an
upstream is at the moment.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Final, Protocol, TypeVar

from kitemesh_contracts.commands import Generate
from kitemesh_contracts.content import FilePart, UserMessage, files_of
from kitemesh_contracts.errors import ErrorCode
from kitemesh_model_runner.provider import failure, is_image, is_text
from kitemesh_runtime.catalog import Capability
from kitemesh_runtime.prompt_sizes import tokens, total_characters

DOUBT: Final = 0.25
"""A prompt may have so much less tokens than its estimate: where none fits, the estimate is not taken at its word."""

_NO_REASONING: Final = frozenset({None, "none"})
_WORDS_INSTEAD: Final[frozenset[Capability]] = frozenset({"images", "files"})


class Candidate(Protocol):
    """What is known of a model."""

    @property
    def can(self) -> Collection[Capability] | None:
        """What may be asked of it; `None`: everything."""

    @property
    def context_tokens(self) -> int | None:
        """How much prompt and answer together may have; `None`: not known."""


C = TypeVar("C", bound=Candidate)


def able(job: Generate, candidates: Sequence[C]) -> Sequence[C]:
    """Return those that can take a job, in their order.

    Where none can do everything, files do not count: words take the place of one that a model cannot be shown. Where
    none can still, their providers have the last word.

    Raises:
        ProviderFailed: The prompt is too long for each of them.

    """
    return _roomy(job, _capable(job, candidates))


def _capable(job: Generate, candidates: Sequence[C]) -> Sequence[C]:
    if all(each.can is None for each in candidates):
        return candidates
    needs = frozenset(_needs(job))
    return (
        [each for each in candidates if _can(each, needs)]
        or [each for each in candidates if _can(each, needs - _WORDS_INSTEAD)]
        or candidates
    )


def _can(candidate: Candidate, needs: Collection[Capability]) -> bool:
    return candidate.can is None or all(need in candidate.can for need in needs)


def _needs(job: Generate) -> Iterator[Capability]:
    """Yield what a call asks of its model, some of it twice."""
    for message in job.messages:
        if isinstance(message, UserMessage):
            yield from filter(None, map(_needed_for, files_of(message)))
    sampling = job.sampling
    if job.tools:
        yield "tools"
    if sampling.response_format is not None:
        yield sampling.response_format.kind
    if sampling.choices > 1:
        yield "choices"
    if sampling.logprobs:
        yield "logprobs"
    if sampling.reasoning_effort not in _NO_REASONING:
        yield "reasoning"


def _needed_for(part: FilePart) -> Capability | None:
    # A text is put into words for any of them.
    if is_text(part):
        return None
    return "images" if is_image(part) else "files"


def _roomy(job: Generate, candidates: Sequence[C]) -> Sequence[C]:
    if all(each.context_tokens is None for each in candidates):
        return candidates
    prompt = estimate(job)
    answer = job.sampling.max_tokens or 0
    found = [each for each in candidates if _takes(each, prompt + answer)] or [
        each for each in candidates if _takes(each, prompt * (1 - DOUBT) + answer)
    ]
    if not found:
        raise failure(ErrorCode.UPSTREAM_CONTEXT)
    return found


def _takes(candidate: Candidate, wanted: float) -> bool:
    return candidate.context_tokens is None or wanted <= candidate.context_tokens


def estimate(job: Generate) -> int:
    """Estimate the tokens of a prompt, what is offered to call included."""
    offered = sum(len(tool.name) + len(tool.description) + len(bytes(tool.parameters)) for tool in job.tools)
    return tokens(total_characters(job.messages) + offered)
