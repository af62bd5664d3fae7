"""What the scaling proof found, as a picture: waits, turns, streams and replicas over the time of the run."""

from bisect import bisect
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from scale.scale_record import Kind, Run, expected_wait_s
from scale.scale_scenes import EXECUTORS, GATEWAYS, LEAVING, RUNNERS
from scale.scale_stage import STREAMS
from scale.scale_upstream import LATENCY_S, TOOL_S

TITLES: Final = {
    RUNNERS: "model-runners 1 → 2 → 4",
    EXECUTORS: "tool-executors 1 → 2",
    GATEWAYS: "gateways 1 → 2 → 3",
    LEAVING: "replicas leave under load",
}
COLOURS: Final = {
    "model-runner": "#0072b2",
    "tool-executor": "#d55e00",
    "gateway": "#009e73",
    "orchestrator": "#cc79a7",
}
KINDS: Final[tuple[tuple[Kind, str, str], ...]] = (
    ("turn", "model-runner", "whole answers"),
    ("tool", "tool-executor", "with a tool"),
    ("stream", "gateway", "streams"),
)
HANDED_OVER_S: Final = 5.0
"""A wait of so long is the queue's own, for the killed worker's sign of life."""
GREY: Final = "#777777"
MEAN_S: Final = 6
"""Streams begin together and last so long: over any shorter time their ends come in bursts."""


def plot(run: Run, path: Path) -> None:
    """Draw a run."""
    figure, axes = plt.subplots(4, 1, figsize=(11, 10), sharex=True, height_ratios=(3, 2, 2, 2), layout="constrained")
    _draw_waits(axes[0], run)
    _draw_rates(axes[1], run)
    _draw_streams(axes[2], run)
    _draw_replicas(axes[3], run)
    for axis in axes:
        axis.set_ylim(bottom=0)
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        for number, scene in enumerate(run.scenes):
            axis.axvspan(scene.began_s, scene.ended_s, color="#000000", alpha=0.05 if number % 2 else 0.02, lw=0)
    for scene in run.scenes:
        axes[0].text(scene.began_s, 1.02, TITLES[scene.name], transform=axes[0].get_xaxis_transform(), fontsize=10)
    failed = sum(bool(turn.problem) for turn in run.turns)
    axes[-1].set_xlabel(f"seconds — {len(run.turns):,} turns, {failed} failed")
    axes[-1].set_xlim(0, max(scene.ended_s for scene in run.scenes))
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _draw_waits(axis: Any, run: Run) -> None:
    waited = [
        (turn.ended_s, turn.waited_s)
        for turn in run.turns
        if turn.kind == "turn" and not turn.durable and turn.waited_s is not None
    ]
    axis.plot(
        *zip(*waited, strict=True), ".", ms=2, color=COLOURS["model-runner"], alpha=0.4, label="model queue, each turn"
    )
    predicted = [(each.at_s, each.predicted_s) for each in run.samples if each.predicted_s is not None]
    axis.plot(*zip(*predicted, strict=True), lw=1.2, color=GREY, label="predicted by the gauge that scales")
    tools = [
        (after.at_s, (after.tool_waited_s - before.tool_waited_s) / (after.tool_jobs - before.tool_jobs))
        for before, after in pairwise(run.samples)
        if after.tool_jobs > before.tool_jobs
    ]
    axis.plot(*zip(*tools, strict=True), ".", ms=3, color=COLOURS["tool-executor"], label="tool queue, mean of 0.5 s")
    for step in run.steps:
        if step.scene in (RUNNERS, EXECUTORS):
            wait_s = expected_wait_s(step, LATENCY_S if step.scene == RUNNERS else TOOL_S)
            label = "expected by Little's law" if step is run.steps[0] else None
            axis.plot((step.measured_s, step.ended_s), (wait_s, wait_s), "k--", lw=1, label=label)
    for turn_s, wait_s in waited:
        if wait_s > HANDED_OVER_S:
            axis.annotate(
                "handed over after\nkill -9",
                (turn_s, wait_s),
                (-8, -10),
                textcoords="offset points",
                ha="right",
                fontsize=8,
            )
            break
    axis.set_ylabel("wait, seconds")
    axis.legend(loc="upper center", bbox_to_anchor=(0.64, 1), fontsize=8, frameon=False)


def _draw_rates(axis: Any, run: Run) -> None:
    for kind, service, label in KINDS:
        ended = sorted(turn.ended_s for turn in run.turns if turn.kind == kind)
        times = range(int(ended[-1]) + 2)
        rates = [(bisect(ended, at) - bisect(ended, at - MEAN_S)) / MEAN_S for at in times]
        axis.plot(times, rates, lw=1.2, color=COLOURS[service], label=label)
    failed = [turn.ended_s for turn in run.turns if turn.problem]
    axis.plot(failed, [1] * len(failed), "rx", label=f"failed: {len(failed)}")
    axis.set_ylabel(f"turns ended / s,\nmean of {MEAN_S} s")
    axis.legend(loc="upper center", bbox_to_anchor=(0.64, 1), fontsize=8, frameon=False)


def _draw_streams(axis: Any, run: Run) -> None:
    axis.plot(
        [each.at_s for each in run.samples],
        [each.streams for each in run.samples],
        color=COLOURS["gateway"],
        lw=1.2,
        label="open turns",
    )
    for step in run.steps:
        if step.scene == GATEWAYS:
            room = min(step.clients, step.replicas * STREAMS)
            label = "room" if step.replicas == 1 else None
            axis.plot((step.measured_s, step.ended_s), (room, room), "k--", lw=1, label=label)
    axis.set_ylabel("streams open")
    axis.legend(loc="upper left", fontsize=8, frameon=False)


def _draw_replicas(axis: Any, run: Run) -> None:
    end_s = max(scene.ended_s for scene in run.scenes)
    for service, colour in COLOURS.items():
        changes = [change for change in run.changes if change.service == service]
        times = [*(change.at_s for change in changes), end_s]
        counts = [*(change.count for change in changes), changes[-1].count]
        axis.step(times, counts, where="post", color=colour, lw=1.5, label=service)
        for how, mark in (("SIGTERM", "v"), ("SIGKILL", "X")):
            told = [change for change in changes if change.how == how]
            axis.plot([each.at_s for each in told], [each.count + 1 for each in told], mark, color=colour, ms=7)
    axis.plot([], [], "v", color=GREY, label="SIGTERM")
    axis.plot([], [], "X", color=GREY, label="kill -9")
    axis.set_ylabel("replicas")
    axis.legend(loc="upper center", bbox_to_anchor=(0.4, 0.98), fontsize=8, frameon=False, ncols=3)
