"""The observed cluster: two of each service, a pool of its own beside the default ones, stubs, and a Prometheus.

Every process is a target under the labels by which dashboards and rules select: service, instance and, for a worker,
its pool. It knows neither the load nor the faults.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from chaos.replicas import Replicas, replicas_of
from chaos.waiting import await_true
from cluster import SERVICES, Cluster, running_cluster
from kitemesh_cli.servers import LOOPBACK, free_port
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from observed.catalog import FAR, SECRET_VARIABLE, WEBHOOKS, catalog_at, write_catalog
from observed.prometheus import Prometheus, Target, running_prometheus
from observed.receiver import running_receiver
from tool_stub import ToolStub, start_tool_stub
from upstream import Upstream, start_upstream

FAILPOINTS: Final = ("run.before_upstream", "tool.after_send")
SLOTS: Final = 16
ENVIRON: Final = {
    SECRET_VARIABLE: "nobody looks at it",
    "KITEMESH_SWEEP_S": "1",
    "KITEMESH_SLOTS": str(SLOTS),
    "KITEMESH_SLOW_CLIENT_S": "2",
    "KITEMESH_MAX_UNSENT_BYTES": "16384",
}
"""What would take long to be full, late or swept is small."""

POOLS: Final = {"", "default", FAR, WEBHOOKS}
POOLED: Final = ("model-runner", "tool-executor")
_HEALTH: Final = re.compile(r"(\S+)\s+http://127\.0\.0\.1:(\d+)/healthz")


class Stage(NamedTuple):
    """Everything that runs.

    Attributes:
        origins: The gateways.
        catalog: The file that the services watch.
        folder: For what a fault needs to write; the failpoints' files are there.
        targets: What is scraped.

    """

    cluster: Cluster
    origins: tuple[str, ...]
    replicas: Replicas
    prometheus: Prometheus
    upstream: Upstream
    tools: ToolStub
    catalog: Path
    folder: Path
    targets: list[Target]

    def arm(self, point: str, times: int = 1) -> None:
        """Have further passes of a failpoint kill."""
        with (self.folder / point).open("ab") as file:
            file.write(b"x" * times)

    def disarm(self) -> None:
        """Let failpoints kill no more."""
        for point in FAILPOINTS:
            (self.folder / point).unlink(missing_ok=True)

    @contextlib.contextmanager
    def watching(self, *more: Target) -> Iterator[None]:
        """Scrape further processes while inside."""
        self.targets.extend(more)
        self.prometheus.watch(self.targets)
        try:
            yield
        finally:
            for each in more:
                self.targets.remove(each)
            self.prometheus.watch(self.targets)

    def bus(self) -> contextlib.AbstractAsyncContextManager[NatsBus]:
        """Connect as the operator."""
        return open_bus(self.cluster.environment()["KITEMESH_NATS_URL"], name="observed")

    async def ask(self, bus: NatsBus, question: str, body: bytes = b"") -> dict[str, Any]:
        """Ask JetStream."""
        answer: dict[str, Any] = msgspec.json.decode(await bus.request(f"$JS.API.{question}", body, timeout_s=5))
        assert "error" not in answer, answer
        return answer


def target(service: str, port: int, instance: str, pool: str = "") -> Target:
    """Name a process by what Prometheus calls it."""
    return Target(f"{LOOPBACK}:{port}", service, instance, pool or ("default" if service in POOLED else ""))


def targets_of(cluster: Cluster) -> list[Target]:
    """Name the processes that the supervisor keeps."""
    found = []
    for name, port in _HEALTH.findall(cluster.printed()):
        service = max((each for each in SERVICES if name.startswith(each)), key=len)
        found.append(target(service, int(port), name, name.removeprefix(service).removeprefix("-")))
    return found


@contextlib.contextmanager
def running_stage(folder: Path, rules: Mapping[str, str], *, for_faults: bool) -> Iterator[Stage]:
    """Have everything while inside; `rules` are the files that Prometheus reads.

    What is not `for_faults` has one replica of each service, and nothing may be denied to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    points = ",".join(f"{point}:kill@{folder / point}" for point in FAILPOINTS)
    with contextlib.ExitStack() as stack:
        tools = stack.enter_context(start_tool_stub(folder))
        upstream = stack.enter_context(start_upstream(folder / "upstream.log"))
        receiver = stack.enter_context(running_receiver())
        catalog = write_catalog(folder / "catalog.yaml", catalog_at(tools.url, upstream.url, receiver))
        environ = {**ENVIRON, "KITEMESH_FAILPOINT": points}
        cluster = stack.enter_context(
            running_cluster(folder / "cluster", may_be_denied=for_faults, KITEMESH_CATALOG=str(catalog), **environ)
        )
        replicas = stack.enter_context(replicas_of(cluster, environ))
        await_true(lambda: {each.pool for each in targets_of(cluster)} >= POOLS, "the supervisor says where all are")
        origins, targets = [cluster.origin], targets_of(cluster)
        if for_faults:
            origins.append(_double(replicas))
            replicas.ready()
            targets += [target(each, replicas.health_port(f"{each}-b"), f"{each}-b") for each in SERVICES]
        prometheus = stack.enter_context(running_prometheus(folder / "prometheus", rules))
        prometheus.watch(targets)
        yield Stage(cluster, tuple(origins), replicas, prometheus, upstream, tools, catalog, folder, targets)


def _double(replicas: Replicas) -> str:
    """Start another replica of each service, and return where its gateway is."""
    port = free_port()
    replicas.start("gateway-b", "gateway", KITEMESH_HOST=LOOPBACK, KITEMESH_PORT=str(port))
    for service in ("orchestrator", *POOLED):
        replicas.start(f"{service}-b", service)
    return f"http://{LOOPBACK}:{port}"
