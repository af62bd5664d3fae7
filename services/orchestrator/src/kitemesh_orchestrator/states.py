"""What a turn is between two events: frozen values that travel in messages or are kept in the store. Pure.

What an older replica put into a message must stay readable, so fields are only added, with a default.
"""

from typing import Literal

from msgspec import Struct

from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.content import Message, Step, Usage
from kitemesh_contracts.events import StepTimings
from kitemesh_runtime.ledger import Effect
from kitemesh_runtime.live_turns import Job


class Limits(Struct, frozen=True, kw_only=True):
    """What the turn may still begin.

    Attributes:
        steps: Model calls in all.
        tokens: Of all steps; `None` sets no bound.

    """

    steps: int = 25
    tokens: int | None = None


class Asked(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call of the current step and what is to become of it.

    Attributes:
        do: `run` here, `hold` for a person, leave to the `client`; `done` once it has a result.
        arguments: Canonical JSON text, exactly as it will run.
        sha256: Of `arguments`.
        version: Of the tool.
        edited: A person changed the arguments.

    """

    id: str
    name: str
    do: Literal["run", "hold", "client", "done"]
    arguments: str = ""
    sha256: str = ""
    version: str = ""
    effect: Effect = "once"
    pool: str = ""
    sentence: str = ""
    shown: str = ""
    edited: bool = False


class Accepted(Struct, frozen=True, kw_only=True, tag="accepted"):
    """Nothing has been done yet."""

    start: StartTurn


class Past(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a turn had come when it was given up: what is of then, or of before, is not of the turn as it goes on.

    Attributes:
        attempt: The newest one of the step's jobs.
        calling: The step's calls ran; else its model was asked.

    """

    step: int
    attempt: int
    calling: bool = False


class _Running(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What all turns have that are under way.

    Attributes:
        ordinal: The turn's number within its conversation; 0 when none is kept.
        durable: The state is in the store, and nowhere else.
        held: It was held once: its client may come and go.
        steps: The steps that are over.
        usage: Of the steps that are over, and of the current one once it has answered.
        spent_s: Time in queues and in work, holds not counted.
        shown: The prompt that the first step was given, when further ones may follow; empty in the store, where the
            history is read again.
        calls_made: Tool calls so far.
        spared: Attempts of the current step up to which none counts: the turn was given up, and requeued.
        billed: The part of `usage` that was counted when the turn was given up.
        past: How far it had come when it was given up; `None` when it never was.

    """

    start: StartTurn
    ordinal: int
    durable: bool = False
    held: bool = False
    steps: tuple[Step, ...] = ()
    usage: Usage = Usage()
    spent_s: float = 0.0
    timings: StepTimings = StepTimings()
    shown: tuple[Message, ...] = ()
    calls_made: int = 0
    spared: int = 0
    billed: Usage = Usage()
    past: Past | None = None


class Generating(_Running, frozen=True, kw_only=True, tag="generating", omit_defaults=True):
    """A model is asked.

    Attributes:
        attempt: The newest attempt that was published.

    """

    step: int
    attempt: int


class Calling(_Running, frozen=True, kw_only=True, tag="calling", omit_defaults=True):
    """Calls of a step run or are held; the next model call waits for every result.

    Attributes:
        said: The step, with the results so far.
        jobs: What was published and has no result.
        jobs_made: Jobs of the step so far; the next one's number.
        hold: The step's hold, from when there was one.
        expires_at_ms: Of that hold, by the store's clock.
        longest_s: What the job that took longest took.

    """

    said: Step
    asked: tuple[Asked, ...]
    limits: Limits = Limits()
    jobs: tuple[Job, ...] = ()
    jobs_made: int = 0
    hold: str | None = None
    expires_at_ms: int = 0
    longest_s: float = 0.0

    @property
    def undecided(self) -> tuple[Asked, ...]:
        """The calls that wait for a person."""
        return tuple(call for call in self.asked if call.do == "hold")

    @property
    def paused(self) -> bool:
        """Nothing runs, and only a person's answer can go on."""
        return not self.jobs and bool(self.undecided)


class Ended(Struct, frozen=True, kw_only=True, tag="ended"):
    """Nothing will be done any more."""

    start: StartTurn


Running = Generating | Calling
State = Accepted | Generating | Calling | Ended


def is_durable(state: State) -> bool:
    """Tell whether the state is kept in the store."""
    return isinstance(state, Generating | Calling) and state.durable


def outstanding(state: State) -> tuple[Job, ...]:
    """Return the jobs that have no result, which may be published again at any time."""
    match state:
        case Generating():
            return (Job(kind="model", step=state.step, attempt=state.attempt, pool=state.start.route.pool),)
        case Calling():
            return state.jobs
        case Accepted() | Ended():
            return ()
