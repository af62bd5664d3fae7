"""The bench's processes: clusters, the pass-through and the upstream as children on chosen cores, and what they use."""

import asyncio
import contextlib
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil
import yaml

from bench.bench_client import Target
from kitemesh_cli.data_folder import read_environment
from kitemesh_cli.servers import LOOPBACK, die_with_parent, free_port

HERE: Final = Path(__file__).parent
SERVER_CORE: Final = {0}
CLIENT_CORE: Final = {1}
SERVICES: Final = ("gateway", "orchestrator", "model_runner", "tool_executor")
CHAT: Final = "/v1/chat/completions"
GROUP: Final = "123e4567-e89b-12d3-a456-426614174000"
RUN: Final = (sys.executable, "-m")

Use = dict[str, float]
"""A figure for each process of a cluster."""


def catalog(upstream: int) -> dict[str, Any]:
    """Return a catalog whose one model, and whose HTTP tools, are the bench's upstream."""
    here = f"http://{LOOPBACK}:{upstream}"
    one = {"type": "object", "properties": {"n": {"type": "string"}}, "required": ["n"], "additionalProperties": False}
    http = {"kind": "http", "allow_networks": ["127.0.0.0/8"], "parameters": one}
    return {
        "version": 1,
        "providers": {"bench": {"kind": "openai", "base_url": f"{here}/v1"}},
        "models": {"bench": {"provider": "bench"}, "twin": {"provider": "bench", "upstream": "bench"}},
        "groups": {GROUP: {"models": ["bench", "twin"], "weights": {"bench": 3, "twin": 1}}},
        "agents": {
            "assistant": {"model": "bench"},
            "clerk": {"model": "bench", "tools": ["look", "act", "weather", "delete_record", "pay"]},
        },
        "tools": {
            "look": {**http, "url": f"{here}/tools/look"},
            "act": {**http, "method": "POST", "url": f"{here}/tools/act"},
            "pay": {**http, "method": "POST", "url": f"{here}/tools/pay", "sentence": "Pay {{n}}"},
            "weather": {
                "kind": "python",
                "entry_point": "weather",
                "effect": "safe",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            },
            "delete_record": {
                "kind": "python",
                "entry_point": "delete_record",
                "parameters": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
            },
        },
        "policies": [{"tools": ["pay"], "then": "hold", "expires_after_s": 86_400}],
    }


class Cluster(NamedTuple):
    """A running cluster.

    Attributes:
        processes: By name; each counts with what it has started.

    """

    port: int
    data: Path
    key: str
    processes: dict[str, psutil.Process]

    def target(self, model: str, mode: str = "") -> Target:
        """Return where to ask a model, or an agent."""
        return Target(self.port, CHAT, model, self.key, mode)

    def environment(self) -> dict[str, str]:
        """Return what the services are told of their servers."""
        return read_environment(self.data / "env")

    def cpu_s(self) -> Use:
        """Return each process's CPU time so far, its children's included."""
        return {name: _over_family(top, lambda each: sum(each.cpu_times()[:4])) for name, top in self.processes.items()}

    def memory_kib(self) -> Use:
        """Return each process's unique memory, its children's included."""
        return {
            name: _over_family(top, lambda each: each.memory_full_info().uss / 1024)
            for name, top in self.processes.items()
        }


def spent(before: Use, after: Use) -> Use:
    """Return what was used in between."""
    return {name: after[name] - before[name] for name in after}


@contextlib.contextmanager
def child(command: list[str], cores: set[int], log: Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process while inside."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_pinned(cores),  # noqa: PLW1509  pins, then execs
            env={**os.environ, "PYTHONPATH": str(HERE.parent), **environ},
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(40)


@contextlib.asynccontextmanager
async def running(folder: Path, name: str, upstream: int, **environ: str) -> AsyncIterator[Cluster]:
    """Run a cluster while inside, its data in the folder; its processes get these variables as well."""
    port, data, log = free_port(), folder / name, folder / f"{name}.log"
    chosen = folder / "catalog.yaml"
    chosen.write_text(yaml.safe_dump(catalog(upstream)))
    command = [*RUN, "kitemesh_cli", "dev", "--port", str(port), "--data", str(data)]
    own = {"KITEMESH_CATALOG": str(chosen), "KITEMESH_SLOTS": "2000", **environ}
    with child(command, SERVER_CORE, log, **own) as process:
        await answering(port, "/v1/models", process, log)
        yield Cluster(port, data, (data / "key").read_text().strip(), _members(process.pid))


@contextlib.asynccontextmanager
async def second_gateway(cluster: Cluster, folder: Path) -> AsyncIterator[tuple[int, psutil.Process]]:
    """Run another gateway of a cluster while inside; yield its port and its process."""
    port, log = free_port(), folder / f"gateway-{free_port()}.log"
    environ = {
        **cluster.environment(),
        "KITEMESH_HOST": LOOPBACK,
        "KITEMESH_PORT": str(port),
        "KITEMESH_HEALTH_PORT": str(free_port()),
    }
    with child([*RUN, "kitemesh_gateway"], SERVER_CORE, log, **environ) as process:
        await answering(port, "/v1/models", process, log)
        yield port, psutil.Process(process.pid)


async def answering(port: int, path: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the port answers HTTP."""

    def ask() -> bool:
        try:
            urllib.request.urlopen(f"http://{LOOPBACK}:{port}{path}", timeout=1).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    async with asyncio.timeout(90):
        while not await asyncio.to_thread(ask):
            if process.poll() is not None:
                raise SystemExit(_tail(log))
            await asyncio.sleep(0.1)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


def _pinned(cores: set[int]) -> Callable[[], None]:
    """Return what a child runs first: dying with us, on those cores."""
    arm = die_with_parent()

    def prepare() -> None:
        if arm is not None:
            arm()
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setaffinity(0, cores)

    return prepare


def _members(supervisor: int) -> dict[str, psutil.Process]:
    """Return the cluster's processes by name."""
    found: dict[str, psutil.Process] = {}
    for process in psutil.Process(supervisor).children():
        line = process.cmdline()
        for name in (*SERVICES, "nats-server", "mongod"):
            if f"kitemesh_{name}" in line or line[0].endswith(f"/{name}"):
                found[name] = process
    return found


def _over_family(process: psutil.Process, figure: Callable[[psutil.Process], float]) -> float:
    total = figure(process)
    for each in process.children(recursive=True):
        # A tool's process may end meanwhile; what it used is its parent's then.
        with contextlib.suppress(psutil.NoSuchProcess):
            total += figure(each)
    return total
