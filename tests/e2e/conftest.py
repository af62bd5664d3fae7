"""One cluster for the whole run, beside an upstream with faults; tests that kill things start one of their own."""

from collections.abc import Iterator

import pytest

from cluster import Cluster, running_cluster
from tool_cluster import Gateway, another_gateway


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that nobody breaks."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="session")
def elsewhere(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Another gateway of that cluster."""
    with another_gateway(cluster, tmp_path_factory.mktemp("elsewhere")) as gateway:
        yield gateway
