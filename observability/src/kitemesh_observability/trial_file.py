"""promtool's test files, written from the trials and from how the alerts are worded."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

from kitemesh_observability.alert import Alert
from kitemesh_observability.alerts import ALERTS
from kitemesh_observability.recording import RECORDINGS
from kitemesh_observability.trials import IDLE, TRIALS, Trial

QUIET_AT: Final = "20m"
"""When what was there from the beginning no longer looks new."""
IDLE_AT: Final = "10m"

_ALERTS: Final = {alert.name: alert for alert in ALERTS}
_LABEL: Final = re.compile(r"\{\{ \$labels\.(\w+) \}\}")
_VALUE: Final = re.compile(r"\{\{ \$value[^}]*\}\}")


def firing(rules: str) -> str:
    """Return the tests, for the rule file of that name, that each alert fires in time and not before."""
    return _file(rules, "15s", [_fire(trials) for trials in _apart()])


def quiet(rules: str) -> str:
    """Return the tests, for the rule file of that name, that no alert fires while all is well or idle."""
    return _file(rules, "1m", [*(_rests(trials) for trials in _together()), _idles()])


def _file(rules: str, every: str, tests: Sequence[Mapping[str, Any]]) -> str:
    document = {
        "rule_files": [rules],
        "evaluation_interval": every,
        "group_eval_order": ["kitemesh-recordings", "kitemesh-alerts"],
        "tests": tests,
    }
    return yaml.safe_dump(document, sort_keys=False, width=110, allow_unicode=True)


def _apart() -> Sequence[Sequence[Trial]]:
    """Put trials together whose faults are of different metrics: each test costs an evaluation of every rule."""
    clusters: list[tuple[set[str], list[Trial]]] = []
    for trial in TRIALS:
        names = {series.partition("{")[0] for series in trial.faulty}
        for taken, trials in clusters:
            if taken.isdisjoint(names):
                taken.update(names)
                trials.append(trial)
                break
        else:
            clusters.append((names, [trial]))
    return [trials for _, trials in clusters]


def _fire(trials: Sequence[Trial]) -> Mapping[str, Any]:
    return {
        "name": f"{len(trials)} of the alerts fire, and not at once",
        "interval": "15s",
        "input_series": _series({name: values for trial in trials for name, values in trial.faulty.items()}),
        "alert_rule_test": [test for trial in trials for test in _fires(trial, _ALERTS[trial.alert])],
    }


def _fires(trial: Trial, alert: Alert) -> Sequence[Mapping[str, Any]]:
    fired = {
        "exp_labels": {"severity": alert.severity, **trial.labels},
        "exp_annotations": {
            "summary": _fill_in(alert.summary, trial),
            "description": _fill_in(alert.description, trial),
            "runbook_url": alert.runbook,
        },
    }
    return (
        {"eval_time": trial.quiet_at, "alertname": alert.name, "exp_alerts": []},
        {"eval_time": trial.fires_at, "alertname": alert.name, "exp_alerts": [fired]},
    )


def _together() -> Sequence[Sequence[Trial]]:
    """Put trials together whose healthy series are not at odds: each test costs an evaluation of every rule."""
    clusters: list[tuple[dict[str, str], list[Trial]]] = []
    for trial in TRIALS:
        for series, trials in clusters:
            if all(series.get(name, values) == values for name, values in trial.healthy.items()):
                series.update(trial.healthy)
                trials.append(trial)
                break
        else:
            clusters.append((dict(trial.healthy), [trial]))
    return [trials for _, trials in clusters]


def _rests(trials: Sequence[Trial]) -> Mapping[str, Any]:
    return {
        "name": f"quiet while all is well: {', '.join(trial.alert for trial in trials)}",
        "interval": "15s",
        "input_series": _series({name: values for trial in trials for name, values in trial.healthy.items()}),
        # Not even pending, so that no `for` is waited out.
        "promql_expr_test": [
            {"expr": f'ALERTS{{alertname="{trial.alert}"}}', "eval_time": QUIET_AT, "exp_samples": []}
            for trial in trials
        ],
    }


def _idles() -> Mapping[str, Any]:
    """Have every counter stand still: no picture may show what is no number."""
    return {
        "name": "nobody asks anything",
        "interval": "15s",
        "input_series": _series(IDLE),
        "promql_expr_test": [
            {"expr": expr, "eval_time": IDLE_AT, "exp_samples": []}
            for expr in (
                'ALERTS{alertname!="KitemeshServiceAbsent"}',
                *(f"{each.name} != {each.name}" for each in RECORDINGS),
            )
        ],
    }


def _series(values: Mapping[str, str]) -> list[Mapping[str, str]]:
    return [{"series": name, "values": samples} for name, samples in values.items()]


def _fill_in(text: str, trial: Trial) -> str:
    return _VALUE.sub(trial.value, _LABEL.sub(lambda found: trial.labels.get(found[1], ""), text))
