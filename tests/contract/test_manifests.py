"""Files that other machines run: every document is read, and what it says about us is held against the code."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kitemesh_cli.settings import BootstrapSettings
from kitemesh_gateway.settings import GatewaySettings
from kitemesh_model_runner.settings import RunnerSettings
from kitemesh_orchestrator.settings import OrchestratorSettings
from kitemesh_runtime.settings import PREFIX, Settings, load
from kitemesh_tool_executor.settings import ExecutorSettings

MODELS: dict[str, type[Settings]] = {
    "gateway": GatewaySettings,
    "orchestrator": OrchestratorSettings,
    "model-runner": RunnerSettings,
    "tool-executor": ExecutorSettings,
    "bootstrap": BootstrapSettings,
}
SECRETS = {"nats-url": "nats://nats:4222", "mongo-url": "mongodb://mongo", "key-pepper": "a pepper for the tests"}
Document = dict[str, Any]


@pytest.fixture(scope="module")
def base() -> Path:
    return Path(__file__).resolve().parents[2] / "k8s" / "base"


@pytest.fixture(scope="module")
def documents(base: Path) -> list[Document]:
    kustomization = yaml.safe_load((base / "kustomization.yaml").read_text())
    found = []
    for name in kustomization["resources"]:
        found += list(yaml.safe_load_all((base / name).read_text()))
    return found


def containers(documents: list[Document]) -> dict[str, Document]:
    pods = [each["spec"]["template"]["spec"] for each in documents if each["kind"] in {"Deployment", "Job"}]
    return {pod["containers"][0]["name"]: {**pod["containers"][0], "pod": pod} for pod in pods}


def environment(container: Document) -> dict[str, str]:
    return {
        each["name"]: each["value"] if "value" in each else SECRETS[each["valueFrom"]["secretKeyRef"]["key"]]
        for each in container["env"]
    }


def test_every_file_of_the_base_is_used_and_every_document_has_a_kind(base: Path, documents: list[Document]) -> None:
    kustomization = yaml.safe_load((base / "kustomization.yaml").read_text())
    catalog = kustomization["configMapGenerator"][0]["files"]
    assert {file.name for file in base.iterdir()} == {"kustomization.yaml", *kustomization["resources"], *catalog}
    assert all(each["apiVersion"] and each["kind"] and each["metadata"]["name"] for each in documents)
    kinds = [each["kind"] for each in documents]
    assert (kinds.count("Deployment"), kinds.count("Job"), kinds.count("ServiceAccount")) == (4, 1, 5)


def test_the_base_offers_the_packaged_catalog_and_this_version(base: Path, repository: Path) -> None:
    packaged = repository / "cli" / "src" / "kitemesh_cli" / "catalog.yaml"
    assert (base / "catalog.yaml").read_text() == packaged.read_text()
    version = (repository / "VERSION").read_text().strip()
    images = yaml.safe_load((base / "kustomization.yaml").read_text())["images"]
    assert {image["newTag"] for image in images} == {version}


@pytest.mark.parametrize("name", MODELS)
def test_each_process_is_told_valid_settings_that_it_reads(documents: list[Document], name: str) -> None:
    told = environment(containers(documents)[name])
    settings = load(MODELS[name], told)
    assert {variable.removeprefix(PREFIX).lower() for variable in told} <= settings.model_fields_set
    if name != "bootstrap":
        assert settings.health_host == "0.0.0.0"


@pytest.mark.parametrize("name", [name for name in MODELS if name != "bootstrap"])
def test_ports_and_probes_are_those_that_the_process_listens_on(documents: list[Document], name: str) -> None:
    container = containers(documents)[name]
    settings = load(MODELS[name], environment(container))
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["health"] == settings.health_port
    if isinstance(settings, GatewaySettings):
        assert ports["http"] == settings.port
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "health"}
    assert container["pod"]["terminationGracePeriodSeconds"] > settings.drain_s


@pytest.mark.parametrize("name", MODELS)
def test_no_pod_has_more_rights_than_it_needs(documents: list[Document], name: str) -> None:
    container = containers(documents)[name]
    pod = container["pod"]
    accounts = {each["metadata"]["name"]: each for each in documents if each["kind"] == "ServiceAccount"}
    assert accounts[pod["serviceAccountName"]]["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_compose_runs_every_service_with_settings_that_are_known(repository: Path) -> None:
    compose = yaml.safe_load((repository / "compose.yaml").read_text())
    assert set(compose["services"]) == {*MODELS, "nats", "mongodb"}
    for name, model in MODELS.items():
        service = compose["services"][name]
        told = {variable: value.replace("${", "") for variable, value in service["environment"].items()}
        load(model, told)
        assert service["build"]["args"]["SERVICE"] == ("cli" if name == "bootstrap" else name)
        if name != "bootstrap":
            assert "9090/readyz" in service["healthcheck"]["test"][-1]
            assert float(service["stop_grace_period"].removesuffix("s")) > Settings.model_fields["drain_s"].default


def test_the_image_is_told_settings_that_are_known(repository: Path) -> None:
    text = (repository / "Dockerfile").read_text()
    told = dict(re.findall(r"(KITEMESH_\w+)=(\S+)", text))
    settings = load(GatewaySettings, {**told, "KITEMESH_KEY_PEPPER": SECRETS["key-pepper"]})
    exposed = re.findall(r"^EXPOSE (\d+) (\d+)$", text, re.MULTILINE)
    assert exposed == [(str(settings.port), str(settings.health_port))]
    assert "\nUSER 10001:10001\n" in text


def test_the_same_uv_installs_everywhere(repository: Path) -> None:
    in_image = re.findall(r"UV_VERSION=([\d.]+)", (repository / "Dockerfile").read_text())
    in_setup = re.findall(r"UV_VERSION=([\d.]+)", (repository / "scripts" / "setup.sh").read_text())
    assert len(in_image) == 1
    assert in_image == in_setup
