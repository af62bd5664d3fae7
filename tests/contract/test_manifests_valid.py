"""Everything that `k8s` can render is valid, refers to what is there, and asks for no more rights than it needs."""

import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import jsonschema_rs
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

from kitemesh_observability.rules import MEMORY_BYTES
from manifests import FOLDER, HOW, KUBECTL, Document, container, documents, documents_of, of_kind, pods, service_pods

VERSIONS = ("1.30", "1.37")
"""The oldest Kubernetes that docs/kubernetes.md names, and the newest that there are schemas of."""
WHOLE = (
    *("base", "overlays/dev", "overlays/prod", "operator/dev", "operator/prod", "examples/complete"),
    *("pools/gpu", "pools/gpu/keda", "pools/wasm", "pools/wasm/keda"),
)
OVERLAYS = ("overlays/dev", "overlays/prod")
CUSTOM = {
    file.stem: jsonschema_rs.Draft202012Validator(json.loads(file.read_text()))
    for file in sorted(Path(__file__).parent.glob("schemas/*.json"))
}
# Made by `secrets.sh`, or by whoever runs the cluster, as the documents say.
BROUGHT = {
    "ConfigMap": {"kitemesh-ca"},
    "Secret": {
        *("kitemesh-gateway", "kitemesh-orchestrator", "kitemesh-model-runner", "kitemesh-tool-executor"),
        *("kitemesh-operator", "kitemesh-access", "kitemesh-nats-users", "kitemesh-nats-tls"),
    },
}
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}

whole = pytest.mark.parametrize("name", WHOLE, ids=[f"{name}-{HOW}" for name in WHOLE])


@pytest.fixture(scope="module", autouse=True)
def _schemas_are_read_once() -> Iterator[None]:
    """Keep the library from reading megabytes of definitions for every document."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", cache(utils.schema_contents))
        yield


def check(found: list[Document]) -> None:
    assert found
    for text in {json.dumps(each, sort_keys=True) for each in found}:
        check_one(text)


@cache
def check_one(text: str) -> None:
    """Check a document, of which the same is in many folders, once."""
    document = json.loads(text)
    if document["kind"] in CUSTOM:
        CUSTOM[document["kind"]].validate(document)
        return
    for version in VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.requirement("kubernetes:valid")
@whole
def test_every_document_is_valid(name: str) -> None:
    check(documents(name))


@pytest.mark.requirement("kubernetes:valid")
@pytest.mark.parametrize(
    ("overlay", "components"),
    [("overlays/prod", {"hpa"}), ("overlays/dev", {"keda", "network-policy", "prometheus-operator"})],
)
def test_components_can_be_put_on_an_overlay(tmp_path: Path, overlay: str, components: set[str]) -> None:
    shutil.copytree(FOLDER, tmp_path / "k8s")
    own = tmp_path / "k8s" / "own"
    own.mkdir()
    text = {"resources": [f"../{overlay}"], "components": [f"../components/{each}" for each in sorted(components)]}
    (own / "kustomization.yaml").write_text(yaml.safe_dump(text))
    found = documents_of(own)
    check(found)
    assert len(found) > len(documents(overlay))


def test_every_kustomization_is_tried() -> None:
    complete = yaml.safe_load((FOLDER / "examples" / "complete" / "kustomization.yaml").read_text())
    components = {Path(each).name for each in complete["components"]} | {"hpa"}
    assert {path.name for path in (FOLDER / "components").iterdir()} == components
    assert {str(path.parent.relative_to(FOLDER)) for path in FOLDER.rglob("kustomization.yaml")} == {
        *WHOLE,
        *(f"components/{component}" for component in components),
        *("base/gateway", "base/orchestrator", "base/model-runner", "base/tool-executor"),
        *("components/keda/model-runner", "components/keda/tool-executor"),
    }


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        ("ScaledObject", {"spec": {"scaleTargetRef": {"name": "a"}, "triggers": [], "minReplicas": 1}}),
        ("PodMonitor", {"spec": {"selector": {}, "podMetricsEndpoints": [{"port": "health", "relabelConfigs": []}]}}),
        ("PrometheusRule", {"spec": {"groups": [{"name": "g", "rules": [{"expr": "up"}]}]}}),
    ],
)
def test_a_custom_resource_with_a_mistake_is_refused(kind: str, broken: Document) -> None:
    (sound,) = [
        each
        for each in documents("examples/complete")
        if each["kind"] == kind and each["metadata"]["name"] in {"kitemesh", "kitemesh-gateway"}
    ]
    assert CUSTOM[kind].is_valid(sound)
    assert not CUSTOM[kind].is_valid({**sound, **broken})


@whole
def test_every_file_is_used(name: str) -> None:
    folder = FOLDER / name
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    generators = [*kustomization.get("configMapGenerator", ()), *kustomization.get("secretGenerator", ())]
    named = {
        *kustomization.get("resources", ()),
        *(file for each in generators for file in [*each.get("files", ()), *each.get("envs", ())]),
        *(patch["path"] for patch in kustomization.get("patches", ()) if "path" in patch),
    }
    own = {file.name for file in folder.iterdir() if not (file.is_dir() and file.name == "keda")}
    assert own == {"kustomization.yaml", *(each for each in named if "/" not in each)}


@pytest.mark.requirement("kubernetes:valid")
@pytest.mark.parametrize("name", [*OVERLAYS, "examples/complete"])
def test_whatever_a_pod_refers_to_is_there_or_brought_by_the_operator(name: str) -> None:
    found = documents(name)
    config_maps = BROUGHT["ConfigMap"] | set(of_kind(found, "ConfigMap"))
    if KUBECTL is None:
        # What generators make is not in any file.
        config_maps |= {"kitemesh-catalog", "kitemesh-nats"}
    secrets = BROUGHT["Secret"] | set(of_kind(found, "Secret"))
    accounts = of_kind(found, "ServiceAccount")
    for pod in pods(found).values():
        spec = pod["spec"]
        if "serviceAccountName" in spec:
            assert accounts[spec["serviceAccountName"]]["automountServiceAccountToken"] is False
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        claims = {"data"}
        assert {mount["name"] for mount in container(pod)["volumeMounts"]} <= volumes.keys() | claims
        sources = [source for each in volumes.values() for source in each.get("projected", {}).get("sources", [each])]
        assert {source["configMap"]["name"] for source in sources if "configMap" in source} <= config_maps
        named = {
            source["secret"].get("secretName") or source["secret"]["name"] for source in sources if "secret" in source
        }
        assert named <= secrets
        references = [variable.get("valueFrom", {}).get("secretKeyRef") for variable in container(pod).get("env", ())]
        assert {reference["name"] for reference in references if reference} <= secrets
        assert all(source["secretRef"]["optional"] for source in container(pod).get("envFrom", ()))


@pytest.mark.requirement("kubernetes:least-privilege")
@pytest.mark.parametrize("name", [*OVERLAYS, "operator/prod", "examples/complete"])
def test_no_pod_has_more_rights_than_it_needs(name: str) -> None:
    found = documents(name)
    for pod in pods(found).values():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container(pod)["securityContext"] == RESTRICTED
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()
        # Whatever it may write to is its own, and bounded.
        assert all(each["emptyDir"]["sizeLimit"] for each in spec["volumes"] if "emptyDir" in each)
        assert {"cpu", "memory"} <= container(pod)["resources"]["requests"].keys()
        assert "memory" in container(pod)["resources"]["limits"]
    for each in of_kind(found, "Namespace").values():
        assert each["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert not of_kind(found, "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


@pytest.mark.parametrize("name", [*OVERLAYS, "examples/complete"])
def test_services_are_replaced_one_after_the_other_and_spread(name: str) -> None:
    found = documents(name)
    budgets = [each["spec"] for each in of_kind(found, "PodDisruptionBudget").values()]
    for workload, (_, pod) in service_pods(found).items():
        spec = of_kind(found, "Deployment")[workload]["spec"]
        assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        assert spec["minReadySeconds"] > 0
        labels = pod["metadata"]["labels"]
        chosen = spec["selector"]["matchLabels"]
        assert chosen.items() <= labels.items()
        spread = pod["spec"]["topologySpreadConstraints"]
        assert [each["topologyKey"] for each in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        assert all(each["labelSelector"]["matchLabels"] == chosen for each in spread)
        (budget,) = [each for each in budgets if each["selector"]["matchLabels"].items() <= labels.items()]
        assert budget["maxUnavailable"] == 1


def test_no_two_workloads_own_the_same_pods() -> None:
    if KUBECTL is None:
        return
    found = documents("examples/complete")
    for workload, (_, pod) in service_pods(found).items():
        owners = [
            name
            for name, each in of_kind(found, "Deployment").items()
            if each["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        ]
        assert owners == [workload]


def test_the_alert_on_memory_knows_the_limit_that_pods_have() -> None:
    for _, pod in service_pods(documents("overlays/prod")).values():
        assert container(pod)["resources"]["limits"]["memory"] == f"{MEMORY_BYTES // (1 << 30)}Gi"


def test_production_trusts_its_own_authorities_everywhere() -> None:
    found = documents("examples/complete" if KUBECTL else "overlays/prod")
    ours = {name: pod for name, pod in pods(found).items() if name != "kitemesh-nats"}
    for pod in [*ours.values(), *pods(documents("operator/prod")).values()]:
        told = {each["name"]: each.get("value") for each in container(pod)["env"]}
        mounts = {each["mountPath"] for each in container(pod)["volumeMounts"]}
        assert KUBECTL is None or (told["SSL_CERT_FILE"] == "/etc/kitemesh-ca/ca.crt" and "/etc/kitemesh-ca" in mounts)


def test_production_is_three_of_each() -> None:
    found = documents("overlays/prod")
    replicas = {name: each["spec"]["replicas"] for name, each in of_kind(found, "Deployment").items()}
    assert set(replicas.values()) == ({3} if KUBECTL else {2})
    job = container(pods(found)["kitemesh-bootstrap"])
    told = {each["name"]: each.get("value") for each in job["env"]}
    assert KUBECTL is None or (told["KITEMESH_REPLICAS"] == "3" and job["args"][1] == "--access")


def test_a_dashboard_fits_into_what_apply_remembers() -> None:
    for file in (FOLDER / "components" / "prometheus-operator" / "dashboards").iterdir():
        assert len(json.dumps(file.read_text())) < 200_000


def test_the_documents_say_what_was_not_tried(repository: Path) -> None:
    text = " ".join((repository / "docs" / "kubernetes.md").read_text().split())
    assert "No cluster has run these files" in text
    assert "no real CRD has validated" in text
    assert "Without kubectl the tests only read the files" in text
