"""A cluster beside a tool stub, in which every failpoint kills its process as often as its file has bytes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from chaos.effect_catalog import FAR, write_catalog
from chaos.replicas import Replicas, replicas_of
from cluster import Cluster, running_cluster
from tool_stub import ToolStub, start_tool_stub

ORCHESTRATOR: Final = (
    "orch.after_fetch",
    "orch.after_decide",
    "orch.after_hold_save",
    "orch.after_save",
    "orch.after_publish",
    "sweep.mid",
)
TOOL: Final = ("tool.after_fetch", "tool.after_dispatched", "tool.after_send", "tool.after_response", "tool.before_ack")
RUNNER: Final = ("run.after_fetch", "run.before_upstream", "run.mid_stream", "run.before_result", "run.before_ack")
POINTS: Final = (*ORCHESTRATOR, *TOOL, *RUNNER)

DELAY_MS: Final = 100
"""How long the stub takes: effects are under way when processes die."""


class Faulty(NamedTuple):
    """The cluster.

    Attributes:
        replicas: Its further processes.
        folder: Where the failpoints' files are.

    """

    cluster: Cluster
    stub: ToolStub
    replicas: Replicas
    folder: Path

    def arm(self, point: str, times: int = 1) -> None:
        """Have further passes of a failpoint kill."""
        with (self.folder / point).open("ab") as file:
            file.write(b"x" * times)

    def left(self, point: str) -> int:
        """Return how many of them are to come."""
        path = self.folder / point
        return path.stat().st_size if path.exists() else 0

    def disarm(self, *points: str) -> None:
        """Let these kill no more, or nothing if none is named."""
        for point in points or POINTS:
            (self.folder / point).unlink(missing_ok=True)


def failpoints(folder: Path) -> dict[str, str]:
    """Return the environment that has every failpoint look into its file."""
    return {"KITEMESH_FAILPOINT": ",".join(f"{point}:kill@{folder / point}" for point in POINTS)}


@contextlib.contextmanager
def faulty_cluster(folder: Path, *, doubled: bool = False, delay_ms: int = DELAY_MS) -> Iterator[Faulty]:
    """Run one; `doubled` has two processes of each service but the gateway, so that somebody takes over at once."""
    environ = failpoints(folder)
    with start_tool_stub(folder) as stub:
        catalog = write_catalog(folder / "catalog.yaml", stub.url, delay_ms=delay_ms)
        with (
            running_cluster(folder / "cluster", KITEMESH_CATALOG=str(catalog), **environ) as cluster,
            replicas_of(cluster, environ) as replicas,
        ):
            if doubled:
                replicas.start("orchestrator-b", "orchestrator")
                replicas.start("model-runner-b", "model-runner")
                replicas.start("tool-executor-b", "tool-executor")
                replicas.start("tool-executor-far-b", "tool-executor", KITEMESH_POOL=FAR)
                replicas.ready()
            yield Faulty(cluster, stub, replicas, folder)
