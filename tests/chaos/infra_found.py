"""What a run of faults of servers found: the faults, the turns, what was wrong, and how soon all was well again."""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from chaos.load_turns import DELAY_MS, WORDS, LoadTurn

NOMINAL_S: Final = WORDS * DELAY_MS / 1000
"""What a turn's text takes by itself."""


class Bounds(NamedTuple):
    """What is promised, in seconds; `None` is not.

    Attributes:
        first_s: From the reference of a fault to the end of the first answer to a new turn.
        full_s: From the same reference until every request is answered in full and stored.
        stall_s: What a fault adds to a turn that it meets.
        refusal_s: From a request to its refusal, while a fault lasts.

    """

    first_s: float | None = None
    full_s: float | None = None
    stall_s: float | None = None
    refusal_s: float | None = None


class Fault(NamedTuple):
    """A fault that happened, in seconds of the monotonic clock.

    Attributes:
        since_s: From when recovery counts: when the server was back, or when it was hit where others take over.
        first_s: From then to the end of the first answer to a turn begun later; `None` when there was none in time.

    """

    kind: str
    began_s: float
    since_s: float
    healed_s: float
    first_s: float | None


@dataclass
class Found:
    """What a run found.

    Attributes:
        lost: Tags of turns with no end.
        duplicated: Tags of turns whose text was shown or stored twice, in part or whole.

    """

    scenario: str
    seed: int
    bounds: Bounds
    faults: list[Fault] = field(default_factory=list)
    turns: list[LoadTurn] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    duplicated: set[str] = field(default_factory=set)
    took_s: float = 0.0

    def stalls_s(self) -> list[float]:
        """Return what the faults added to each answered turn that one of them met."""
        return sorted(
            turn.ended_s - turn.began_s - NOMINAL_S
            for turn in self.turns
            if turn.result == "answered" and any(_beside(turn, fault) for fault in self.faults)
        )

    def firsts_s(self) -> list[float]:
        """Return how long each fault kept new turns waiting."""
        return sorted(fault.first_s for fault in self.faults if fault.first_s is not None)

    def fulls_s(self) -> list[float]:
        """Return from when on, after each fault, every request was answered in full and stored."""
        ends = [fault.began_s for fault in self.faults[1:]] + [float("inf")]
        return sorted(self._full_s(fault, end_s) for fault, end_s in zip(self.faults, ends, strict=True))

    def refusals_s(self) -> list[float]:
        """Return how long each refusal took that was given while a fault lasted."""
        return sorted(
            ask.ended_s - ask.began_s
            for turn in self.turns
            for ask in turn.asks
            if ask.status != 200 and any(fault.began_s <= ask.began_s <= fault.healed_s for fault in self.faults)
        )

    def _full_s(self, fault: Fault, end_s: float) -> float:
        bad = [
            ask.began_s - fault.since_s
            for turn in self.turns
            for ask in turn.asks
            if fault.since_s <= ask.began_s and ask.ended_s < end_s and not (ask.good and ask.stored)
        ]
        return max([*bad, fault.first_s or 0.0])


def _beside(turn: LoadTurn, fault: Fault) -> bool:
    return turn.began_s <= fault.healed_s and turn.ended_s >= fault.began_s


def quantile(values: list[float], share: float) -> float:
    """Return a quantile of sorted values, 0 where there are none."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0
