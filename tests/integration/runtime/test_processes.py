"""A service as a process: settings that are wrong, readiness, health, metrics, stopping."""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kitemesh_cli.servers import LOOPBACK, free_port

MODULES = ("gateway", "orchestrator", "model_runner", "tool_executor")
CATALOG = "{providers: {p: {kind: scripted}}, models: {a: {provider: p}}}"


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("KITEMESH_")}


def run(module: str, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"kitemesh_{module}", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**clean(), **environ}, timeout=60)


class Told(NamedTuple):
    """What a service says that ends before it serves."""

    returncode: object
    stdout: str
    stderr: str


Begin = Callable[..., Told]


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Begin:
    """Begin to be a service in this process: most of what one of its own takes is to be started."""

    def call(module: str, *words: str, **environ: str) -> Told:
        for name in os.environ.keys() - clean().keys():
            monkeypatch.delenv(name)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", [module, *words])
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(f"kitemesh_{module}.__main__").main()
        printed = capsys.readouterr()
        return Told(ended.value.code, printed.out, printed.err)

    return call


@pytest.fixture(scope="module", autouse=True)
def busless(tmp_path_factory: pytest.TempPathFactory) -> Iterator["subprocess.Popen[bytes]"]:
    """A service that looks for a bus where there is none; it takes its time while the other tests run."""
    folder = tmp_path_factory.mktemp("busless")
    (folder / "catalog.yaml").write_text(CATALOG)
    environ = {
        "KITEMESH_NATS_URL": f"nats://{LOOPBACK}:{free_port()}",
        "KITEMESH_CATALOG": str(folder / "catalog.yaml"),
        "KITEMESH_HEALTH_PORT": "0",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "kitemesh_tool_executor"], stdout=subprocess.PIPE, env={**clean(), **environ}
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.requirement("settings:secrets-are-masked")
@pytest.mark.parametrize("module", MODULES)
def test_it_prints_its_effective_settings_and_masks_secrets(module: str, tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    told = {"KITEMESH_CATALOG": str(tmp_path / "catalog.yaml"), "KITEMESH_KEY_PEPPER": "p" * 32}
    done = run(module, "--check", KITEMESH_NATS_URL="nats://user:s3cret@host:4222", **told)
    assert done.returncode == 0, done.stderr
    assert "KITEMESH_DRAIN_S=25.0" in done.stdout.splitlines()
    assert "s3cret" not in done.stdout
    assert "p" * 32 not in done.stdout


@pytest.mark.requirement("settings:all-problems-at-once")
@pytest.mark.parametrize("module", MODULES)
def test_every_wrong_setting_is_told_at_once_with_its_own_exit_code(module: str, begin: Begin) -> None:
    done = begin(
        module, KITEMESH_DRAIN_S="soon", KITEMESH_LOG_LEVEL="loud", KITEMESH_TYPO="1", KITEMESH_KEY_PEPPER="p" * 32
    )
    assert done.returncode == 78
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all(any(name in line for line in lines) for name in ("DRAIN_S", "LOG_LEVEL", "KITEMESH_TYPO is not"))


@pytest.mark.parametrize("words", [(), ("--check",)])
@pytest.mark.parametrize("module", MODULES)
def test_a_catalog_that_is_missing_or_wrong_is_told_in_a_sentence_with_the_exit_code_of_settings(
    module: str, words: tuple[str, ...], begin: Begin, tmp_path: Path
) -> None:
    path = tmp_path / "catalog.yaml"
    told = {"KITEMESH_CATALOG": str(path), "KITEMESH_KEY_PEPPER": "p" * 32}
    absent = begin(module, *words, **told)
    name = f"kitemesh-{module.replace('_', '-')}"
    assert absent.returncode == 78
    assert absent.stderr == f"{name}: {path} does not exist; KITEMESH_CATALOG names the catalog\n"
    assert "service.died" not in absent.stdout
    path.write_text("{providers: {}, models: {a: {provider: p}}, extra: 1}")
    wrong = begin(module, *words, **told)
    assert wrong.returncode == 78
    assert [line.partition(f"{path}: ")[2].partition(":")[0] for line in wrong.stderr.splitlines()] == [
        "extra",
        "models.a",
    ]


def test_a_pool_that_the_catalog_lacks_is_told_in_a_sentence(tmp_path: Path, nats_url: str, mongo_url: str) -> None:
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    refused = run(
        "tool_executor",
        KITEMESH_CATALOG=str(tmp_path / "catalog.yaml"),
        KITEMESH_NATS_URL=nats_url,
        KITEMESH_MONGO_URL=mongo_url,
        KITEMESH_HEALTH_PORT="0",
        KITEMESH_POOL="gpu",
    )
    assert refused.returncode == 78
    assert refused.stderr == "kitemesh-tool-executor: pools.tool: no pool 'gpu'\n"


@pytest.mark.parametrize("module", MODULES)
def test_it_says_what_it_is_and_which_version(module: str, begin: Begin) -> None:
    name = f"kitemesh-{module.replace('_', '-')}"
    assert begin(module, "--version").stdout.startswith(f"{name} ")
    assert begin(module, "--help").stdout.startswith(f"usage: {name} ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_stops_in_order_when_its_terminal_closes_as_when_it_is_asked_to(
    storeless: tuple[subprocess.Popen[bytes], int], tmp_path: Path, number: signal.Signals
) -> None:
    process, _ = storeless
    process.send_signal(number)
    assert process.wait(20) == 0
    events = [json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines()]
    assert events[-1] == "service.stopped"
    assert "service.stop_requested" in events


def ask(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}{path}", timeout=5) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read()


@pytest.fixture
def storeless(nats_url: str, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A service whose bus is there and whose store is not."""
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    port = free_port()
    environ = {
        "KITEMESH_NATS_URL": nats_url,
        "KITEMESH_MONGO_URL": f"mongodb://{LOOPBACK}:{free_port()}",
        "KITEMESH_CATALOG": str(tmp_path / "catalog.yaml"),
        "KITEMESH_HEALTH_PORT": str(port),
    }
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "kitemesh_tool_executor"], stdout=log, stderr=log, env={**clean(), **environ}
        )
    try:
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                if ask(port, "/readyz")[0] == 200:
                    break
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        yield process, port
    finally:
        process.kill()
        process.wait()


@pytest.mark.requirement("health:dependencies")
def test_a_store_that_is_down_is_seen_in_health_and_takes_no_replica_out(
    storeless: tuple[subprocess.Popen[bytes], int],
) -> None:
    process, port = storeless
    assert ask(port, "/livez")[0] == 200
    status, body = ask(port, "/healthz")
    health: dict[str, Any] = json.loads(body)
    assert (status, health["ready"]) == (503, True)
    assert health["dependencies"]["nats"] == {"up": True, "reason": ""}
    assert health["dependencies"]["mongodb"]["up"] is False
    assert health["dependencies"]["mongodb"]["reason"]
    _, metrics = ask(port, "/metrics")
    assert b'kitemesh_dependency_up{dependency="mongodb"} 0.0' in metrics
    assert b"process_resident_memory_bytes" in metrics
    process.terminate()
    assert process.wait(20) == 0


def test_without_a_bus_it_says_so_and_ends(busless: "subprocess.Popen[bytes]") -> None:
    printed, _ = busless.communicate(timeout=60)
    assert busless.returncode == 1
    last = json.loads([line for line in printed.splitlines() if b"service.died" in line][-1])
    assert "The message bus cannot be reached" in last["exception"]
