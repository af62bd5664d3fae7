"""What faults beside durable turns came to: a table for people and JSON for later.

A turn's recovery is counted from the last fault while it was under way: to the next thing that its client was told
(`sign`), and to its end. Turns that the fault did not touch count as well, so `touched` has those streams alone that
were silent for a second then, which none is by itself. A turn is accepted once its client has seen the headers of an
answer; before that it may be asked for again, and is counted by itself.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from chaos.chaos_durable_run import Found
from chaos.chaos_durable_turns import KINDS, DurableTurn

COLUMNS: Final = ("turns", "answered", "failed", "lost", "duplicated", "unknown", "asked again", "resumed")
TOUCHED_S: Final = 1.0


def render(found: Found) -> str:
    """Return the table."""
    doubt = f", ambiguity {found.ambiguity}" if found.ambiguity else ""
    lines = [f"durable, seed {found.seed}{doubt}: {len(found.faults)} faults in {found.took_s:.0f} s"]
    for (service, kind), count in sorted(Counter((fault.service, fault.kind) for fault in found.faults).items()):
        lines.append(f"  {service:<16}{kind:<24}{count:>5}")
    if found.doubted:
        told = ", ".join(f"{count} x {call}" for call, count in found.doubted.most_common())
        lines.append(f"  {found.doubted.total()} calls ran and were told as timed out: {told}")
    if found.missed:
        lines.append(f"  armed and not passed: {dict(found.missed)}")
    lines.append(f"{'':<10}" + "".join(f"{column:>13}" for column in COLUMNS))
    lines += [
        _line(kind, _row(found, [turn for turn in found.turns if turn.kind == kind])) for kind in dict.fromkeys(KINDS)
    ]
    lines.append(_line("all", _row(found, found.turns)))
    counts = {"faults": len(found.faults), "ambiguous calls": found.doubted.total(), "turns": len(found.turns)}
    lines += [
        f"95 % bound of a rate with no failure in {count} {what}: {3 / count:.2%}"
        for what, count in counts.items()
        if count
    ]
    lines += [_times(name, values) for name, values in measures(found).items() if values]
    lines.append(f"explicit errors: {sum(len(turn.errors) for turn in found.turns)}")
    lines += [f"slowest: {sentence}" for sentence in slowest(found)]
    return "\n".join(lines)


def write_json(found: Found, folder: Path) -> Path:
    """Keep what was found and return where."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "ambiguous" if found.ambiguity else "durable"
    path = folder / f"chaos-{name}-{found.seed}.json"
    content: dict[str, Any] = {
        "scenario": name,
        "seed": found.seed,
        "ambiguity": found.ambiguity,
        "took_s": round(found.took_s, 1),
        "faults": dict(Counter(f"{fault.service}: {fault.kind}" for fault in found.faults)),
        "missed": dict(found.missed),
        "doubted": dict(found.doubted),
        "bound_95": 3 / count if (count := len(found.faults) or found.doubted.total()) else None,
        "turns": dict(zip(COLUMNS, _row(found, found.turns), strict=True)),
        "times_s": {
            name: {"p50": _quantile(values, 0.5), "p99": _quantile(values, 0.99), "max": _quantile(values, 1)}
            for name, values in measures(found).items()
        },
        "slowest": slowest(found),
        "errors": [error for turn in found.turns for error in turn.errors],
        "violations": found.violations,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def measures(found: Found) -> dict[str, list[float]]:
    """Return times in seconds, sorted."""
    times_s = sorted(fault.at_s for fault in found.faults)
    named: dict[str, list[float]] = {
        "accepted: sign after a fault": [],
        "accepted: sign, if touched": [],
        "accepted: end after a fault": [],
        "not accepted: sign after a fault": [],
        "not accepted: behind a dead claim": [],
        "service whole after a fault": [fault.back_s for fault in found.faults if fault.back_s is not None],
    }
    signs, touched, ends, asked, behind, _ = named.values()
    for turn in found.turns:
        began_s, ended_s = turn.legs[0].began_s, turn.legs[-1].ended_s
        met = [at_s for at_s in times_s if began_s <= at_s <= ended_s]
        if not met or turn.result != "answered":
            continue
        sign_s = min((at_s for at_s in turn.progress_s if at_s > met[-1]), default=ended_s) - met[-1]
        if not turn.accepted_s or turn.accepted_s > met[-1]:
            (behind if turn.is_behind_claim else asked).append(sign_s)
            continue
        signs.append(sign_s)
        ends.append(ended_s - met[-1])
        if turn.stream and sign_s > TOUCHED_S:
            touched.append(sign_s)
    return {name: sorted(values) for name, values in named.items()}


def slowest(found: Found, count: int = 5) -> list[str]:
    """Name the turns that took longest."""
    ended = [turn for turn in found.turns if turn.legs]
    ended.sort(key=_took_s, reverse=True)
    return [f"{_took_s(turn):.1f} s: {turn.kind} {turn.tag} {turn.execution} {turn.problem}" for turn in ended[:count]]


def _took_s(turn: DurableTurn) -> float:
    return turn.legs[-1].ended_s - turn.legs[0].began_s


def _row(found: Found, turns: Sequence[DurableTurn]) -> tuple[int, ...]:
    verdict = found.verdict
    results = Counter(turn.result for turn in turns)
    tags = {tag for turn in turns for tag in turn.tags} | {turn.tag for turn in turns}
    return (
        len(turns),
        results["answered"],
        results["failed"],
        sum(bool({turn.tag, turn.execution} & verdict.lost) for turn in turns),
        len(tags & verdict.duplicated),
        len(tags & verdict.unknown),
        sum(turn.again > 0 for turn in turns),
        sum(turn.resumes > 0 for turn in turns),
    )


def _line(name: str, row: Sequence[int]) -> str:
    return f"{name:<10}" + "".join(f"{value:>13}" for value in row)


def _times(name: str, values: Sequence[float]) -> str:
    return (
        f"{name + ':':<32} p50 {_quantile(values, 0.5):6.2f} s, p99 {_quantile(values, 0.99):6.2f} s, "
        f"max {_quantile(values, 1):6.2f} s ({len(values)})"
    )


def _quantile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0
