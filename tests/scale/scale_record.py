"""What is kept of a run, turn by turn and moment by moment, and the figures that follow from it. Pure."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from msgspec import Struct

Kind = Literal["turn", "tool", "stream"]


class Turn(Struct, frozen=True, kw_only=True):
    """A turn that ended, in seconds since the run began.

    Attributes:
        asked_s: When its client first asked.
        began_s: When the request was sent that was accepted.
        waited_s: In the queue of the model-runners, as the turn's own record has it; `None` of streams.
        again: Requests before that, refused or unanswered because their gateway was full or had left.
        resumes: Times that its client came back for the rest.
        problem: Why it failed; empty where all of the answer came.

    """

    kind: Kind
    durable: bool
    asked_s: float
    began_s: float
    ended_s: float
    waited_s: float | None = None
    again: int = 0
    resumes: int = 0
    problem: str = ""


class Sample(Struct, frozen=True, kw_only=True):
    """What the replicas' metrics said at a moment.

    Attributes:
        predicted_s: The gauge of the wait for a model-runner; `None` while nobody knows.
        streams: Open at all gateways.
        tool_waited_s: Of all jobs of tool-executors so far, added up.
        tool_jobs: How many that were.

    """

    at_s: float
    predicted_s: float | None
    streams: float
    tool_waited_s: float
    tool_jobs: float


class Change(Struct, frozen=True, kw_only=True):
    """A replica that came, ready for work, or was told to leave.

    Attributes:
        count: Replicas of its service from then on.

    """

    at_s: float
    service: str
    count: int
    how: Literal["came", "SIGTERM", "SIGKILL"]


class Step(Struct, frozen=True, kw_only=True):
    """A time in which nothing changed.

    Attributes:
        measured_s: From when on its turns are counted: those asked before saw the step before.
        clients: Each asks again as soon as it is answered.
        slots: Of all replicas together.

    """

    scene: str
    service: str
    replicas: int
    slots: int
    clients: int
    measured_s: float
    ended_s: float


class Scene(Struct, frozen=True, kw_only=True):
    """A part of the run."""

    name: str
    began_s: float
    ended_s: float


class Run(Struct, kw_only=True):
    """Everything of a run.

    Attributes:
        left: The exit status of each replica that was told to leave; a signal that ended it is negative.

    """

    command: str
    machine: str
    slots: int
    turns: list[Turn] = []
    samples: list[Sample] = []
    changes: list[Change] = []
    steps: list[Step] = []
    scenes: list[Scene] = []
    left: dict[str, int] = {}


def quantile(values: Iterable[float], share: float) -> float:
    """Return the value below which a share of them lies; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def within(step: Step, turns: Iterable[Turn], kind: Kind) -> list[Turn]:
    """Return the turns that were asked and ended in a step's measured time."""
    return [
        turn for turn in turns if turn.kind == kind and turn.asked_s >= step.measured_s and turn.ended_s <= step.ended_s
    ]


def per_s(step: Step, turns: Iterable[Turn], kind: Kind) -> float:
    """Return how many turns ended a second in a step's measured time."""
    ended = sum(turn.kind == kind and step.measured_s <= turn.ended_s <= step.ended_s for turn in turns)
    return ended / (step.ended_s - step.measured_s)


def expected_wait_s(step: Step, service_s: float) -> float:
    """Return the wait that Little's law has for a step whose every slot is busy."""
    return max(0.0, step.clients * service_s / step.slots - service_s)


def tool_wait_s(step: Step, samples: Sequence[Sample]) -> float:
    """Return the mean wait of a step's tool jobs, from the metrics' differences; NaN without any."""
    seen = _during(step, samples)
    jobs = seen[-1].tool_jobs - seen[0].tool_jobs if seen else 0.0
    return (seen[-1].tool_waited_s - seen[0].tool_waited_s) / jobs if jobs else float("nan")


def mean(step: Step, samples: Sequence[Sample], value: Callable[[Sample], float | None]) -> float:
    """Return the mean of what the metrics said in a step; NaN where they said nothing."""
    said = [each for sample in _during(step, samples) if (each := value(sample)) is not None]
    return sum(said) / len(said) if said else float("nan")


def _during(step: Step, samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if step.measured_s <= sample.at_s <= step.ended_s]
