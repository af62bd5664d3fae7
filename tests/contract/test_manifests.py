"""Files that other machines run: what they say about the services is held against the code."""

import re
from pathlib import Path

import pytest
import yaml

from kitemesh_cli.access import ensure_access
from kitemesh_cli.settings import BootstrapSettings
from kitemesh_contracts.permissions import OPERATOR, SERVICES
from kitemesh_gateway.app import LAST_WORDS_S
from kitemesh_gateway.http_server import SHUTDOWN_S
from kitemesh_gateway.settings import GatewaySettings
from kitemesh_model_runner.runner import POSTED_S
from kitemesh_model_runner.settings import RunnerSettings
from kitemesh_orchestrator.settings import OrchestratorSettings
from kitemesh_runtime import health
from kitemesh_runtime.catalog import parse
from kitemesh_runtime.connection_nats import CLOSE_S
from kitemesh_runtime.settings import KNOWN, PREFIX, Settings, load
from kitemesh_tool_executor.settings import ExecutorSettings
from manifests import FOLDER, HOW, KUBECTL, Document, container, documents, environment, of_kind, pods, service_pods

MODELS: dict[str, type[Settings]] = {
    "gateway": GatewaySettings,
    "orchestrator": OrchestratorSettings,
    "model-runner": RunnerSettings,
    "tool-executor": ExecutorSettings,
    "bootstrap": BootstrapSettings,
}
PEPPER = "a pepper for the tests"
SERVERS = {"KITEMESH_NATS_URL": "nats://nats:4222", "KITEMESH_MONGO_URL": "mongodb://mongo"}
SECRETS = {
    "kitemesh-gateway": {**SERVERS, "KITEMESH_KEY_PEPPER": PEPPER},
    "kitemesh-orchestrator": SERVERS,
    "kitemesh-model-runner": SERVERS,
    "kitemesh-tool-executor": SERVERS,
    "kitemesh-operator": {**SERVERS, "KITEMESH_KEY_PEPPER": PEPPER},
}
TO_SPARE_S = 5.0
RUN = ("base", "overlays/dev", "overlays/prod", "examples/complete")

runs = pytest.mark.parametrize("name", RUN, ids=[f"{name}-{HOW}" for name in RUN])


def services(name: str) -> list[tuple[str, Document, Settings]]:
    """List the services of a folder under k8s, their pods and the settings that these are told."""
    return [
        (service, pod, load(MODELS[service], environment(pod, SECRETS)))
        for service, pod in service_pods(documents(name)).values()
    ]


@pytest.mark.requirement("kubernetes:manifests-agree")
@runs
def test_every_service_runs_with_valid_settings_that_it_reads(name: str) -> None:
    found = services(name)
    assert {service for service, _, _ in found} == set(SERVICES)
    for _, pod, settings in found:
        told = {each for each in environment(pod, SECRETS) if each.startswith(PREFIX)}
        assert {variable.removeprefix(PREFIX).lower() for variable in told} <= settings.model_fields_set
        assert settings.health_host == "0.0.0.0"
        assert settings.log_format == "json"


@runs
def test_the_bootstrap_job_runs_with_valid_settings_that_it_reads(name: str) -> None:
    job = pods(documents(name))["kitemesh-bootstrap"]
    told = {variable: text for variable, text in environment(job, SECRETS).items() if variable.startswith(PREFIX)}
    settings = load(BootstrapSettings, told)
    assert {variable.removeprefix(PREFIX).lower() for variable in told} <= settings.model_fields_set
    assert container(job)["args"][0] == "bootstrap"


def test_the_operators_shell_is_told_variables_that_some_verb_reads() -> None:
    told = environment(pods(documents("operator/dev"))["kitemesh-operator"], SECRETS)
    assert {variable.removeprefix(PREFIX) for variable in told} <= KNOWN
    assert {"KITEMESH_KEY_PEPPER", *SERVERS} <= set(told)


@pytest.mark.requirement("kubernetes:manifests-agree")
@runs
def test_ports_and_probes_are_those_that_the_process_listens_on(name: str) -> None:
    served = {route.resource.canonical for route in health.routes(bool, ()).router.routes() if route.resource}
    for service, pod, settings in services(name):
        only = container(pod)
        ports = {port["name"]: port["containerPort"] for port in only["ports"]}
        assert ports.pop("health") == settings.health_port
        assert ports == ({"http": settings.port} if isinstance(settings, GatewaySettings) else {}), service
        paths = {probe: only[probe]["httpGet"]["path"] for probe in only if probe.endswith("Probe")}
        assert paths == {"startupProbe": "/livez", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
        assert set(paths.values()) <= served
        assert all(only[probe]["httpGet"]["port"] == "health" for probe in paths)
    (port,) = of_kind(documents(name), "Service")["kitemesh-gateway"]["spec"]["ports"]
    assert port["targetPort"] == "http"


@pytest.mark.requirement("kubernetes:manifests-agree")
@runs
def test_a_pod_is_given_the_time_that_its_process_takes_to_stop(name: str) -> None:
    for service, pod, settings in services(name):
        hook_s = container(pod).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        # Only a gateway is called by others; a worker takes what it wants to have.
        assert bool(hook_s) is (service == "gateway")
        # Servers shut down twice, for clients and for health; `cleanup()` takes twice its time.
        code_s = settings.drain_s + max(LAST_WORDS_S, POSTED_S) + 4 * SHUTDOWN_S + CLOSE_S
        assert pod["spec"]["terminationGracePeriodSeconds"] >= hook_s + code_s + TO_SPARE_S


@pytest.mark.requirement("kubernetes:manifests-agree")
@runs
def test_every_secret_that_is_referred_to_is_one_that_the_operator_makes(name: str, tmp_path: Path) -> None:
    access = ensure_access(tmp_path / "passwords.json")
    made = {
        f"kitemesh-{service}": set(access.variables(service, nats="nats://n", mongo="mongodb://m", database="d"))
        for service in SERVICES
    }
    made["kitemesh-gateway"].add("KITEMESH_KEY_PEPPER")
    made[f"kitemesh-{OPERATOR}"] = {*SERVERS, "KITEMESH_KEY_PEPPER"}
    for each in [*pods(documents(name)).values(), *pods(documents("operator/prod")).values()]:
        for variable in container(each).get("env", ()):
            key = variable.get("valueFrom", {}).get("secretKeyRef")
            assert key is None or (key["key"] == variable["name"] and key["key"] in made[key["name"]])
    for service, pod, _ in services(name):
        assert {
            variable["valueFrom"]["secretKeyRef"]["name"]
            for variable in container(pod)["env"]
            if "secretKeyRef" in variable.get("valueFrom", {})
        } == {f"kitemesh-{service}"}


@pytest.mark.requirement("kubernetes:manifests-agree")
def test_each_pool_of_a_catalog_has_workers_of_its_own_name() -> None:
    for name, file in (
        ("base", FOLDER / "base" / "catalog.yaml"),
        ("examples/complete", FOLDER / "examples" / "complete" / "catalog.yaml"),
    ):
        catalog = parse(file.read_text())
        for service, wanted in (("model-runner", catalog.pools.model), ("tool-executor", catalog.pools.tool)):
            found = {
                settings.pool
                for each, _, settings in services(name)
                if each == service and isinstance(settings, RunnerSettings | ExecutorSettings)
            }
            # The names of further pools are patches.
            assert found == (set(wanted) if KUBECTL else {"default"})


def test_the_base_offers_the_packaged_catalog(repository: Path) -> None:
    packaged = repository / "cli" / "src" / "kitemesh_cli" / "catalog.yaml"
    assert (FOLDER / "base" / "catalog.yaml").read_text() == packaged.read_text()


def test_every_image_is_of_this_release_or_the_one_that_compose_runs(repository: Path) -> None:
    version = (repository / "VERSION").read_text().strip()
    compose = yaml.safe_load((repository / "compose.yaml").read_text())["services"]
    ours = {f"kitemesh-{service}:{version}" for service in (*SERVICES, "cli")}
    foreign = {compose[server]["image"] for server in ("nats", "mongodb")}
    for name in (*RUN, "operator/dev"):
        assert {container(pod)["image"] for pod in pods(documents(name)).values()} <= ours | foreign


def test_the_same_uv_installs_everywhere(repository: Path) -> None:
    in_image = re.findall(r"UV_VERSION=([\d.]+)", (repository / "Dockerfile").read_text())
    in_setup = re.findall(r"UV_VERSION=([\d.]+)", (repository / "scripts" / "setup.sh").read_text())
    assert len(in_image) == 1
    assert in_image == in_setup
