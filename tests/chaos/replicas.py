"""Further processes of a cluster's services, beside those that `kitemesh dev` keeps."""

import asyncio
import contextlib
import http.client
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from cluster import Cluster
from kitemesh_cli.processes import describe_exit, kill_group, spawn, tail
from kitemesh_cli.servers import LOOPBACK, free_port

START_S = 30.0
KEEP_EVERY_S = 0.1


class _Spec(NamedTuple):
    name: str
    command: list[str]
    environ: dict[str, str]
    log: Path
    health_port: int


class Replicas:
    """The processes.

    Args:
        cluster: Whose they are.
        environ: What they are told beside what the cluster's own services are told.

    """

    def __init__(self, cluster: Cluster, environ: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._environ = dict(environ)
        self._specs: dict[str, _Spec] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, service: str, **variables: str) -> None:
        """Start another process of a service; `ready` waits for it."""
        port = free_port()
        environ = {
            **self._cluster.environment(service),
            **self._environ,
            "KITEMESH_LOG_FORMAT": "json",
            "KITEMESH_HEALTH_PORT": str(port),
            **variables,
        }
        module = f"kitemesh_{service.replace('-', '_')}"
        log = self._cluster.data / "logs" / f"{name}.log"
        self._specs[name] = _Spec(name, [sys.executable, "-m", module], environ, log, port)
        self._spawn(name)

    def ready(self) -> None:
        """Return once every replica says that it is ready."""
        end = time.monotonic() + START_S
        for name, spec in self._specs.items():
            while not _is_ready(spec.health_port):
                process = self._running[name]
                assert process.poll() is None, f"{name} {describe_exit(process)}: {tail(spec.log)}"
                assert time.monotonic() < end, f"{name} is not ready: {tail(spec.log)}"
                time.sleep(0.05)

    def pid(self, name: str) -> int:
        """Return a replica's process id."""
        return self._running[name].pid

    def health_port(self, name: str) -> int:
        """Return where a replica tells of its health, and its metrics."""
        return self._specs[name].health_port

    def end(self, name: str) -> None:
        """End a replica for good."""
        del self._specs[name]
        process = self._running.pop(name)
        kill_group(process)
        process.wait()

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Start what was killed again, at once, while inside."""
        keeping = asyncio.create_task(self._keep(), name="keep")
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    def stop(self) -> None:
        """End all of them."""
        for process in self._running.values():
            kill_group(process)
        for process in self._running.values():
            process.wait()
        self._running.clear()

    async def _keep(self) -> None:
        while True:
            for name, process in list(self._running.items()):
                if process.poll() is not None:
                    self._spawn(name)
            await asyncio.sleep(KEEP_EVERY_S)

    def _spawn(self, name: str) -> None:
        spec = self._specs[name]
        self._running[name] = spawn(spec.command, spec.log, spec.environ)


@contextlib.contextmanager
def replicas_of(cluster: Cluster, environ: Mapping[str, str]) -> Iterator[Replicas]:
    """Have replicas while inside."""
    replicas = Replicas(cluster, environ)
    try:
        yield replicas
    finally:
        replicas.stop()


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
