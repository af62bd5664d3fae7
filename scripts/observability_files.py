"""The files that follow from the alerts and dashboards: what Grafana and Prometheus read, and a part of the runbook."""

# ruff: noqa: INP001  a script, not a package

from collections.abc import Callable
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Final

from kitemesh_observability.alert import RUNBOOK, Alert
from kitemesh_observability.alerts import ALERTS
from kitemesh_observability.grafana import render
from kitemesh_observability.panels import DASHBOARDS
from kitemesh_observability.rules import rules
from kitemesh_observability.trial_file import firing, quiet

ROOT: Final = Path(__file__).resolve().parent.parent
RULES: Final = "observability/rules/kitemesh.yaml"
BEGIN: Final = "<!-- alerts -->"
END: Final = "<!-- /alerts -->"
WIDTH: Final = 120

_FROM_TESTS: Final = "../rules/kitemesh.yaml"
_MARK: Final = "# Written by `make docs` from kitemesh_observability. Do not edit.\n"
_INTRO: Final = """
<!-- Written by `make docs` from the alerts in kitemesh_observability. Do not edit. -->

A page is about something that users feel now; a ticket is a cause, or can wait for the morning. The rules are
`observability/rules/kitemesh.yaml`.
"""


def runbook(path: Path = ROOT / RUNBOOK) -> str:
    """Return the runbook with the alerts between its two marks, and the rest as it is."""
    text = path.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    return before + _INTRO + "".join(_entry(alert) for alert in ALERTS) + "\n" + after


def _entry(alert: Alert) -> str:
    when = f", after {_duration(alert.for_s)}" if alert.for_s else ""
    meaning = fill(f"*{alert.severity}{when}.* {alert.description}", WIDTH, break_on_hyphens=False)
    points = (f"- Look: {alert.look}", f"- Do: {alert.do}")
    told = "\n".join(fill(point, WIDTH, subsequent_indent="  ", break_on_hyphens=False) for point in points)
    return f"\n### {alert.name}\n\n{meaning}\n\n{told}\n"


def _duration(seconds: int) -> str:
    return f"{seconds // 60} min" if seconds % 60 == 0 else f"{seconds} s"


def _marked(write: Callable[[], str]) -> str:
    return _MARK + write()


FILES: Final[dict[str, Callable[[], str]]] = {
    RUNBOOK: runbook,
    RULES: partial(_marked, rules),
    "observability/tests/firing.yaml": partial(_marked, partial(firing, _FROM_TESTS)),
    "observability/tests/quiet.yaml": partial(_marked, partial(quiet, _FROM_TESTS)),
    **{f"observability/dashboards/{each.uid}.json": partial(render, each) for each in DASHBOARDS},
}
"""By their place in the repository."""
