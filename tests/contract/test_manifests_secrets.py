"""From `kitemesh bootstrap --access` to what a pod is told: the files, the script, the Secrets, the Job."""

import base64
import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from kitemesh_cli.access_files import write_access
from kitemesh_cli.settings import BootstrapSettings
from kitemesh_contracts.permissions import SERVICES
from kitemesh_gateway.settings import GatewaySettings
from kitemesh_model_runner.settings import RunnerSettings
from kitemesh_orchestrator.settings import OrchestratorSettings
from kitemesh_runtime.settings import Settings, load
from kitemesh_tool_executor.settings import ExecutorSettings
from manifests import FOLDER

MODELS: dict[str, type[Settings]] = {
    "gateway": GatewaySettings,
    "orchestrator": OrchestratorSettings,
    "model-runner": RunnerSettings,
    "tool-executor": ExecutorSettings,
}
NATS = "tls://kitemesh-nats:4222"
MONGO = "mongodb://admin:p%40ss@m0.example,m1.example/?replicaSet=rs0&tls=true&authSource=admin"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What `kitemesh bootstrap --access` wrote."""
    write_access(tmp_path / "access", BootstrapSettings(nats_url=SecretStr(NATS), mongo_url=SecretStr(MONGO)))
    return tmp_path / "access"


def run(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("KITEMESH_")}
    return subprocess.run(
        ["sh", str(FOLDER / "secrets.sh"), str(folder)],
        env={**environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def made(folder: Path, **variables: str) -> dict[str, dict[str, str]]:
    """Return the Secrets that the script prints, by name."""
    done = run(folder, KITEMESH_MONGO_URL=MONGO, **variables)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return {
        each["metadata"]["name"]: {key: base64.b64decode(text).decode() for key, text in each["data"].items()}
        for each in yaml.safe_load_all(done.stdout)
    }


def _read(file: Path) -> dict[str, str]:
    return dict("".join(shlex.split(line)).split("=", 1) for line in file.read_text().splitlines())


@pytest.mark.requirement("kubernetes:least-privilege")
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_told_what_was_written_for_it_alone(folder: Path, service: str) -> None:
    told = made(folder)[f"kitemesh-{service}"]
    assert _read(folder / f"{service}.env").items() <= told.items()
    load(MODELS[service], told)
    assert ("KITEMESH_KEY_PEPPER" in told) is (service == "gateway")
    assert "admin" not in "".join(told.values())


def test_the_job_finds_everything_written_and_has_the_administrators_url(folder: Path, tmp_path: Path) -> None:
    secrets = made(folder)
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for name, text in secrets["kitemesh-access"].items():
        (mounted / name).write_text(text)
    operator = {name: secrets["kitemesh-operator"][name] for name in ("KITEMESH_NATS_URL", "KITEMESH_MONGO_URL")}
    settings = load(BootstrapSettings, operator)
    assert settings.mongo_url.get_secret_value() == MONGO
    # The mount cannot be written to.
    access, written = write_access(mounted, settings)
    assert written == []
    assert secrets["kitemesh-nats-users"] == {"nats-users.conf": access.nats_users()}


def test_the_pepper_is_made_once_and_kept_out_of_what_the_job_sees(folder: Path) -> None:
    first, again = made(folder), made(folder)
    pepper = first["kitemesh-gateway"]["KITEMESH_KEY_PEPPER"]
    assert len(pepper) == 64
    assert pepper == again["kitemesh-gateway"]["KITEMESH_KEY_PEPPER"]
    assert pepper == first["kitemesh-operator"]["KITEMESH_KEY_PEPPER"]
    assert "pepper" not in first["kitemesh-access"]
    assert (folder / "pepper").stat().st_mode & 0o077 == 0
    given = made(folder, KITEMESH_KEY_PEPPER="given by the operator")
    assert given["kitemesh-gateway"]["KITEMESH_KEY_PEPPER"] == "given by the operator"


def test_a_folder_without_passwords_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, KITEMESH_MONGO_URL=MONGO)
    assert (done.returncode, done.stdout) == (1, "")
    assert "passwords.json" in done.stderr
