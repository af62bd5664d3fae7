"""Dashboards and rules ask for what services show; every alert is tried, and explained in the runbook."""

import argparse
import asyncio
import json
import re
from pathlib import Path

import pytest
import yaml

from contract.promql import grouped, selected, series
from kitemesh_cli.__main__ import build
from kitemesh_observability.alerts import ALERTS
from kitemesh_observability.board import Panel, Query
from kitemesh_observability.grafana import render
from kitemesh_observability.panels import DASHBOARDS, fill_in, queries
from kitemesh_observability.recording import RECORDINGS
from kitemesh_observability.rules import LEAST_WINDOW_S, render_expr, rules
from kitemesh_observability.trials import TRIALS
from kitemesh_runtime.metrics import describe

TARGET = {"service", "instance", "pool"}
"""What a scrape adds to every series."""
STANDARD = {
    "up": set[str](),
    "process_resident_memory_bytes": set[str](),
    "process_cpu_seconds_total": set[str](),
    "process_open_fds": set[str](),
}
PANELS = [(board.uid, panel) for board in DASHBOARDS for panel in board.panels()]
EXPRESSIONS = (
    *(query.expr for query in queries()),
    *(render_expr(alert.expr) for alert in ALERTS),
    *(render_expr(recording.expr) for recording in RECORDINGS),
)


@pytest.fixture
def promtool(repository: Path) -> Path:
    found = repository / ".venv" / "prometheus" / "promtool"
    assert found.exists(), "promtool is missing; run `make prometheus`"
    return found


async def run(*command: str | Path) -> str:
    """Run a command that has to succeed, and return what it says."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(120):
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


def metrics() -> dict[str, set[str]]:
    """Return every series that services show, and its own labels."""
    found = dict(STANDARD)
    for metric in describe():
        labels = set(metric.labels)
        if metric.kind == "histogram":
            found |= {f"{metric.name}_bucket": labels | {"le"}, f"{metric.name}_sum": labels}
            found[f"{metric.name}_count"] = labels
        else:
            found[metric.name] = labels
    return found


def known() -> dict[str, set[str]]:
    """Return those, and what is recorded of them."""
    return metrics() | {each.name: grouped(each.expr) - {"le"} for each in RECORDINGS}


@pytest.mark.requirement("alerts:tried")
async def test_promtool_takes_the_rules_and_every_alert_fires_in_time_and_only_then(
    repository: Path, promtool: Path
) -> None:
    folder = repository / "observability"
    said, *_ = await asyncio.gather(
        run(promtool, "check", "rules", folder / "rules" / "kitemesh.yaml"),
        run(promtool, "test", "rules", folder / "tests" / "firing.yaml"),
        run(promtool, "test", "rules", folder / "tests" / "quiet.yaml"),
    )
    assert f"{len(ALERTS) + len(RECORDINGS)} rules found" in said


@pytest.mark.requirement("alerts:tried")
def test_every_alert_is_tried_once() -> None:
    assert sorted(trial.alert for trial in TRIALS) == sorted(alert.name for alert in ALERTS)


async def test_promtool_takes_shortened_rules_and_every_query_of_a_panel(tmp_path: Path, promtool: Path) -> None:
    asked = [{"record": f"panel:{n}", "expr": fill_in(each.expr, "1m")} for n, each in enumerate(queries())]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": asked}]}))
    (tmp_path / "short.yaml").write_text(rules(1 / 60, memory_bytes=100_000_000))
    await run(promtool, "check", "rules", tmp_path / "panels.yaml", tmp_path / "short.yaml")


def test_a_shortened_window_still_holds_four_scrapes() -> None:
    text = rules(1 / 1000)
    assert {int(window) for window in re.findall(r"\[(\d+)s\]", text)} == {LEAST_WINDOW_S}
    assert "for: 0s" not in text
    groups = yaml.safe_load(text)["groups"]
    assert not [rule for group in groups for rule in group["rules"] if re.search(r"\{(\d|memory)", rule["expr"])]


@pytest.mark.parametrize("scale", [0, -1, 2])
def test_what_is_no_scale_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        rules(scale)


@pytest.mark.requirement("dashboards:real-series")
@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_an_expression_asks_for_what_there_is(expr: str) -> None:
    have = known()
    assert series(expr) <= have.keys()
    for name, labels in selected(expr):
        assert labels <= have[name] | TARGET, name
    kept = set[str]().union(*(have[name] for name in series(expr)))
    assert grouped(expr) <= kept | TARGET


@pytest.mark.requirement("dashboards:real-series")
def test_what_any_process_shows_is_asked_of_ours_alone() -> None:
    foreign = [expr for expr in EXPRESSIONS if series(expr) & STANDARD.keys()]
    assert {name for expr in foreign for name in series(expr)} >= STANDARD.keys()
    # Who is down shows nothing that tells whose it is.
    (alone,) = (expr for expr in foreign if "kitemesh_build_info" not in series(expr))
    assert alone.startswith('up{service=~"gateway|')


@pytest.mark.requirement("dashboards:real-series")
@pytest.mark.parametrize(("panel", "query"), [(panel, query) for _, panel in PANELS for query in panel.queries])
def test_a_legend_names_labels_that_the_query_keeps(panel: Panel, query: Query) -> None:
    have = known()
    named = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
    kept = grouped(query.expr) or set[str]().union(*(have[name] for name in series(query.expr))) | TARGET
    assert named <= kept, panel.title


@pytest.mark.requirement("dashboards:real-series")
def test_every_metric_is_seen_in_a_panel_or_an_alert() -> None:
    asked = set[str]().union(*(series(expr) for expr in EXPRESSIONS))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} | asked
    assert {metric.name for metric in describe()} <= families


@pytest.mark.requirement("alerts:runbook")
def test_every_alert_leads_to_its_place_in_the_runbook(repository: Path) -> None:
    headings = {
        line.removeprefix("### ").lower() for line in (repository / "docs" / "runbook.md").read_text().splitlines()
    }
    for alert in ALERTS:
        document, anchor = alert.runbook.split("#")
        assert (repository / document).exists()
        assert anchor in headings
        assert all((alert.summary, alert.description, alert.look, alert.do)), alert.name


@pytest.mark.requirement("alerts:runbook")
def test_the_runbook_names_settings_and_words_of_the_log_that_there_are(repository: Path) -> None:
    code = "".join(
        path.read_text() for part in ("libs", "services") for path in (repository / part).rglob("src/**/*.py")
    )
    settings = (repository / "docs" / "settings.md").read_text()
    for alert in ALERTS:
        text = f"{alert.description} {alert.look} {alert.do}"
        for word in re.findall(r"`([a-z]+\.[a-z_]+)`", text):
            assert f'"{word}"' in code, alert.name
        for setting in re.findall(r"KITEMESH_\w+", text):
            assert f"`{setting}`" in settings, alert.name


def verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the verbs that a command has; none where it has arguments instead."""
    return {
        name: verb
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, verb in action.choices.items()
    }


@pytest.mark.requirement("alerts:runbook")
def test_the_runbook_names_commands_that_there_are() -> None:
    named = re.findall(r"`kitemesh ([a-z ]+)", " ".join(f"{alert.look} {alert.do}" for alert in ALERTS))
    assert named
    for command in named:
        have = verbs(build())
        for word in command.split():
            if have:
                have = verbs(have[word])


def test_a_dashboard_keeps_its_address() -> None:
    assert {board.uid for board in DASHBOARDS} == {
        "kitemesh-traffic",
        "kitemesh-models",
        "kitemesh-queues",
        "kitemesh-turns",
        "kitemesh-streams",
        "kitemesh-dependencies",
    }


def test_rows_are_as_wide_as_a_dashboard() -> None:
    for board in DASHBOARDS:
        for row in board.rows:
            assert sum(panel.width for panel in row.panels) % 24 == 0, (board.uid, row.title)


def test_a_panel_says_what_it_shows() -> None:
    for _, panel in PANELS:
        assert panel.description.endswith("."), panel.title


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.uid)
def test_what_grafana_reads_holds_every_panel_in_a_place_of_its_own(board: object) -> None:
    found = next(each for each in DASHBOARDS if each is board)
    document = json.loads(render(found))
    panels = [panel for panel in document["panels"] if panel["type"] != "row"]
    assert [panel["title"] for panel in panels] == [panel.title for panel in found.panels()]
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])
    taken = {
        (panel["gridPos"]["x"] + column, panel["gridPos"]["y"] + line)
        for panel in document["panels"]
        for column in range(panel["gridPos"]["w"])
        for line in range(panel["gridPos"]["h"])
    }
    assert len(taken) == sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in document["panels"])
    assert max(column for column, _ in taken) == 23
    for panel in panels:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["expr"] for target in panel["targets"])
    named = {variable["name"] for variable in document["templating"]["list"]}
    assert set(re.findall(r"\$(?!__)(\w+)", json.dumps([panel["targets"] for panel in panels]))) <= named
    assert [link["type"] for link in document["links"]] == ["dashboards"]
