"""What has happened: past tense, published and acknowledged before the job that caused it is acknowledged."""

from msgspec import Raw, Struct

from kitemesh_contracts.content import Alternative, CallResult, FinishReason, Logprob, ToolCall, Usage
from kitemesh_contracts.errors import ErrorInfo


class StepTimings(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the time of one model call went, in milliseconds.

    Attributes:
        queued_ms: From the command's publication to its delivery, by the bus's clock and the worker's.
        first_token_ms: From the request to the provider's first delta; `None` if there was none.
        total_ms: From the delivery to the result.
        start_queued_ms: What the turn's start waited in its queue.
        orchestrator_ms: From the start's delivery to the first job's publication.
        runner_ms: The part of `total_ms` in which no provider worked: before it was asked, and after its end.

    """

    queued_ms: float = 0.0
    first_token_ms: float | None = None
    total_ms: float = 0.0
    start_queued_ms: float = 0.0
    orchestrator_ms: float = 0.0
    runner_ms: float = 0.0


class StepGenerated(Struct, frozen=True, kw_only=True, tag="step.generated", omit_defaults=True):
    """A model answered.

    Attributes:
        model: Catalog id of the model that answered.
        last: Number of the last delta frame published for this attempt; 0 when none was.
        alternatives: The further choices, where more than one was asked for.
        logprobs: Of the tokens of `text`, where they were asked for.

    """

    turn: str
    tenant: str
    step: int
    attempt: int
    model: str
    finish: FinishReason
    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    usage: Usage = Usage()
    last: int = 0
    timings: StepTimings = StepTimings()
    alternatives: tuple[Alternative, ...] = ()
    logprobs: tuple[Logprob, ...] = ()
    carry: Raw = Raw(b"null")


class StepFailed(Struct, frozen=True, kw_only=True, tag="step.failed", omit_defaults=True):
    """A model call ended without an answer; `text` is what had been generated."""

    turn: str
    tenant: str
    step: int
    attempt: int
    error: ErrorInfo
    model: str = ""
    text: str = ""
    usage: Usage = Usage()
    last: int = 0
    timings: StepTimings = StepTimings()
    carry: Raw = Raw(b"null")


class StepCancelled(Struct, frozen=True, kw_only=True, tag="step.cancelled", omit_defaults=True):
    """A model call was stopped on request; `text` is what had been generated."""

    turn: str
    tenant: str
    step: int
    attempt: int
    reason: str
    model: str = ""
    text: str = ""
    usage: Usage = Usage()
    last: int = 0
    timings: StepTimings = StepTimings()
    carry: Raw = Raw(b"null")


class StepReleased(Struct, frozen=True, kw_only=True, tag="step.released", omit_defaults=True):
    """A worker hands a job back untouched; the orchestrator publishes the next attempt.

    Attributes:
        job: The command, `step.generate` or `calls.run`, as it was received, so that it can be sent again.

    """

    turn: str
    tenant: str
    step: int
    attempt: int
    reason: str
    job: Raw


class CallsReturned(Struct, frozen=True, kw_only=True, tag="call.returned", omit_defaults=True):
    """Every call of a job has a result.

    Attributes:
        job: The job's number within the step.
        total_ms: From the delivery to the last result, and before it from publication to delivery.
        cancelled: Why the job was stopped on request; its other results are true all the same.

    """

    turn: str
    tenant: str
    step: int
    attempt: int
    results: tuple[CallResult, ...]
    job: int = 0
    total_ms: float = 0.0
    cancelled: str | None = None
    carry: Raw = Raw(b"null")


Event = StepGenerated | StepFailed | StepCancelled | StepReleased | CallsReturned
"""What orchestrators consume from `KM_EVENT`."""
