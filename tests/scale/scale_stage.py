"""The cluster of the scaling proof: workers with few slots, replicas that come and go, and what their metrics say."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import aiohttp
import yaml

from chaos.replicas import Replicas
from cluster import Cluster, running_cluster
from kitemesh_cli import processes, servers
from kitemesh_cli.servers import LOOPBACK, free_port
from kitemesh_runtime.catalog_parts import DEFAULT_POOL
from scale import scale_upstream
from scale.scale_record import Change, Run, Sample
from scale.scale_upstream import CLERK, QUICK, STEADY, TOOL

SLOTS: Final = 3
"""Calls that a model-runner, and jobs that a tool-executor, has in flight at once."""
WIDE: Final = "wide"
"""The pool of the models whose runners are not what is scaled."""
WIDE_SLOTS: Final = 1000
STREAMS: Final = 80
"""Open turns that a gateway takes."""
SAMPLE_EVERY_S: Final = 0.5
LEAVE_S: Final = 40.0

_LINE: Final = re.compile(r"^(\w+(?:\{.*\})?) (\S+)$", re.MULTILINE)
_PREDICTED: Final = 'kitemesh_predicted_wait_seconds{pool="default",stream="KM_MODEL"}'
_WAIT: Final = "kitemesh_queue_wait_seconds"


def catalog(upstream: int, pool: str) -> dict[str, Any]:
    """Return a catalog whose models and tool are the upstream; those that are not scaled are of the pool."""
    here = f"http://{LOOPBACK}:{upstream}"
    return {
        "version": 1,
        "providers": {"scale": {"kind": "openai", "base_url": f"{here}/v1"}},
        "models": {
            QUICK: {"provider": "scale"},
            STEADY: {"provider": "scale", "pool": pool},
            CLERK: {"provider": "scale", "pool": pool},
        },
        "agents": {CLERK: {"model": CLERK, "tools": [TOOL]}},
        "tools": {
            TOOL: {
                "kind": "http",
                "method": "GET",
                "url": f"{here}/tools/{TOOL}",
                "allow_networks": ["127.0.0.0/8"],
                "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
            }
        },
        "pools": {"model": {"default": {}, pool: {}}, "tool": {"default": {}}},
    }


class Crew(Replicas):
    """Replicas that may be told to leave."""

    def __init__(self, cluster: Cluster, environ: Mapping[str, str]) -> None:
        super().__init__(cluster, environ)
        self._leaving: dict[str, subprocess.Popen[bytes]] = {}

    def health_ports(self) -> dict[str, int]:
        """Return where each replica that is to stay serves its metrics."""
        return {name: spec.health_port for name, spec in self._specs.items()}

    def tell_to_leave(self, name: str, how: signal.Signals) -> None:
        """Signal a replica."""
        del self._specs[name]
        process = self._leaving[name] = self._running.pop(name)
        os.kill(process.pid, how)

    def left(self) -> dict[str, int]:
        """Return how each that was told to leave ended, once all have.

        Raises:
            subprocess.TimeoutExpired: One is still there.

        """
        end_s = time.monotonic() + LEAVE_S
        return {name: process.wait(end_s - time.monotonic()) for name, process in self._leaving.items()}

    def stop(self) -> None:
        """End all of them."""
        for process in self._leaving.values():
            processes.kill_group(process)
            process.wait()
        super().stop()


class Stage:
    """A running cluster, one replica of each service to begin with.

    Attributes:
        origins: The gateways that clients are sent to.
        run: What is kept of all that happens.
        began: The run's beginning, of the monotonic clock.

    """

    def __init__(self, cluster: Cluster, crew: Crew, run: Run) -> None:
        self.cluster = cluster
        self.origins = [cluster.origin]
        self.run = run
        self.began = time.monotonic()
        self._crew = crew
        self._names: dict[str, list[str]] = {}
        self._gateways: dict[str, str] = {}
        own = {"gateway", "orchestrator", "model-runner", "tool-executor"}
        self._own = {
            name: int(each.environ()["KITEMESH_HEALTH_PORT"])
            for name, each in cluster.processes().items()
            if name in own
        }
        for service in self._own:
            self._note(service, "came")

    def now_s(self) -> float:
        """Return the seconds since the run began."""
        return time.monotonic() - self.began

    def count(self, service: str) -> int:
        """Return how many replicas of a service there are."""
        return 1 + len(self._names.get(service, []))

    async def grow(self, service: str, count: int) -> None:
        """Start replicas of a service until there are so many; returns when all are ready."""
        new = range(self.count(service), count)
        for number in new:
            name = f"{service}-{number + 1}"
            more = {}
            if service == "gateway":
                port = free_port()
                more = {"KITEMESH_HOST": LOOPBACK, "KITEMESH_PORT": str(port)}
                self._gateways[name] = f"http://{LOOPBACK}:{port}"
            self._crew.start(name, service, **more)
        await asyncio.to_thread(self._crew.ready)
        for number in new:
            name = f"{service}-{number + 1}"
            self._names.setdefault(service, []).append(name)
            if service == "gateway":
                self.origins.append(self._gateways[name])
            self._note(service, "came")

    def shrink(self, service: str, how: signal.Signals = signal.SIGTERM) -> str:
        """Tell the newest replica of a service to leave; return its name.

        A gateway is still among the origins; `forget` removes it.
        """
        name = self._names[service].pop()
        self._crew.tell_to_leave(name, how)
        self._note(service, "SIGKILL" if how == signal.SIGKILL else "SIGTERM")
        return name

    def forget(self, gateway: str) -> None:
        """Send no more clients to a gateway."""
        self.origins.remove(self._gateways.pop(gateway))

    async def left(self) -> dict[str, int]:
        """Return how each replica that was told to leave ended, once all have."""
        return await asyncio.to_thread(self._crew.left)

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Keep what the metrics say while inside."""
        watching = asyncio.create_task(self._watch(), name="watch")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    def _note(self, service: str, how: Literal["came", "SIGTERM", "SIGKILL"]) -> None:
        self.run.changes.append(Change(at_s=self.now_s(), service=service, count=self.count(service), how=how))

    async def _watch(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while True:
                self.run.samples.append(await self._sample(session))
                await asyncio.sleep(SAMPLE_EVERY_S)

    async def _sample(self, session: aiohttp.ClientSession) -> Sample:
        at_s = self.now_s()
        ports = {**self._own, **self._crew.health_ports()}
        of = {
            service: [port for name, port in ports.items() if name.startswith(service)]
            for service in ("gateway", "tool-executor")
        }
        gateways = [await _metrics(session, port) for port in of["gateway"]]
        executors = [await _metrics(session, port) for port in of["tool-executor"]]
        return Sample(
            at_s=at_s,
            predicted_s=gateways[0].get(_PREDICTED),
            streams=sum(each.get("kitemesh_streams_open", 0.0) for each in gateways),
            tool_waited_s=_added(executors, f"{_WAIT}_sum"),
            tool_jobs=_added(executors, f"{_WAIT}_count"),
        )


async def _metrics(session: aiohttp.ClientSession, port: int) -> dict[str, float]:
    """Return a process's metrics as they are named, those that are numbers; none of one that is not there."""
    try:
        async with session.get(f"http://{LOOPBACK}:{port}/metrics") as reply:
            text = await reply.text()
    except (aiohttp.ClientError, OSError, TimeoutError):
        return {}
    return {name: float(value) for name, value in _LINE.findall(text) if value != "NaN"}


def _added(found: Iterable[Mapping[str, float]], metric: str) -> float:
    return sum(value for each in found for name, value in each.items() if name.startswith(metric))


@contextlib.contextmanager
def upstream(log: Path) -> Iterator[int]:
    """Run the upstream while inside; yields its port."""
    port = free_port()
    process = processes.spawn([sys.executable, str(Path(scale_upstream.__file__)), str(port)], log)
    try:
        servers.wait_listening(process, port, timeout_s=15, log=log)
        yield port
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def stage(folder: Path, run: Run, *, pool: str = WIDE) -> Iterator[Stage]:
    """Run the cluster while inside; without a pool of its own what is not scaled shares the runners that are."""
    with upstream(folder / "upstream.log") as port:
        chosen = folder / "catalog.yaml"
        chosen.write_text(yaml.safe_dump(catalog(port, pool)))
        environ = {
            "KITEMESH_CATALOG": str(chosen),
            "KITEMESH_SLOTS": str(run.slots),
            "KITEMESH_MAX_STREAMS": str(STREAMS),
        }
        with running_cluster(folder / "cluster", **environ) as cluster:
            crew = Crew(cluster, environ)
            try:
                if pool != DEFAULT_POOL:
                    crew.start(pool, "model-runner", KITEMESH_POOL=pool, KITEMESH_SLOTS=str(WIDE_SLOTS))
                    crew.ready()
                yield Stage(cluster, crew, run)
            finally:
                crew.stop()
