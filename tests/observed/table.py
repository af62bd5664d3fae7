"""What a run found, as Markdown, and what of it is wrong."""

from collections.abc import Iterator, Sequence

from observed.run import Found


def wrong(found: Found, alerts: Sequence[str]) -> list[str]:
    """List, a sentence each, what does not hold; `alerts` are all that there are."""
    return list(_wrong(found, alerts))


def _wrong(found: Found, alerts: Sequence[str]) -> Iterator[str]:
    played = {each.alert for each in found.fired}
    for name in sorted(set(alerts) - played):
        yield f"{name}: no fault is to make it fire"
    for name in sorted(played - set(alerts)):
        yield f"{name}: there is no such alert"
    for each in found.fired:
        if each.after_s is None:
            yield f"{each.alert} did not fire: {each.fault}"
    for name in found.early:
        yield f"{name} fired in the healthy minute"
    for query in found.shown:
        if not query.series:
            yield f"{query.dashboard}, {query.panel}: no data: {query.expr}"
    for name, series in found.recorded.items():
        if not series:
            yield f"{name}: no data"
    yield from found.broken_rules


def render(found: Found) -> str:
    """Write the tables."""
    panels: dict[tuple[str, str], list[int]] = {}
    for query in found.shown:
        panels.setdefault((query.dashboard, query.panel), []).append(query.series)
    lines = ["| dashboard | panel | series of each query |", "|---|---|---|"]
    lines += [f"| {board} | {panel} | {', '.join(map(str, counts))} |" for (board, panel), counts in panels.items()]
    lines += ["", "| recorded | series |", "|---|---|"]
    lines += [f"| `{name}` | {series} |" for name, series in found.recorded.items()]
    lines += ["", "| alert | fault | fired after |", "|---|---|---|"]
    for each in sorted(found.fired):
        after = "never" if each.after_s is None else f"{each.after_s:.0f} s"
        lines.append(f"| {each.alert} | {each.fault} | {after} |")
    return "\n".join(lines)
