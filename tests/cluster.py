"""A whole cluster of real processes for the tests: `kitemesh dev` in a folder of its own, on a free port."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from kitemesh_cli.data_folder import read_environment
from kitemesh_cli.servers import LOOPBACK, free_port

GROUP = "group:123e4567-e89b-12d3-a456-426614174000"
SERVICES = ("gateway", "orchestrator", "model-runner", "tool-executor")


class Reply(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


class Cluster:
    """A running cluster."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, data: Path, log: Path) -> None:
        self.process = process
        self.port = port
        self.data = data
        self.log = log
        self.key = (data / "key").read_text().strip()
        self.origin = f"http://{LOOPBACK}:{port}"

    def call(
        self,
        path: str,
        body: Any = None,
        *,
        key: str | None = "",
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request; the cluster's own key unless another, or `None`, is given."""
        credential = self.key if key == "" else key
        headers = {"Content-Type": "application/json", **(headers or {})}
        if credential is not None:
            headers["Authorization"] = f"Bearer {credential}"
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.origin + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return Reply(reply.status, dict(reply.headers), reply.read())
        except urllib.error.HTTPError as exc:
            with exc:
                return Reply(exc.code, dict(exc.headers), exc.read())

    def chat(self, text: str, **more: Any) -> Reply:
        """Ask the default group."""
        return self.call(
            "/v1/chat/completions", {"model": GROUP, "messages": [{"role": "user", "content": text}], **more}
        )

    def processes(self) -> dict[str, psutil.Process]:
        """Return the cluster's processes by name, a second pool's as `tool-executor-<pool>`.

        One that has just died is not among them.
        """
        found = {}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                line, pool = child.cmdline(), child.environ().get("KITEMESH_POOL", "default")
            except psutil.NoSuchProcess:
                continue
            text = " ".join(line)
            for name in SERVICES:
                if f"kitemesh_{name.replace('-', '_')}" in text:
                    # A child of it, such as the one that runs tools, has its command line.
                    found.setdefault(name if pool == "default" else f"{name}-{pool}", child)
            for name in ("nats-server", "mongod"):
                if line and line[0].endswith(f"/{name}"):
                    found[name] = child
        return found

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> int:
        """Signal one process of the cluster and return its id."""
        process = self.processes()[name]
        process.send_signal(how)
        return int(process.pid)

    def restarted(self, name: str, old: int, *, timeout_s: float = 30) -> None:
        """Return once another process has taken the place of one that was killed."""
        end = time.monotonic() + timeout_s
        while (new := self.processes().get(name)) is None or new.pid == old:
            assert time.monotonic() < end, f"{name} did not come back:\n{self.printed()[-2000:]}"
            time.sleep(0.1)

    def verb(self, *words: str) -> str:
        """Run a verb of the command against this cluster and return what it prints."""
        command = [sys.executable, "-m", "kitemesh_cli", *words, "--data", str(self.data)]
        return subprocess.run(command, capture_output=True, check=True, text=True, env=clean_environment()).stdout

    def environment(self, service: str = "") -> dict[str, str]:
        """Return what a service of the cluster is told of its servers; the operator without one."""
        name = f"env.{service}" if service else "env"
        return {**clean_environment(), **read_environment(self.data / name)}

    def printed(self) -> str:
        """Return what the supervisor has printed."""
        return self.log.read_text(errors="replace")


def denials(data: Path) -> list[str]:
    """Return what NATS or MongoDB denied to services, as they logged it."""
    lines = (line for log in data.glob("logs/*.log*") for line in log.read_text(errors="replace").splitlines())
    return [line for line in lines if "bus.denied" in line or "store.denied" in line]


def clean_environment() -> dict[str, str]:
    """Return this process's environment without what would change a cluster."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("KITEMESH_", "OPENAI_"))}


@contextlib.contextmanager
def running_cluster(
    folder: Path, *, in_order: bool = False, may_be_denied: bool = False, **environ: str
) -> Iterator[Cluster]:
    """Start a cluster and stop it; leaving checks that no process of it is left.

    It is stopped at once, as a second Ctrl-C does; `in_order` waits for what one does, which takes seconds. Unless it
    `may_be_denied` something, leaving checks that it was not.
    """
    port, data, log = free_port(), folder / "data", folder / "dev.log"
    folder.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "kitemesh_cli", "dev", "--port", str(port), "--data", str(data)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**clean_environment(), **environ},
            start_new_session=True,
        )
    family: list[psutil.Process] = []
    try:
        wait_ready(process, port, log)
        yield Cluster(process, port, data, log)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        if not in_order:
            # Two of the same kind may arrive as one.
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        finally:
            process.kill()
            _, alive = psutil.wait_procs(family, timeout=5)
            for left in alive:
                left.kill()
            assert not alive, f"left behind: {alive}"
            denied = [] if may_be_denied else denials(data)
            assert not denied, f"a service was denied something: {denied[:5]}"


def wait_ready(process: subprocess.Popen[bytes], port: int, log: Path, *, timeout_s: float = 60) -> None:
    """Return once the gateway answers."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{LOOPBACK}:{port}/v1/models", timeout=1):
            return
        time.sleep(0.1)
    raise AssertionError(f"the cluster did not start:\n{log.read_text(errors='replace')[-3000:]}")


def events(body: bytes) -> list[Any]:
    """Return the JSON of every SSE data line but `[DONE]`."""
    lines = [line.removeprefix("data: ") for line in body.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def streamed_text(body: bytes) -> str:
    """Return the text that an SSE answer streamed."""
    return "".join(c["delta"].get("content") or "" for event in events(body) for c in event.get("choices", []))
