"""What a run of faults of servers found, as a table for people and as JSON for later."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from chaos.infra_found import Found, quantile

COLUMNS: Final = ("turns", "answered", "failed", "refused", "lost", "duplicated", "asked again", "resumed")


def render(found: Found) -> str:
    """Return the table of one scenario."""
    kinds = Counter(fault.kind for fault in found.faults)
    faults = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    lines = [f"{found.scenario}, seed {found.seed}: {len(found.faults)} faults ({faults}) in {found.took_s:.0f} s"]
    lines.append(f"{'':<10}" + "".join(f"{column:>13}" for column in COLUMNS))
    for mode in ("classic", "durable"):
        row = _row(found, mode)
        if row[0]:
            lines.append(f"{mode:<10}" + "".join(f"{value:>13}" for value in row))
    bound = f"{min(1.0, 3 / len(found.faults)):.1%}" if found.faults else "none"
    lines.append(f"95 % bound of a rate with no failure in {len(found.faults)} faults: {bound}")
    lines += [_times(name, values) for name, values in _measures(found).items()]
    return "\n".join(lines)


def write_json(found: Found, folder: Path) -> Path:
    """Keep what was found and return where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"chaos-{found.scenario}-{found.seed}.json"
    content: dict[str, Any] = {
        "scenario": found.scenario,
        "seed": found.seed,
        "took_s": round(found.took_s, 1),
        "faults": [{"kind": fault.kind, "first_s": fault.first_s} for fault in found.faults],
        "bound_95": min(1.0, 3 / len(found.faults)) if found.faults else None,
        "turns": {mode: dict(zip(COLUMNS, _row(found, mode), strict=True)) for mode in ("classic", "durable")},
        "times_s": {
            name: {"p50": quantile(values, 0.5), "p99": quantile(values, 0.99), "max": quantile(values, 1)}
            for name, values in _measures(found).items()
        },
        "violations": found.violations,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def _row(found: Found, mode: str) -> tuple[int, ...]:
    turns = [turn for turn in found.turns if turn.mode == mode]
    results = Counter(turn.result for turn in turns)
    return (
        len(turns),
        *(results[result] for result in ("answered", "failed", "refused")),
        len({turn.tag for turn in turns} & found.lost),
        len({turn.tag for turn in turns} & found.duplicated),
        sum(len(turn.asks) > 1 for turn in turns),
        sum(turn.resumes > 0 for turn in turns),
    )


def _measures(found: Found) -> dict[str, list[float]]:
    return {
        "first answer to a new turn": found.firsts_s(),
        "full service": found.fulls_s(),
        "added to a turn by a fault": found.stalls_s(),
        "refusal while a fault lasts": found.refusals_s(),
    }


def _times(name: str, values: Sequence[float]) -> str:
    listed = list(values)
    return (
        f"{name + ':':<30} p50 {quantile(listed, 0.5):6.2f} s, p99 {quantile(listed, 0.99):6.2f} s, "
        f"max {quantile(listed, 1):6.2f} s ({len(listed)})"
    )
