"""What a chaos run found, counted and printed: point by class, totals, the bound they give, and times of recovery."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from chaos.chaos_rounds import Kill, Played
from chaos.chaos_turns import Leg, Turn
from chaos.effect_catalog import EFFECTS
from chaos.faulty_cluster import POINTS
from chaos.invariants import Verdict

COLUMNS: Final = ("faults", "turns", "answered", "failed", "lost", "duplicated", "unknown")


class Recovery(NamedTuple):
    """Seconds from a kill to the end of a request that was under way then, sorted.

    Attributes:
        first: From the first kill while it was under way.
        last: From the last one.

    """

    first: list[float]
    last: list[float]


def recovery(played: Sequence[Played]) -> Recovery:
    """Measure what became of requests that were under way when a process died."""
    first, last = [], []
    for each in played:
        for leg in (leg for turn in each.turns for leg in turn.legs):
            hit = [kill.at_s for kill in each.kills if _beside(leg, kill)]
            if hit:
                first.append(leg.ended_s - min(hit))
                last.append(leg.ended_s - max(hit))
    return Recovery(sorted(first), sorted(last))


def render(played: Sequence[Played], verdict: Verdict) -> str:
    """Return the table; a turn counts at every kill that it was under way at, and once in the totals."""
    lines = [f"{'point':<22}{'class':<8}" + "".join(f"{column:>11}" for column in COLUMNS)]
    for point in POINTS:
        for effect in EFFECTS:
            kills = [kill for each in played for kill in each.kills if (kill.point, kill.effect) == (point, effect)]
            if kills:
                lines.append(_row(point, effect, len(kills), _turns_beside(played, kills), verdict))
    kills = [kill for each in played for kill in each.kills]
    turns = [turn for each in played for turn in each.turns]
    lines.append(_row("under way at a kill", "", len(kills), _turns_beside(played, kills), verdict))
    lines.append(_row("all", "", len(kills), turns, verdict))
    bound = f"{3 / len(kills):.1%}" if kills else "none"
    lines.append("")
    lines.append(f"95 % bound of a rate with no failure in {len(kills)} faults: {bound}")
    times = recovery(played)
    for name, values in (("first", times.first), ("last", times.last)):
        lines.append(
            f"recovery from the {name} kill of a request under way: p50 {_quantile(values, 0.5):.1f} s, "
            f"p99 {_quantile(values, 0.99):.1f} s, max {_quantile(values, 1):.1f} s ({len(values)} requests)"
        )
    return "\n".join(lines)


def _row(point: str, effect: str, faults: int, turns: Sequence[Turn], verdict: Verdict) -> str:
    tags = {tag for turn in turns for tag in turn.tags}
    counts = (
        faults,
        len(turns),
        sum(turn.result == "answered" for turn in turns),
        sum(turn.result in ("failed", "refused") for turn in turns),
        sum((turn.execution or turn.tag) in verdict.lost for turn in turns),
        len(tags & verdict.duplicated),
        len(tags & verdict.unknown),
    )
    return f"{point:<22}{effect:<8}" + "".join(f"{count:>11}" for count in counts)


def _turns_beside(played: Iterable[Played], kills: Sequence[Kill]) -> list[Turn]:
    return [
        turn
        for each in played
        for turn in each.turns
        if any(_beside(leg, kill) for leg in turn.legs for kill in kills if kill in each.kills)
    ]


def _beside(leg: Leg, kill: Kill) -> bool:
    return leg.began_s <= kill.at_s <= leg.ended_s


def _quantile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0
