"""What the scaling proof found, as Markdown. Pure."""

from collections.abc import Iterator, Sequence
from typing import Final

from scale.scale_record import (
    Kind,
    Run,
    Step,
    Turn,
    expected_wait_s,
    mean,
    per_s,
    quantile,
    tool_wait_s,
    within,
)
from scale.scale_scenes import EXECUTORS, GATEWAYS, LEAVING, RUNNERS
from scale.scale_stage import STREAMS
from scale.scale_upstream import LATENCY_S, TOOL_S

BEGIN: Final = "<!-- scale-demo -->"
END: Final = "<!-- /scale-demo -->"


def render(run: Run) -> str:
    """Return every table."""
    parts = (_runners(run), _executors(run), _gateways(run), _leaving(run), _totals(run))
    return "\n\n".join("\n".join(lines) for lines in parts)


def failures(run: Run) -> list[Turn]:
    """Return the turns that failed."""
    return [turn for turn in run.turns if turn.problem]


def placed(text: str, tables: str) -> str:
    """Return a document with its tables replaced."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def _steps(run: Run, scene: str) -> list[Step]:
    return [step for step in run.steps if step.scene == scene]


def _runners(run: Run) -> Iterator[str]:
    yield (
        f"**Model-runners**, {run.slots} slots each, an upstream that takes {LATENCY_S * 1000:.0f} ms. "
        "*Wait*: in the model queue, from each turn's own `Server-Timing`; *expected*: by Little's law; *gauge*: the "
        "mean of `kitemesh_predicted_wait_seconds`."
    )
    yield ""
    yield "| runners | clients | turns/s | wait p50 | wait p99 | expected | gauge | turns measured | failed |"
    yield "|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for step in _steps(run, RUNNERS):
        turns = within(step, run.turns, "turn")
        waits = [turn.waited_s for turn in turns if turn.waited_s is not None]
        gauge = mean(step, run.samples, lambda sample: sample.predicted_s)
        yield _row(
            step.replicas,
            step.clients,
            f"{per_s(step, run.turns, 'turn'):.1f}",
            f"{quantile(waits, 0.5):.2f} s",
            f"{quantile(waits, 0.99):.2f} s",
            f"{expected_wait_s(step, LATENCY_S):.2f} s",
            f"{gauge:.2f} s",
            len(turns),
            _failed(turns),
        )


def _executors(run: Run) -> Iterator[str]:
    yield (
        f"**Tool-executors**, {run.slots} slots each, a tool that takes {TOOL_S * 1000:.0f} ms; each turn calls it "
        "once. *Wait*: the mean of `kitemesh_queue_wait_seconds` over all executors."
    )
    yield ""
    yield "| executors | clients | turns/s | wait, mean | expected | turn p50 | turn p99 | turns measured | failed |"
    yield "|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for step in _steps(run, EXECUTORS):
        turns = within(step, run.turns, "tool")
        took = [turn.ended_s - turn.asked_s for turn in turns]
        yield _row(
            step.replicas,
            step.clients,
            f"{per_s(step, run.turns, 'tool'):.1f}",
            f"{tool_wait_s(step, run.samples):.2f} s",
            f"{expected_wait_s(step, TOOL_S):.2f} s",
            f"{quantile(took, 0.5):.2f} s",
            f"{quantile(took, 0.99):.2f} s",
            len(turns),
            _failed(turns),
        )


def _gateways(run: Run) -> Iterator[str]:
    yield (
        f"**Gateways**, each told to take at most {STREAMS} open turns (`KITEMESH_MAX_STREAMS`). Who is refused (429, "
        "`Retry-After`) asks again. *Open*: the mean of `kitemesh_streams_open` over all gateways."
    )
    yield ""
    yield "| gateways | clients | open | room for | asking to be let in | streams ended/s | streams measured | failed |"
    yield "|--:|--:|--:|--:|--:|--:|--:|--:|"
    for step in _steps(run, GATEWAYS):
        turns = within(step, run.turns, "stream")
        open_streams = mean(step, run.samples, lambda sample: sample.streams)
        yield _row(
            step.replicas,
            step.clients,
            f"{open_streams:.0f}",
            min(step.clients, step.replicas * STREAMS),
            f"{step.clients - open_streams:.0f}",
            f"{per_s(step, run.turns, 'stream'):.1f}",
            len(turns),
            _failed(turns),
        )


def _leaving(run: Run) -> Iterator[str]:
    scene = next(each for each in run.scenes if each.name == LEAVING)
    turns = [turn for turn in run.turns if turn.asked_s >= scene.began_s]
    gone = [change for change in run.changes if change.how != "came"]
    listed = ", ".join(f"{change.service} {change.how}" for change in gone)
    yield f"**Replicas leave** under load, one after another: {listed}."
    yield ""
    yield "| turns | ended | took p50 | p99 | longest | asked again elsewhere | resumed elsewhere | failed |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    kinds: tuple[tuple[str, Kind, bool], ...] = (
        ("whole answers, classic", "turn", False),
        ("whole answers, durable", "turn", True),
        ("with a tool, classic", "tool", False),
        ("streams, classic", "stream", False),
        ("streams, durable", "stream", True),
    )
    for name, kind, durable in kinds:
        of_kind = [turn for turn in turns if turn.kind == kind and turn.durable == durable]
        took = [turn.ended_s - turn.asked_s for turn in of_kind]
        yield _row(
            name,
            len(of_kind),
            f"{quantile(took, 0.5):.2f} s",
            f"{quantile(took, 0.99):.2f} s",
            f"{max(took, default=0.0):.2f} s",
            sum(turn.again > 0 for turn in of_kind),
            sum(turn.resumes > 0 for turn in of_kind),
            _failed(of_kind),
        )


def _totals(run: Run) -> Iterator[str]:
    came = sum(change.how == "came" for change in run.changes)
    terminated = sum(change.how == "SIGTERM" for change in run.changes)
    killed = sum(change.how == "SIGKILL" for change in run.changes)
    ends = max(scene.ended_s for scene in run.scenes)
    yield (
        f"In all {len(run.turns):,} turns in {ends:.0f} s while {came} replicas came, {terminated} left by SIGTERM and "
        f"{killed} by `kill -9`: **{_failed(run.turns)} failed**. Measured on {run.machine} with `{run.command}`."
    )


def _failed(turns: Sequence[Turn]) -> int:
    return sum(bool(turn.problem) for turn in turns)


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"
