"""Clusters for the whole run; tests that kill things start one of their own."""

from collections.abc import Iterator

import pytest

from cluster import Cluster, running_cluster
from tool_cluster import Gateway, ToolCluster, another_gateway, tool_cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that nobody breaks."""
    with running_cluster(tmp_path_factory.mktemp("cluster"), in_order=True) as running:
        yield running


@pytest.fixture(scope="session")
def elsewhere(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Another gateway of that cluster."""
    with another_gateway(cluster, tmp_path_factory.mktemp("elsewhere")) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToolCluster]:
    """A cluster whose agents have tools, and that nobody breaks; a test has names, keys or conversations of its own."""
    with tool_cluster(tmp_path_factory.mktemp("desk")) as running:
        yield running


@pytest.fixture(scope="session")
def one(desk: ToolCluster) -> Cluster:
    """Its first gateway."""
    return desk.cluster


@pytest.fixture(scope="session")
def two(desk: ToolCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Its second gateway."""
    with another_gateway(desk.cluster, tmp_path_factory.mktemp("desk-two")) as gateway:
        yield gateway
