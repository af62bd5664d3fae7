"""A run of turns over failing upstreams, and what was wrong: stuck turns, false successes, hammered upstreams."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from chaos.infra_found import quantile
from chaos.rest import await_rest
from chaos.upstream_turns import (
    LATE_PLAN,
    MARK,
    UpstreamClient,
    UpstreamTurn,
    catalog_at,
    is_whole,
    open_session,
    plan,
)
from cluster import Cluster, running_cluster
from upstream import Upstream, start_upstream
from upstream_faults import FAULTS, WORDS, Fault, model_of

TURNS: Final = 2000
CLIENTS: Final = 48
LATE_S: Final = (1.0, 6.0)
"""How long the upstream that comes and goes is well, or is not."""
TOOK_MAX_S: Final = 20.0
"""Two models of a group may use up their time-outs, one of them twice, and everybody waits for the machine."""
FAILURES_MAX: Final = 10
MARGIN_S: Final = 0.02
"""Between the end of a call at the stub and the line in the runner's log that says what it led to."""
STATUSES: Final = frozenset({429, 502, 504})
TYPES: Final = frozenset({"rate_limit_error", "upstream_error", "upstream_timeout"})


class Opening(NamedTuple):
    """How the breaker over an upstream that never answers opened first.

    Attributes:
        failures: That it had seen then.
        calls: Of the whole run.

    """

    name: str
    failures: int
    calls: int


@dataclass
class Found:
    """What a run found."""

    seed: int
    turns: list[UpstreamTurn] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    calls: int = 0
    took_s: float = 0.0
    violations: list[str] = field(default_factory=list)


@contextmanager
def upstream_cluster(folder: Path) -> Iterator[tuple[Cluster, Upstream]]:
    """Run a stub and a cluster that knows it while inside."""
    with start_upstream(folder / "upstream.log") as upstream:
        path = folder / "catalog.yaml"
        path.write_text(yaml.safe_dump(catalog_at(upstream.url)))
        with running_cluster(folder, KITEMESH_CATALOG=str(path)) as cluster:
            yield cluster, upstream


def play(folder: Path, *, seed: int, turns: int = TURNS, say: Callable[[str], None] = print) -> Found:
    """Run so many turns on a cluster of their own."""
    with upstream_cluster(folder) as (cluster, upstream):
        return asyncio.run(run(cluster, upstream, seed=seed, turns=turns, say=say))


async def run(
    cluster: Cluster, upstream: Upstream, *, seed: int, turns: int, say: Callable[[str], None] = print
) -> Found:
    """Have clients ask for all turns, as many at once as there are clients, and judge what came of them."""
    rng = random.Random(seed)
    found = Found(seed, plan(rng, turns))
    began_s = time.monotonic()
    left = iter(found.turns)
    async with open_session() as session:
        client = UpstreamClient(cluster.origin, cluster.key, session)

        async def work() -> None:
            for turn in left:
                await client.drive(turn)

        coming_and_going = asyncio.create_task(_come_and_go(upstream, random.Random(seed)))
        await asyncio.gather(*(work() for _ in range(CLIENTS)))
        coming_and_going.cancel()
    say(f"{turns} turns asked in {time.monotonic() - began_s:.0f} s")
    stuck = await await_rest(cluster)
    records = await upstream.records()
    found.calls = len(records)
    found.openings = list(_openings(cluster, records))
    found.violations = [*stuck, *_judge_turns(found.turns), *_judge_calls(records), *_judge_openings(found.openings)]
    found.took_s = time.monotonic() - began_s
    return found


async def _come_and_go(upstream: Upstream, rng: random.Random) -> None:
    while True:
        for text in ("", "failing"):
            await upstream.plan(text, model=LATE_PLAN)
            await asyncio.sleep(rng.uniform(*LATE_S))


def _judge_turns(turns: list[UpstreamTurn]) -> Iterator[str]:
    for turn in turns:
        wrong = turn.problem or _wrong_end(turn)
        if wrong:
            yield f"turn {turn.tag!r} ({turn.kind}, {turn.result}): {wrong}"
        if turn.took_s > TOOK_MAX_S:
            yield f"turn {turn.tag!r} ({turn.kind}) took {turn.took_s:.1f} s"


def _wrong_end(turn: UpstreamTurn) -> str:
    match turn.result:
        case "answered":
            return "" if is_whole(turn.shown) else f"a success that is not whole: {turn.shown!r}"
        case "left":
            return ""
        case "stuck":
            return "nothing came of it"
    fault = _fault_of(turn)
    if turn.result == "refused" and turn.status not in STATUSES | ({400} if fault.status == 400 else set()):
        return f"status {turn.status}"
    if turn.error.get("type") not in TYPES | ({"invalid_request_error"} if fault.status == 400 else set()):
        return f"an error of another kind: {turn.error}"
    if not WORDS.startswith(turn.shown):
        return f"it showed {turn.shown!r}"
    if turn.kind == "group of two" and fault.elsewhere and not fault.begins:
        return f"no other model of its group answered: {turn.error}"
    return ""


def _fault_of(turn: UpstreamTurn) -> Fault:
    return FAULTS.get(turn.tag.partition(": ")[2], Fault("", 502))


def _judge_calls(records: list[dict[str, Any]]) -> Iterator[str]:
    calls = Counter((record["asked"], record["model"]) for record in records)
    for (asked, model), count in calls.items():
        if count > 2:
            yield f"turn {asked!r} called {model} {count} times"
    unended = sum(record["end"] is None for record in records)
    if unended:
        yield f"{unended} calls were never ended"


def _openings(cluster: Cluster, records: list[dict[str, Any]]) -> Iterator[Opening]:
    """Read from the model-runner's log when each breaker opened, and from the stub what it had done until then."""
    opened_s = _opened_s(cluster.data / "logs" / "model-runner.log")
    for name, fault in FAULTS.items():
        if fault.against and fault.plan:
            upstream = model_of(fault, MARK)["upstream"]
            calls = [each for each in records if each["model"] == upstream]
            first_s = opened_s.get(upstream)
            if first_s is not None:
                yield Opening(name, sum(each.get("ended_s", inf) <= first_s + MARGIN_S for each in calls), len(calls))
            elif len(calls) > FAILURES_MAX:
                yield Opening(name, len(calls), len(calls))


def _opened_s(log: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in log.read_text(errors="replace").splitlines():
        if '"upstream.judged"' in line and (said := json.loads(line))["state"] == "open":
            at_s = datetime.fromisoformat(said["timestamp"]).timestamp()
            found.setdefault(said["model"], at_s)
    return found


def _judge_openings(openings: list[Opening]) -> Iterator[str]:
    for opening in openings:
        if opening.failures > FAILURES_MAX:
            yield f"the breaker over {opening.name!r} saw {opening.failures} failures before it opened"


def render(found: Found) -> str:
    """Return the tables."""
    lines = [f"seed {found.seed}: {len(found.turns)} turns, {found.calls} model calls, {found.took_s:.0f} s"]
    for kind in ("alone", "group of two", "group of three"):
        turns = [turn for turn in found.turns if turn.kind == kind]
        results = Counter(turn.result for turn in turns)
        told = ", ".join(f"{count} {result}" for result, count in sorted(results.items()))
        times = sorted(turn.took_s for turn in turns)
        spread = ", ".join(
            f"{name} {quantile(times, q):.2f} s" for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1))
        )
        lines.append(f"  {kind:<16}{len(turns):>6} turns: {told}; {spread}")
    worst = sorted(found.openings, key=lambda each: -each.failures)[:8]
    lines += [f"  breaker over {each.name!r}: {each.failures} failures, {each.calls} calls in all" for each in worst]
    bound = 3 / len(found.turns) if found.turns else 1.0
    lines.append(f"  {len(found.violations)} violations; none in so many turns bounds their rate at {bound:.2%} (95 %)")
    return "\n".join(lines)


def write_json(found: Found, folder: Path) -> Path:
    """Keep what was found and return where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"chaos-upstreams-{found.seed}.json"
    times = sorted(turn.took_s for turn in found.turns)
    content = {
        "scenario": "upstreams",
        "seed": found.seed,
        "took_s": round(found.took_s, 1),
        "turns": Counter(f"{turn.kind}: {turn.result}" for turn in found.turns),
        "times_s": {f"p{round(100 * q)}": round(quantile(times, q), 3) for q in (0.5, 0.99, 1)},
        "calls": found.calls,
        "openings": [opening._asdict() for opening in found.openings],
        "violations": found.violations,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path
