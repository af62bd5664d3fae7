"""A real Prometheus under the generated rules, and every panel's query, on a cluster that nobody breaks.

`make dashboards-check` is the long form, with the faults for which the alerts are there.
"""

import asyncio
from pathlib import Path

import pytest
import yaml

from kitemesh_observability.alerts import ALERTS
from kitemesh_observability.panels import fill_in, queries
from kitemesh_observability.recording import RECORDINGS
from kitemesh_observability.rules import rules
from manifests import FOLDER
from observed.fault import until
from observed.load import ACTIVITIES, running_load
from observed.prometheus import Prometheus
from observed.run import RATE_INTERVAL, Fired, Found, Shown, scenes
from observed.stage import Stage, running_stage
from observed.table import wrong

PATIENCE_S = 40.0
SCALE = 1 / 10
"""Of the rules' windows; a busy machine may miss a scrape, and that shall wake nobody."""
FAULTS_ONLY = {
    ("kitemesh-dependencies", "NATS errors"),
    ("kitemesh-models", "Failures"),
    ("kitemesh-models", "Fallbacks"),
    ("kitemesh-queues", "Dead letters"),
    ("kitemesh-streams", "Cut"),
    ("kitemesh-streams", "Gaps"),
    ("kitemesh-traffic", "Limits"),
    ("kitemesh:upstream_fallbacks:ratio", ""),
}
"""Panels, and what is recorded, that have nothing to show until something goes wrong."""


def empty(prometheus: Prometheus) -> set[tuple[str, str]]:
    """Ask as Grafana does, and name what has no data."""
    panels = {
        (each.dashboard, each.panel) for each in queries() if not prometheus.now(fill_in(each.expr, RATE_INTERVAL))
    }
    return panels | {(each.name, "") for each in RECORDINGS if not prometheus.now(each.name)}


def autoscalers() -> list[str]:
    """List what KEDA asks of Prometheus."""
    files = sorted((FOLDER / "components" / "keda").rglob("*.yaml"))
    found = [each for file in files for each in yaml.safe_load_all(file.read_text()) if each["kind"] == "ScaledObject"]
    triggers = [trigger for each in found for trigger in each["spec"]["triggers"] if trigger["type"] == "prometheus"]
    return [trigger["metadata"]["query"] for trigger in triggers]


async def watch(stage: Stage) -> None:
    prometheus = stage.prometheus

    async def scaled() -> bool:
        return all([len(await asyncio.to_thread(prometheus.now, query)) == 1 for query in autoscalers()])

    # While nobody asks anything, too: no answer has an autoscaler keep what was needed once.
    assert await until(scaled, timeout_s=PATIENCE_S), [query for query in autoscalers() if not prometheus.now(query)]
    async with running_load(stage.origins, stage.cluster.key) as load:

        async def done() -> bool:
            assert not load.broken, load.reasons
            all_done = {activity.__name__ for activity in ACTIVITIES} <= load.done.keys()
            return all_done and await asyncio.to_thread(empty, prometheus) <= FAULTS_ONLY

        assert await until(done, timeout_s=PATIENCE_S), (load.done, empty(prometheus) - FAULTS_ONLY)
    assert prometheus.up() == {target.instance: True for target in stage.targets}
    assert prometheus.unhealthy() == []
    assert prometheus.firing() == set()


@pytest.mark.requirement("observability:healthy-cluster")
def test_a_healthy_cluster_has_all_its_targets_up_every_panel_filled_and_no_alert_firing(tmp_path: Path) -> None:
    with running_stage(tmp_path / "run", {"kitemesh.yaml": rules(SCALE)}, for_faults=False) as stage:
        asyncio.run(watch(stage))


@pytest.mark.requirement("observability:every-alert-in-a-fault")
def test_every_alert_has_a_real_fault_that_is_to_make_it_fire() -> None:
    faults = [fault for scene in scenes() for fault in scene]
    assert sorted(alert for fault in faults for alert in fault.alerts) == sorted(alert.name for alert in ALERTS)


def test_a_run_that_misses_anything_says_what() -> None:
    found = Found(
        fired=[Fired("One", "it breaks", 3.0), Fired("Two", "it breaks", None), Fired("Four", "it breaks", 1.0)],
        early=["One"],
        shown=[Shown("board", "full", "up", 2), Shown("board", "bare", "down", 0)],
        recorded={"kept": 1, "lost": 0},
        broken_rules=["kept: of no use"],
        took_s=1.0,
    )
    assert wrong(found, ["One", "Two", "Three"]) == [
        "Three: no fault is to make it fire",
        "Four: there is no such alert",
        "Two did not fire: it breaks",
        "One fired in the healthy minute",
        "board, bare: no data: down",
        "lost: no data",
        "kept: of no use",
    ]
