"""What the services of a cluster are signed in as, and that nothing was denied to any of them."""

import re
import urllib.request

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from cluster import LOOPBACK, Cluster, denials
from kitemesh_contracts.permissions import SERVICES

_HEALTH = re.compile(r"(\S+)\s+http://127\.0\.0\.1:(\d+)/healthz")


def metrics_of(cluster: Cluster) -> dict[str, str]:
    """Return what each service counts."""
    found = {}
    for name, port in _HEALTH.findall(cluster.printed()):
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics") as answer:
            found[name] = answer.read().decode()
    return found


@pytest.mark.requirement("access:whole-cluster")
def test_services_are_users_of_their_own_and_are_denied_nothing(cluster: Cluster) -> None:
    reply = cluster.chat("hello", metadata={"mode": "durable"})
    assert reply.status == 200
    processes = cluster.processes()
    for service in SERVICES:
        told = processes[service].environ()
        for variable in ("KITEMESH_NATS_URL", "KITEMESH_MONGO_URL"):
            assert f"//{service}:" in told[variable]
            assert told[variable] == cluster.environment(service)[variable]
    counted = metrics_of(cluster)
    assert set(counted) == set(SERVICES)
    for service, text in counted.items():
        assert 'kitemesh_bus_errors_total{kind="permission"} 0.0' in text, service
        assert "kitemesh_store_denied_total 0.0" in text, service
    assert denials(cluster.data) == []


@pytest.mark.requirement("access:whole-cluster")
def test_nobody_reaches_the_servers_of_a_cluster_without_a_password(cluster: Cluster) -> None:
    url = cluster.environment()["KITEMESH_MONGO_URL"]
    address = re.sub(r"//[^@]+@", "//", url).replace("&authSource=admin", "")
    with MongoClient[dict[str, object]](address) as client, pytest.raises(OperationFailure) as raised:
        client["kitemesh"]["keys"].find_one({})
    assert raised.value.code == 13
    for name in ("env", "access.json", "nats/nats.conf", *(f"env.{service}" for service in SERVICES)):
        assert (cluster.data / name).stat().st_mode & 0o077 == 0, name
