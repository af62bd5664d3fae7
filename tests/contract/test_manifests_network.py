"""Who may talk to whom in Kubernetes: what each service needs, and nothing else."""

from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from kitemesh_gateway.settings import GatewaySettings
from kitemesh_runtime.catalog import OpenAIProvider, parse
from manifests import FOLDER, SERVICES, container, documents, of_kind, pods

POLICIES = of_kind(
    list(yaml.safe_load_all((FOLDER / "components" / "network-policy" / "policies.yaml").read_text())), "NetworkPolicy"
)
WORKERS = {"model-runner", "tool-executor"}


def chosen(policy: dict[str, Any], labels: dict[str, str]) -> bool:
    selector = policy["spec"]["podSelector"]
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", ())
    )


def allowed(service: str, direction: str) -> set[int | str]:
    """Return the ports that a service may be reached at, or may reach."""
    labels = {"app.kubernetes.io/component": service, "app.kubernetes.io/part-of": "kitemesh"}
    rules = [rule for each in POLICIES.values() if chosen(each, labels) for rule in each["spec"].get(direction, ())]
    assert all(rule["ports"] for rule in rules)
    return {port["port"] for rule in rules for port in rule["ports"]}


@pytest.mark.requirement("kubernetes:least-privilege")
def test_every_pod_of_the_namespace_is_denied_everything_first() -> None:
    assert POLICIES["deny-all"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.requirement("kubernetes:least-privilege")
def test_each_service_may_reach_what_it_needs() -> None:
    servers: set[int | str] = {53, 4222, 27017}
    for service in SERVICES:
        assert allowed(service, "egress") == servers | ({443} if service in WORKERS else set())
    assert allowed("operator", "egress") == servers | {"http"}


@pytest.mark.requirement("kubernetes:least-privilege")
def test_each_service_may_be_reached_where_it_listens() -> None:
    found = {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]: {
            port["name"] for port in container(pod).get("ports", ())
        }
        for pod in pods(documents("base")).values()
    }
    for service, ports in found.items():
        assert allowed(service, "ingress") == ports
    assert found["gateway"] == {"http", "health"}
    assert GatewaySettings.model_fields["port"].default == 8002


def test_tools_are_no_way_into_private_networks() -> None:
    (rule,) = POLICIES["providers-and-tools"]["spec"]["egress"]
    blocks = [each["ipBlock"] for each in rule["to"]]
    refused = {network for block in blocks for network in block["except"]}
    assert {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10"} <= refused


@pytest.mark.requirement("kubernetes:least-privilege")
def test_names_are_told_by_a_cache_on_the_node_too() -> None:
    # Its address is the node's, so that no selector of pods chooses it.
    (rule,) = POLICIES["names"]["spec"]["egress"]
    assert "169.254.20.10/32" in {each["ipBlock"]["cidr"] for each in rule["to"] if "ipBlock" in each}
    assert {(port["protocol"], port["port"]) for port in rule["ports"]} == {("UDP", 53), ("TCP", 53)}


def test_the_complete_example_reaches_every_provider_that_it_names() -> None:
    catalog = parse((FOLDER / "examples" / "complete" / "catalog.yaml").read_text())
    found = of_kind(documents("examples/complete"), "NetworkPolicy")
    (own,) = found.keys() - POLICIES.keys()
    (rule,) = found[own]["spec"]["egress"]
    (namespace,) = (each["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for each in rule["to"])
    private = set()
    for name, provider in catalog.providers.items():
        assert isinstance(provider, OpenAIProvider)
        url = urlsplit(provider.base_url)
        if (url.hostname or "").endswith(f".{namespace}.svc"):
            private.add(url.port)
            (pool,) = {model.pool for model in catalog.models.values() if model.provider == name}
            assert chosen(found[own], {"app.kubernetes.io/component": "model-runner", "kitemesh/pool": pool})
        else:
            assert (url.scheme, url.port) == ("https", None)
    assert private == {port["port"] for port in rule["ports"]}


def test_servers_beside_it_take_what_services_send() -> None:
    for name in ("overlays/dev", "components/nats-cluster"):
        found = pods(documents(name)) if name.startswith("overlays") else _nats()
        for pod in found.values():
            labels = pod["metadata"]["labels"]
            if labels["app.kubernetes.io/name"] not in {"nats", "mongodb"}:
                continue
            ports = {port["containerPort"] for port in container(pod)["ports"]}
            (policy,) = [each for key, each in POLICIES.items() if key in {"nats", "mongodb"} and chosen(each, labels)]
            taken = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
            assert ports <= taken


def _nats() -> dict[str, Any]:
    file = FOLDER / "components" / "nats-cluster" / "servers.yaml"
    return pods(list(yaml.safe_load_all(file.read_text())))
