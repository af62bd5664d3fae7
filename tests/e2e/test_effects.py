"""kill -9 beside turns whose tools have effects: nothing is lost, nothing is done twice, nothing unknown is hidden.

`make chaos` is the long run of the same code.
"""

import asyncio
import time
from collections.abc import Iterator

import pytest

from chaos.chaos_rounds import Played
from chaos.chaos_run import run
from chaos.chaos_table import recovery, render
from chaos.chaos_turns import PATIENCE_S, Client, Turn, open_session
from chaos.effect_catalog import EFFECTS, Effect
from chaos.faulty_cluster import ORCHESTRATOR, POINTS, RUNNER, TOOL, Faulty, faulty_cluster
from chaos.invariants import judge
from chaos.rest import await_rest

SEED = 7
FAULTS = 27
BACK_S = 10.0
"""What a crash interrupts is taken up again within this time."""
DELAY_MS = 300
"""A test has this time to arm a failpoint between an effect and its result."""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    with faulty_cluster(tmp_path_factory.mktemp("effects"), doubled=True, delay_ms=DELAY_MS) as cluster:
        yield cluster


async def test_kills_at_every_failpoint_lose_no_turn_and_repeat_no_effect(faulty: Faulty) -> None:
    found = await run(faulty, seed=SEED, faults=FAULTS)
    told = render(found.played, found.verdict)
    assert found.verdict.violations == [], told
    assert found.faults == FAULTS
    assert {kill.point for played in found.played for kill in played.kills} == set(POINTS)
    assert [played.effect for played in found.played] == list(EFFECTS)
    for points in (ORCHESTRATOR, TOOL, RUNNER):
        assert all(sum(kill.point in points for kill in played.kills) == 3 for played in found.played)
    assert _share_within(found.played, BACK_S) >= 0.99, told


@pytest.mark.parametrize(("effect", "kills"), [("keyed", 1), ("once", 2)])
async def test_two_overlapping_results_survive_a_kill_between_save_and_publish(
    faulty: Faulty, effect: Effect, kills: int
) -> None:
    turn = Turn(f"overlap-{effect}-{kills}", effect, "pools", stream=kills == 2)
    async with faulty.replicas.kept(), open_session() as session, asyncio.timeout(PATIENCE_S):
        driving = asyncio.create_task(Client(faulty.cluster, session).drive(turn))
        while len(_tags_at_stub(faulty) & turn.tags.keys()) < 2:  # noqa: ASYNC110  another process sets no event here
            await asyncio.sleep(0.005)
        # Both tools are at work, and next each result is saved.
        faulty.arm("orch.after_save", kills)
        began_s = time.monotonic()
        await driving
        assert faulty.left("orch.after_save") == 0
        assert time.monotonic() - began_s < kills * BACK_S
        assert await await_rest(faulty.cluster) == []
    assert (turn.result, turn.shown) == ("answered", turn.answer), turn.problem
    verdict = judge(faulty, [turn])
    assert verdict.violations == []
    assert verdict.unknown == set()


def _tags_at_stub(faulty: Faulty) -> set[str]:
    return {line["path"].rpartition("/")[2].partition("?")[0] for line in faulty.stub.effects()}


def _share_within(played: list[Played], bound_s: float) -> float:
    """Return the share of requests under way at a kill that were answered so soon after the last one."""
    times = recovery(played).last
    return sum(time_s <= bound_s for time_s in times) / len(times)
