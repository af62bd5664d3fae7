"""What one service tells another to do: imperative, addressed, at least once.

A command that grew past `INLINE_MAX_BYTES` travels as a `Parcel` that names the blob holding it. `carry` is the
state of a classic turn: every worker returns it untouched, and only the orchestrator reads it.
"""

from typing import Final, Literal

from msgspec import Raw, Struct

from kitemesh_contracts.content import CallResult, Message, Sampling, ToolSpec
from kitemesh_contracts.events import StepTimings

INLINE_MAX_BYTES: Final = 256 * 1024
"""Largest encoded message that travels by itself; see `Parcel`."""

Mode = Literal["classic", "durable"]
Priority = Literal["interactive", "batch"]


class Route(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a turn is answered, as the catalog resolved the request's `model`.

    Attributes:
        requested: What the client asked for, echoed in its answer.
        models: Catalog model ids to try, in order.
        pool: The model-runner pool that serves them.
        agent: Catalog agent whose prompt, history window and rules apply.

    """

    requested: str
    models: tuple[str, ...]
    pool: str
    agent: str | None = None


class StartTurn(Struct, frozen=True, kw_only=True, tag="turn.start", omit_defaults=True):
    """Begin a turn (gateway to orchestrator).

    Attributes:
        gateway: The replica that accepted the turn and holds its client.
        key: Id of the API key, empty for the anonymous principal.
        conversation: `None` when the caller asked that none be kept.
        fresh: The conversation is made by this turn.
        input: What is new in this request.
        stream: The client wants deltas; otherwise only the closing event is sent.
        budget_s: Seconds the whole turn may take, counted by each service on its own monotonic clock.
        accepted_at_ms: Epoch milliseconds on the gateway's clock; shown, never compared.
        tools: The caller's own tools, which are never run here.
        tool_choice: One of `TOOL_CHOICES`, or `tool:<name>`; holds for the first step only.
        parallel_calls: `False`: one call a step at the most.
        dialect: What the caller speaks; kept with a durable turn, so that any gateway goes on in the same words.
        include_usage: Its stream ends with the token counts.
        creates: A conversation of that id is made if there is none; the client chose the id.
        prompt: Takes the place of the agent's prompt, for this turn; `None` leaves it.
        denies_holds: Nobody can answer: a call that needs a person is denied.
        message: The client's own id of its message; empty when it gave none.
        row: The first of the integer ids that the turn's rows have; 0 when they have none.
        details: What the client wants kept with the turn: JSON text of an object, or empty.
        priority: One of `PRIORITIES`.
        max_wait_s: How long it may wait for its first model call; it is refused after that. `None`: its whole budget.

    """

    turn: str
    tenant: str
    gateway: str
    mode: Mode
    route: Route
    input: tuple[Message, ...]
    accepted_at_ms: int
    budget_s: float
    key: str = ""
    request: str | None = None
    conversation: str | None = None
    fresh: bool = False
    sampling: Sampling = Sampling()
    stream: bool = False
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = "auto"
    parallel_calls: bool | None = None
    dialect: str = ""
    include_usage: bool = False
    creates: bool = False
    prompt: str | None = None
    denies_holds: bool = False
    message: str = ""
    row: int = 0
    details: str = ""
    priority: Priority = "interactive"
    max_wait_s: float | None = None


class Mark(Struct, frozen=True, kw_only=True):
    """The last frame of a step."""

    step: int
    attempt: int
    n: int


class Generate(Struct, frozen=True, kw_only=True, tag="step.generate", omit_defaults=True):
    """Call a model once (orchestrator to model-runner).

    Attributes:
        messages: The whole prompt, in order.
        budget_s: Seconds left for this step, from when it was published.
        mode: `durable` from the first hold on, whatever the turn began as: it says what a lost client means.
        stored: The turn's state is in the store and `carry` is empty; a redelivered job claims its attempt there.
        after: Where the step before it ended; `None` when there is none that the reader follows.
        timings: What was spent before this was published; the worker returns them with its own.
        results: Of the calls of the step before, told in the first frame; long ones are cut.
        max_wait_s: What is left of the time that the turn may wait; `None` when nothing bounds it, or it has begun.

    """

    turn: str
    tenant: str
    gateway: str
    mode: Mode
    step: int
    attempt: int
    models: tuple[str, ...]
    messages: tuple[Message, ...]
    budget_s: float
    sampling: Sampling = Sampling()
    stream: bool = False
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = "auto"
    parallel_calls: bool | None = None
    stored: bool = False
    after: Mark | None = None
    timings: StepTimings = StepTimings()
    results: tuple[CallResult, ...] = ()
    max_wait_s: float | None = None
    carry: Raw = Raw(b"null")


class CallOrder(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call that may run: exactly these arguments, by exactly this tool.

    Attributes:
        id: The tool execution id.
        arguments: Canonical JSON text.
        sha256: Of `arguments`, hexadecimal.
        version: Of the tool's definition when the call was judged; another one is refused.

    """

    id: str
    name: str
    arguments: str
    sha256: str = ""
    version: str = ""


class RunCalls(Struct, frozen=True, kw_only=True, tag="calls.run", omit_defaults=True):
    """Run the calls of one step and pool, concurrently (orchestrator to tool-executor).

    Attributes:
        job: The job's number within the step.
        budget_s: Seconds left for the turn, from when this was published; a tool's own time-out may be shorter.
        stored: The turn's state is in the store and `carry` is empty.

    """

    turn: str
    tenant: str
    gateway: str
    mode: Mode
    step: int
    attempt: int
    calls: tuple[CallOrder, ...]
    budget_s: float
    job: int = 0
    stored: bool = False
    carry: Raw = Raw(b"null")


class ApplyHold(Struct, frozen=True, kw_only=True, tag="hold.apply", omit_defaults=True):
    """Do what a hold's document says (gateway or timer to orchestrator): it was decided, or has run out.

    Attributes:
        gateway: Who waits for the continuation; empty when nobody does.
        stream: It wants deltas.

    """

    turn: str
    tenant: str
    hold: str
    gateway: str = ""
    stream: bool = False


class CancelTurn(Struct, frozen=True, kw_only=True, tag="turn.cancel", omit_defaults=True):
    """Stop working on a turn (broadcast); repeated until its closing event is seen.

    Attributes:
        conversation: Where the turn may still be waiting; `None` when it began the conversation or keeps none.
        disconnect: The client is gone, which stops jobs of mode `classic` only.
        models: Asked of a gateway: what the key that asks may name; `None` is every model.
        ended: Nobody asked for it: a stored turn has ended. It stops what is in hand and is not remembered, for the
            turn may be requeued.

    """

    turn: str
    tenant: str
    reason: str
    conversation: str | None = None
    disconnect: bool = False
    models: tuple[str, ...] | None = None
    ended: bool = False


class Parcel(Struct, frozen=True, kw_only=True, tag="parcel"):
    """Stands for a message too large to travel: its bytes are the named blob."""

    tenant: str
    blob: str
    size: int


Command = StartTurn | Generate | RunCalls | ApplyHold | CancelTurn
