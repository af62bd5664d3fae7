"""What the Kubernetes component prometheus-operator brings, from the same code as the rules and dashboards themselves.

kustomize reads nothing outside its own folder, so the component has a copy of its own.
"""

# ruff: noqa: INP001  a script, not a package

from collections.abc import Callable
from functools import partial
from typing import Final

from kitemesh_observability.grafana import render
from kitemesh_observability.panels import DASHBOARDS
from kitemesh_observability.rules import rules

FOLDER: Final = "k8s/components/prometheus-operator"

_RULE: Final = """\
# Written by `make docs` from kitemesh_observability. Do not edit.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: kitemesh
  labels:
    app.kubernetes.io/part-of: kitemesh
spec:
"""


def prometheus_rule() -> str:
    """Return the rule file as the operator takes it."""
    return _RULE + "".join(f"  {line}\n" if line else "\n" for line in rules().splitlines())


FILES: Final[dict[str, Callable[[], str]]] = {
    f"{FOLDER}/rules.yaml": prometheus_rule,
    **{f"{FOLDER}/dashboards/{each.uid}.json": partial(render, each) for each in DASHBOARDS},
}
"""By their place in the repository."""
