"""A run whose waits or streams are not what they should be, or in which a turn failed, is told to be so."""

import msgspec
import pytest

from scale.scale_record import Change, Run, Sample, Scene, Step, Turn, expected_wait_s
from scale.scale_scenes import EXECUTORS, GATEWAYS, LEAVING, RUNNERS
from scale.scale_table import BEGIN, END, placed, render
from scale.scale_verdict import mistakes


def step(scene: str, service: str, replicas: int, clients: int, at_s: float) -> Step:
    return Step(
        scene=scene,
        service=service,
        replicas=replicas,
        slots=4 * replicas,
        clients=clients,
        measured_s=at_s,
        ended_s=at_s + 10,
    )


def good() -> Run:
    """A run of one step for each service: 1 s of waiting at runners and at executors, 80 streams."""
    kinds = (("turn", 0.0), ("tool", 10.0), ("stream", 20.0), ("turn", 30.0))
    return Run(
        command="make scale-demo",
        machine="a machine",
        slots=4,
        steps=[
            step(RUNNERS, "model-runner", 1, 24, 0.0),
            step(EXECUTORS, "tool-executor", 1, 14, 10.0),
            step(GATEWAYS, "gateway", 1, 200, 20.0),
        ],
        samples=[
            Sample(at_s=at_s, predicted_s=1.0, streams=80, tool_waited_s=10.0 * at_s, tool_jobs=10.0 * at_s)
            for at_s in range(30)
        ],
        turns=[
            Turn(kind=kind, durable=False, asked_s=at_s + 1, began_s=at_s + 1, ended_s=at_s + 3, waited_s=1.0)
            for kind, at_s in kinds
        ],
        changes=[Change(at_s=32.0, service="gateway", count=1, how="SIGTERM")],
        scenes=[Scene(name=LEAVING, began_s=30.0, ended_s=40.0)],
    )


def test_a_run_that_shows_what_it_should_has_no_mistakes() -> None:
    run = good()
    assert mistakes(run) == []
    assert msgspec.json.decode(msgspec.json.encode(run), type=Run) == run
    assert "1 left by SIGTERM and 0 by `kill -9`: **0 failed**" in render(run)


def test_littles_law_has_a_wait_of_nothing_while_slots_are_free() -> None:
    assert expected_wait_s(step(RUNNERS, "model-runner", 1, 24, 0), 0.2) == pytest.approx(1.0)
    assert expected_wait_s(step(RUNNERS, "model-runner", 2, 24, 0), 0.2) == pytest.approx(0.4)
    assert expected_wait_s(step(RUNNERS, "model-runner", 8, 24, 0), 0.2) == 0.0


def test_a_turn_that_failed_is_a_mistake() -> None:
    run = good()
    run.turns[3] = msgspec.structs.replace(run.turns[3], problem="504")
    assert mistakes(run) == ["1 turns failed"]


@pytest.mark.parametrize("status", [1, -9, -15])
def test_a_replica_that_was_told_to_leave_and_broke_is_a_mistake(status: int) -> None:
    run = good()
    run.left = {"gateway-3": 0, "gateway-2": status}
    assert len(mistakes(run)) == 1


def test_a_replica_that_was_killed_is_none() -> None:
    run = good()
    run.changes.append(Change(at_s=33.0, service="model-runner", count=1, how="SIGKILL"))
    run.left = {"gateway-2": 0, "model-runner-2": -9}
    assert mistakes(run) == []


def test_a_wait_that_is_longer_or_shorter_than_it_should_be_is_a_mistake() -> None:
    for waited_s in (0.5, 1.5):
        run = good()
        run.turns[0] = msgspec.structs.replace(run.turns[0], waited_s=waited_s)
        assert mistakes(run) == [f"model-runner x 1: waited {waited_s:.2f} s, expected 1.00 s"]


def test_a_step_without_any_turn_or_sample_is_a_mistake() -> None:
    run = good()
    run.turns, run.samples = run.turns[3:], []
    assert [each.partition(":")[0] for each in mistakes(run)] == [
        "model-runner x 1",
        "tool-executor x 1",
        "1 gateways had nan streams open, with clients and room for 80",
    ]


def test_tables_take_the_place_of_earlier_ones_and_of_nothing_else() -> None:
    assert placed(f"above\n{BEGIN}\nold\n{END}\nbelow\n", "new") == f"above\n{BEGIN}\n\nnew\n\n{END}\nbelow\n"
