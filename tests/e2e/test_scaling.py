"""A second model-runner joins and leaves under load: the short form of `make scale-demo`."""

from pathlib import Path

import pytest

from scale.scale_record import Run, quantile, within
from scale.scale_scenes import Pace, scale_runners
from scale.scale_stage import SLOTS, stage
from scale.scale_table import failures


@pytest.mark.requirement("scaling:runners")
async def test_twice_the_runners_let_turns_wait_less_than_half_as_long_and_no_turn_fails(tmp_path: Path) -> None:
    said: list[str] = []
    run = Run(command="", machine="", slots=SLOTS)
    with stage(tmp_path, run, pool="default") as on:
        await scale_runners(on, Pace(settle_s=0.8, step_s=1.5), said.append, clients=15, counts=(1, 2), leaving=True)
        ended = await on.left()
    one, two = (quantile([turn.waited_s or 0.0 for turn in within(step, run.turns, "turn")], 0.5) for step in run.steps)
    assert failures(run) == []
    assert set(ended.values()) == {0}
    # Little's law has 0.8 s and 0.3 s; a start queue that another test's load lengthens is not among them.
    assert one > 0.5, said
    assert two < 0.5 * one, said
