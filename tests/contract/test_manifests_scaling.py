"""What replicas are scaled by: metrics and labels that exist, thresholds that mean something, and nothing twice."""

import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kitemesh_contracts.topology import topology
from kitemesh_runtime.metrics import describe
from manifests import FOLDER, HOW, KUBECTL, Document, documents, of_kind, pods

LABELS = {metric.name: set(metric.labels) for metric in describe()}
TARGET_LABELS = {"service", "pool", "instance"}
COMPLETE = "examples/complete"
RAW = "components/keda"


def scaled() -> dict[str, Document]:
    found = of_kind(documents(COMPLETE if KUBECTL else RAW), "ScaledObject")
    return {name: each["spec"] for name, each in found.items()}


def queries(name: str) -> Iterator[tuple[str, float]]:
    for trigger in scaled()[name]["triggers"]:
        if trigger["type"] == "prometheus":
            yield trigger["metadata"]["query"], float(trigger["metadata"]["threshold"])


NAMES = sorted(scaled())
each_scaled = pytest.mark.parametrize("name", NAMES, ids=[f"{name}-{HOW}" for name in NAMES])


@pytest.mark.requirement("kubernetes:scaling")
@each_scaled
def test_it_asks_for_metrics_that_exist_by_labels_that_they_have(name: str) -> None:
    streams = {stream.name for stream in topology()}
    for query, _ in queries(name):
        selectors = re.findall(r"(kitemesh_\w+)\{([^}]*)\}", query)
        assert selectors
        assert len(selectors) == len(re.findall(r"kitemesh_\w+", query))
        for metric, text in selectors:
            wanted = dict(re.findall(r'(\w+)="([^"]*)"', text))
            own = LABELS[metric]
            # What no metric says of itself, whoever collects it says of its process.
            assert set(wanted) <= own | (TARGET_LABELS - own)
            assert wanted.get("stream", "KM_TURN") in streams
            if "service" in wanted:
                assert name.removeprefix("kitemesh-").startswith(wanted["service"])


@each_scaled
def test_it_scales_a_deployment_of_which_nobody_else_says_how_many(name: str) -> None:
    spec = scaled()[name]
    assert spec["scaleTargetRef"] == {"name": name}
    if KUBECTL:
        deployment = of_kind(documents(COMPLETE), "Deployment")[name]
        assert "replicas" not in deployment["spec"]
        pool = pods(documents(COMPLETE))[name]["metadata"]["labels"].get("kitemesh/pool")
        assert all(f'pool="{pool}"' in query for query, _ in queries(name)) is (pool is not None)


@pytest.mark.requirement("kubernetes:scaling")
@each_scaled
def test_no_answer_keeps_what_there_is(name: str) -> None:
    spec = scaled()[name]
    triggers = [each for each in spec["triggers"] if each["type"] == "prometheus"]
    assert all(each["metadata"]["ignoreNullValues"] == "false" for each in triggers)
    assert all(each["metricType"] == "AverageValue" for each in triggers)
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]


def test_gateways_go_slowly() -> None:
    behavior = scaled()["kitemesh-gateway"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 600
    assert behavior["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 120}]


def test_another_pool_is_scaled_as_the_first_one_is() -> None:
    if KUBECTL is None:
        return
    for service, pool in (("model-runner", "gpu"), ("tool-executor", "wasm")):
        first, other = (list(queries(f"kitemesh-{service}{suffix}")) for suffix in ("", f"-{pool}"))
        assert [(query.replace('"default"', f'"{pool}"'), threshold) for query, threshold in first] == other


def test_the_hpa_scales_what_it_owns() -> None:
    found = of_kind(
        list(yaml.safe_load_all((FOLDER / "components/hpa/autoscalers.yaml").read_text())), "HorizontalPodAutoscaler"
    )
    patch = yaml.safe_load((FOLDER / "components/hpa/kustomization.yaml").read_text())["patches"][0]
    assert all(re.fullmatch(patch["target"]["name"], each["spec"]["scaleTargetRef"]["name"]) for each in found.values())
    assert set(found) == {"kitemesh-gateway", "kitemesh-orchestrator"}


SERIES = {
    # Two gateways that agree but for one that hears nobody, three runners with all slots in use and one that leaves.
    'kitemesh_predicted_wait_seconds{service="gateway",instance="a",stream="KM_MODEL",pool="default"}': "20",
    'kitemesh_predicted_wait_seconds{service="gateway",instance="b",stream="KM_MODEL",pool="default"}': "NaN",
    'kitemesh_predicted_wait_seconds{service="gateway",instance="a",stream="KM_MODEL",pool="gpu"}': "NaN",
    **{f'kitemesh_slots{{service="model-runner",pool="default",instance="{each}"}}': "100" for each in "abc"},
    **{f'kitemesh_slots_used{{service="model-runner",pool="default",instance="{each}"}}': "100" for each in "abc"},
    **{f'kitemesh_slots{{service="model-runner",pool="gpu",instance="{each}"}}': "4" for each in "xy"},
    'kitemesh_slots_used{service="model-runner",pool="gpu",instance="x"}': "1",
    **{f'kitemesh_streams_open{{service="gateway",instance="{each}"}}': "900" for each in "ab"},
}


@pytest.mark.requirement("kubernetes:scaling")
@pytest.mark.parametrize(
    ("name", "trigger", "replicas"),
    [
        # 20 s instead of 5 with three replicas: four times as many.
        ("kitemesh-model-runner", 0, 12),
        # All of three replicas' slots, of which 80 of 100 may be in use.
        ("kitemesh-model-runner", 1, 4),
        # Nobody knows, so there is no answer: not zero, which would take replicas away.
        ("kitemesh-model-runner-gpu", 0, None),
        ("kitemesh-model-runner-gpu", 1, 1),
        ("kitemesh-gateway", 0, 2),
    ],
)
def test_a_query_wants_as_many_replicas_as_it_should(
    repository: Path, tmp_path: Path, name: str, trigger: int, replicas: int | None
) -> None:
    if KUBECTL is None and name.endswith("-gpu"):
        return
    query, threshold = list(queries(name))[trigger]
    want = f"ceil(({query}) / {threshold:g})"
    samples = [] if replicas is None else [{"labels": "{}", "value": replicas}]
    case = {
        "rule_files": [],
        "tests": [
            {
                "interval": "15s",
                "input_series": [
                    {"series": series, "values": " ".join([value] * 5)} for series, value in SERIES.items()
                ],
                "promql_expr_test": [{"expr": want, "eval_time": "30s", "exp_samples": samples}],
            }
        ],
    }
    file = tmp_path / "scaling.yaml"
    file.write_text(yaml.safe_dump(case))
    promtool = repository / ".venv" / "prometheus" / "promtool"
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not math.isnan(threshold)


def test_what_is_scraped_is_what_every_query_selects_by() -> None:
    (monitor,) = of_kind(
        list(yaml.safe_load_all((FOLDER / "components/prometheus-operator/pod-monitor.yaml").read_text())), "PodMonitor"
    ).values()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("health", "/metrics")
    sources = {each["targetLabel"]: each["sourceLabels"] for each in endpoint["relabelings"]}
    assert set(sources) == TARGET_LABELS
    for target, label in (("service", "app.kubernetes.io/component"), ("pool", "kitemesh/pool")):
        assert sources[target] == ["__meta_kubernetes_pod_label_" + re.sub(r"\W", "_", label)]
    (choice,) = monitor["spec"]["selector"]["matchExpressions"]
    found = [
        pod["metadata"]["labels"] for name, pod in pods(documents("overlays/prod")).items() if "bootstrap" not in name
    ]
    assert {labels["app.kubernetes.io/component"] for labels in found} == set(choice["values"])
    assert all(monitor["spec"]["selector"]["matchLabels"].items() <= labels.items() for labels in found)
    # A worker's own metrics must not have the label that its target gets.
    assert "pool" not in LABELS["kitemesh_slots"] | LABELS["kitemesh_slots_used"]
