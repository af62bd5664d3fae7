"""Whether a run shows what it is to show. Pure."""

import signal
from collections.abc import Iterator
from typing import Final

from scale.scale_record import Run, Step, expected_wait_s, mean, quantile, tool_wait_s, within
from scale.scale_scenes import EXECUTORS, GATEWAYS, RUNNERS
from scale.scale_stage import STREAMS
from scale.scale_table import failures
from scale.scale_upstream import LATENCY_S, TOOL_S

OFF_MOST: Final = 0.25
"""Share of the expected wait by which a measured one may miss it."""
OFF_MOST_S: Final = 0.15
ROOM_LEAST: Final = 0.85
"""Share of the gateways' room that has to be taken: a client that was refused is away for a moment."""


def mistakes(run: Run) -> list[str]:
    """Return what is not as it should be, one sentence each."""
    failed = [f"{len(failures(run))} turns failed"] if failures(run) else []
    return [*failed, *_left(run), *_waits(run), *_tool_waits(run), *_streams(run)]


def _left(run: Run) -> Iterator[str]:
    killed = sum(change.how == "SIGKILL" for change in run.changes)
    for name, status in run.left.items():
        if status not in {0, -signal.SIGKILL}:
            yield f"{name} was told to leave and ended with status {status}"
    if sum(status == -signal.SIGKILL for status in run.left.values()) > killed:
        yield f"more replicas than the {killed} that were to be killed were"


def _waits(run: Run) -> Iterator[str]:
    for step in _of(run, RUNNERS):
        waits = [turn.waited_s for turn in within(step, run.turns, "turn") if turn.waited_s is not None]
        yield from _compared(step, quantile(waits, 0.5), expected_wait_s(step, LATENCY_S))


def _tool_waits(run: Run) -> Iterator[str]:
    for step in _of(run, EXECUTORS):
        yield from _compared(step, tool_wait_s(step, run.samples), expected_wait_s(step, TOOL_S))


def _streams(run: Run) -> Iterator[str]:
    for step in _of(run, GATEWAYS):
        held = mean(step, run.samples, lambda sample: sample.streams)
        room = min(step.clients, step.replicas * STREAMS)
        if not held >= ROOM_LEAST * room:
            yield f"{step.replicas} gateways had {held:.0f} streams open, with clients and room for {room}"


def _of(run: Run, scene: str) -> list[Step]:
    return [step for step in run.steps if step.scene == scene]


def _compared(step: Step, measured_s: float, expected_s: float) -> Iterator[str]:
    # So written that NaN is a mistake.
    if not abs(measured_s - expected_s) <= max(OFF_MOST_S, OFF_MOST * expected_s):
        yield f"{step.service} x {step.replicas}: waited {measured_s:.2f} s, expected {expected_s:.2f} s"
