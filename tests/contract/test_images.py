"""The images and what Docker Compose runs of them, held against the code: no daemon builds or starts them here.

What can run without one does: the script that hands out the passwords, nats-server's own check of its configuration,
and Prometheus's own check of its.
"""

import re
import runpy
import shlex
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pytest
import yaml

from kitemesh_cli.servers import nats_binary
from kitemesh_cli.settings import BootstrapSettings
from kitemesh_contracts.permissions import SERVICES
from kitemesh_gateway.settings import GatewaySettings
from kitemesh_model_runner.settings import RunnerSettings
from kitemesh_orchestrator.settings import OrchestratorSettings
from kitemesh_runtime.settings import Settings, load
from kitemesh_tool_executor.settings import ExecutorSettings

ROOT: Final = Path(__file__).resolve().parents[2]
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())
MODELS: Final[dict[str, type[Settings]]] = {
    "gateway": GatewaySettings,
    "orchestrator": OrchestratorSettings,
    "model-runner": RunnerSettings,
    "tool-executor": ExecutorSettings,
    "bootstrap": BootstrapSettings,
}
HEALTH: Final = 9090
WORKERS: Final = ("model-runner", "tool-executor")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each container is told."""
    folder = tmp_path_factory.mktemp("compose")
    hand_out(folder / "access", folder / "told")
    return folder / "told"


def hand_out(kept: Path, below: Path) -> None:
    runpy.run_path(str(ROOT / "compose" / "access.py"))["hand_out"](kept, below)


def read_environment(path: Path) -> dict[str, str]:
    """Return what a shell makes of a file, as the containers' entry point reads it."""
    script = f"set -a; . {shlex.quote(str(path))}; set +a; env -0"
    found = subprocess.run(["sh", "-c", script], env={}, capture_output=True, check=True).stdout.decode()
    lines = (line.partition("=") for line in found.split("\0"))
    return {name: value for name, _, value in lines if name.startswith("KITEMESH_")}


def mounts(name: str) -> dict[str, str]:
    """Return a container's mounts: where, and what."""
    pairs = (each.split(":") for each in COMPOSE["services"][name].get("volumes", []))
    return {pair[1]: pair[0] for pair in pairs}


def prometheus() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose" / "prometheus.yml").read_text())
    return found


def test_every_mount_is_a_file_of_ours_or_a_volume_that_is_listed_and_used() -> None:
    used = set()
    for name in COMPOSE["services"]:
        for what in mounts(name).values():
            if what.startswith("./"):
                assert (ROOT / what).exists(), what
            else:
                used.add(what)
    assert used == set(COMPOSE["volumes"])


def test_every_published_port_is_on_loopback_and_none_is_published_twice() -> None:
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    found = [re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-(\d+)\}:(\d+)", port) for port in published]
    assert all(found), published
    assert len({each.group(1) for each in found if each}) == len(published)
    gateway = load(GatewaySettings, {"KITEMESH_KEY_PEPPER": "of sixteen characters"})
    assert COMPOSE["services"]["gateway"]["ports"] == [f"127.0.0.1:${{PORT:-{gateway.port}}}:{gateway.port}"]


def test_every_image_of_others_is_pinned_by_a_version_and_every_other_is_built_here() -> None:
    for name, service in COMPOSE["services"].items():
        if "build" in service:
            assert service["image"] == f"kitemesh-{service['build']['args']['SERVICE']}", name
        else:
            assert re.search(r":v?\d+\.\d+[\w.-]*\Z", service["image"]), name


@pytest.mark.parametrize("name", MODELS)
def test_each_container_is_told_settings_that_it_reads_and_is_a_user_of_its_own(told: Path, name: str) -> None:
    environ = read_environment(told / name / "env")
    settings = load(MODELS[name], environ)
    user = "operator" if name == "bootstrap" else name
    assert settings.nats_url.get_secret_value().startswith(f"nats://{user}:")
    assert settings.mongo_url.get_secret_value().startswith(f"mongodb://{user}:")
    assert mounts(name)["/run/kitemesh"] == f"told-{name}"
    assert mounts("access")[f"/told/{name}"] == f"told-{name}"
    assert ("KITEMESH_KEY_PEPPER" in environ) == (name in {"gateway", "bootstrap"})


def test_no_container_but_bootstrap_is_told_what_another_is(told: Path) -> None:
    assert {folder.name for folder in told.iterdir()} == {*MODELS, "nats", "mongodb"}
    for name in (*SERVICES, "nats", "mongodb"):
        assert "access" not in mounts(name).values()
        assert sum(what.startswith("told-") for what in mounts(name).values()) == 1
    for path in told.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path


def test_mongodbs_first_user_is_the_one_that_bootstrap_signs_in_as(told: Path) -> None:
    environ = COMPOSE["services"]["mongodb"]["environment"]
    file = PurePosixPath(environ["MONGO_INITDB_ROOT_PASSWORD_FILE"])
    assert mounts("mongodb")[str(file.parent)] == "told-mongodb"
    password = (told / "mongodb" / file.name).read_text()
    url = read_environment(told / "bootstrap" / "env")["KITEMESH_MONGO_URL"]
    assert url.startswith(f"mongodb://{environ['MONGO_INITDB_ROOT_USERNAME']}:{password}@mongodb:27017/")
    assert "authSource=admin" in url


def test_passwords_stay_when_they_are_handed_out_again(tmp_path: Path) -> None:
    hand_out(tmp_path / "access", tmp_path / "told")
    first = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    hand_out(tmp_path / "access", tmp_path / "told")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == first


def test_nats_server_takes_its_configuration_with_the_users_that_are_handed_out(told: Path, tmp_path: Path) -> None:
    config = tmp_path / "kitemesh.conf"
    config.write_text((ROOT / "compose" / "nats.conf").read_text().replace('"/data"', f'"{tmp_path}/data"'))
    (tmp_path / "access").symlink_to(told / "nats")
    where = {what: place for place, what in mounts("nats").items()}
    assert where["./compose/nats.conf"] == COMPOSE["services"]["nats"]["command"][1]
    assert where["told-nats"] == str(PurePosixPath(where["./compose/nats.conf"]).parent / "access")
    checked = subprocess.run([nats_binary(), "-t", "-c", config], capture_output=True, check=False, text=True)
    assert checked.returncode == 0, checked.stderr


def test_each_service_outlives_its_drain_and_is_asked_where_it_tells_that_it_is_ready() -> None:
    for name in SERVICES:
        service = COMPOSE["services"][name]
        settings = Settings.model_fields
        assert float(service["stop_grace_period"].removesuffix("s")) > settings["drain_s"].default
        assert f"127.0.0.1:{HEALTH}/readyz" in service["healthcheck"]["test"][-1]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["depends_on"] == {"bootstrap": {"condition": "service_completed_successfully"}}


def test_the_entry_point_becomes_the_service_with_what_the_file_says(tmp_path: Path) -> None:
    shell = COMPOSE["services"]["gateway"]["entrypoint"]
    told, entry = tmp_path / "env", tmp_path / "entry"
    told.write_text("KITEMESH_NATS_URL='nats://a:b$c@nats'\n")
    entry.write_text('#!/bin/sh\nprintf "%s|" "$KITEMESH_NATS_URL" "$@"\n')
    entry.chmod(0o700)
    script = shell[2].replace("$$", "$").replace("/run/kitemesh/env", str(told))
    command = [*shell[:2], script.replace("/app/.venv/bin/entry", str(entry)), shell[3], "keys", "a b"]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == "nats://a:b$c@nats|keys|a b|"


def test_prometheus_asks_every_service_and_gives_it_the_labels_that_dashboards_select_by() -> None:
    for job in prometheus()["scrape_configs"]:
        found = {each["target_label"]: each["replacement"] for each in job["relabel_configs"]}
        assert found == {"service": job["job_name"], **({"pool": "default"} if job["job_name"] in WORKERS else {})}
        (source,) = job["dns_sd_configs"]
        assert (source["names"], source["type"], source["port"]) == ([job["job_name"]], "A", HEALTH)
    assert {job["job_name"] for job in prometheus()["scrape_configs"]} == set(SERVICES)


def test_prometheus_takes_its_configuration_and_every_rule() -> None:
    folder = mounts("prometheus")["/etc/prometheus/rules"]
    (pattern,) = prometheus()["rule_files"]
    assert pattern == "/etc/prometheus/rules/*.yaml"
    rules = sorted((ROOT / folder).glob("*.yaml"))
    assert rules
    promtool = ROOT / ".venv" / "prometheus" / "promtool"
    for command in (["config", "--syntax-only", ROOT / "compose" / "prometheus.yml"], ["rules", *rules]):
        checked = subprocess.run([promtool, "check", *command], capture_output=True, check=False, text=True)
        assert checked.returncode == 0, checked.stderr


def test_grafana_finds_the_dashboards_and_asks_prometheus() -> None:
    provisioning = ROOT / "compose" / "grafana" / "provisioning"
    assert mounts("grafana")["/etc/grafana/provisioning"] == "./compose/grafana/provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "kitemesh.yaml").read_text())["providers"]
    assert len(list((ROOT / mounts("grafana")[provider["options"]["path"]]).glob("*.json"))) == 6
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert (source["url"], source["type"], source["isDefault"]) == ("http://prometheus:9090", "prometheus", True)


def test_the_image_is_of_this_release_and_runs_as_nobody_of_the_host() -> None:
    text = (ROOT / "Dockerfile").read_text()
    told = dict(re.findall(r"(KITEMESH_\w+)=(\S+)", text))
    settings = load(GatewaySettings, {**told, "KITEMESH_KEY_PEPPER": "of sixteen characters"})
    assert re.findall(r"^EXPOSE (\d+) (\d+)$", text, re.MULTILINE) == [(str(settings.port), str(settings.health_port))]
    assert settings.health_port == HEALTH
    assert "\nUSER 10001:10001\n" in text
    assert f"\nARG VERSION={(ROOT / 'VERSION').read_text().strip()}\n" in text
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11\.\d+-slim-\w+$", text, re.MULTILINE)
    script = (ROOT / "compose" / "access.py").read_text()
    assert "\nOURS: Final = 10001\n" in script


def test_the_image_copies_what_every_member_of_the_workspace_needs_before_the_code() -> None:
    text = (ROOT / "Dockerfile").read_text()
    copied = set(re.findall(r"^COPY (\S+)/pyproject\.toml \1/$", text, re.MULTILINE))
    members = {
        str(path.parent.relative_to(ROOT))
        for each in ("libs/*", "services/*", "cli", "observability")
        for path in ROOT.glob(f"{each}/pyproject.toml")
    }
    assert copied == members
