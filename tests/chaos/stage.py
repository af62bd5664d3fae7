"""A cluster on servers that can fail: two processes of each service that matters, and the ways in which servers do."""

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NamedTuple

from chaos.replicas import Replicas, replicas_of
from cluster import Cluster, running_cluster
from kitemesh_cli.servers import LOOPBACK, free_port

Inject = Callable[[random.Random], AbstractAsyncContextManager[None]]
"""A fault: recovery from it is counted from when the context is entered, and leaving puts right what is still wrong."""


class Stage(NamedTuple):
    """A cluster and what can happen to it.

    Attributes:
        origins: Its gateways.
        faults: By kind, in the order in which they are played.
        replicas: Its further processes, started again when they die.

    """

    cluster: Cluster
    origins: Sequence[str]
    faults: Mapping[str, Inject]
    replicas: Replicas


@contextlib.contextmanager
def cluster_on(folder: Path, faults: Callable[[Cluster], Mapping[str, Inject]], **environ: str) -> Iterator[Stage]:
    """Run a cluster that is told in `environ` which servers to use."""
    with running_cluster(folder / "cluster", **environ) as cluster, replicas_of(cluster, {}) as replicas:
        port = free_port()
        replicas.start("gateway-b", "gateway", KITEMESH_HOST=LOOPBACK, KITEMESH_PORT=str(port))
        replicas.start("orchestrator-b", "orchestrator")
        replicas.start("model-runner-b", "model-runner")
        replicas.ready()
        yield Stage(cluster, (cluster.origin, f"http://{LOOPBACK}:{port}"), faults(cluster), replicas)
