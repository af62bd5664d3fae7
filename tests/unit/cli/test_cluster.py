import pytest

from kitemesh_cli.cluster import anonymous_agent, less_secrets, list_services, shared_environment
from kitemesh_cli.dev_catalog import packaged_text
from kitemesh_cli.settings import DevSettings
from kitemesh_contracts.permissions import ServiceName
from kitemesh_runtime.catalog import Catalog, parse

CATALOG = parse(packaged_text())
POOLS = parse(packaged_text() + "\npools: {model: {default: {}, gpu: {}}, tool: {default: {}}}\n")


def test_each_pool_has_a_worker_and_each_process_a_health_port_of_its_own() -> None:
    services = list_services(DevSettings(), POOLS, 8002)
    assert [service.name for service in services] == [
        "gateway",
        "orchestrator",
        "model-runner",
        "model-runner-gpu",
        "tool-executor",
    ]
    assert services[3].variables == {"KITEMESH_POOL": "gpu"}
    assert len({service.health_port for service in services}) == len(services)


def test_the_gateway_is_told_its_port_and_who_asks_without_a_key() -> None:
    gateway = list_services(DevSettings(), CATALOG, 8123)[0]
    assert gateway.variables == {
        "KITEMESH_HOST": "127.0.0.1",
        "KITEMESH_PORT": "8123",
        "KITEMESH_ANONYMOUS_TENANT": "dev",
        "KITEMESH_ANONYMOUS_AGENT": "assistant",
        "KITEMESH_ANONYMOUS_SCOPES": "chat,approve",
    }


@pytest.mark.parametrize(
    ("settings", "tenant"),
    [
        (DevSettings(), "dev"),
        (DevSettings(anonymous_tenant=""), ""),
        (DevSettings(host="0.0.0.0"), ""),
        (DevSettings(host="0.0.0.0", anonymous_tenant="dev"), "dev"),
    ],
)
def test_who_can_be_reached_from_elsewhere_serves_nobody_without_a_key_unless_told_to(
    settings: DevSettings, tenant: str
) -> None:
    assert list_services(settings, CATALOG, 8002)[0].variables["KITEMESH_ANONYMOUS_TENANT"] == tenant


@pytest.mark.parametrize(
    ("settings", "catalog", "agent"),
    [
        (DevSettings(), CATALOG, "assistant"),
        (DevSettings(anonymous_agent="other"), CATALOG, "other"),
        (DevSettings(), Catalog(providers={}, models={}), ""),
    ],
)
def test_the_anonymous_agent_is_one_that_exists(settings: DevSettings, catalog: Catalog, agent: str) -> None:
    assert anonymous_agent(settings, catalog) == agent


def test_services_inherit_what_is_set_except_what_would_make_them_collide() -> None:
    told = shared_environment(
        {
            "OPENAI_API_KEY": "sk",
            "KITEMESH_LOG_LEVEL": "debug",
            "KITEMESH_REPLICA": "x",
            "KITEMESH_NATS_URL": "nats://a",
        },
        {"KITEMESH_NATS_URL": "nats://b"},
    )
    assert told["OPENAI_API_KEY"] == "sk"
    assert told["KITEMESH_LOG_LEVEL"] == "debug"
    assert told["KITEMESH_NATS_URL"] == "nats://b"
    assert told["KITEMESH_LOG_FORMAT"] == "json"
    assert "KITEMESH_REPLICA" not in told


def test_each_process_is_the_user_of_its_service_whatever_its_pool() -> None:
    assert [service.user for service in list_services(DevSettings(), POOLS, 8002)] == [
        "gateway",
        "orchestrator",
        "model-runner",
        "model-runner",
        "tool-executor",
    ]


def test_only_gateways_are_told_the_pepper() -> None:
    told = {"KITEMESH_KEY_PEPPER": "secret", "KITEMESH_CATALOG": "catalog.yaml"}
    assert less_secrets(told, "gateway") == told
    others: tuple[ServiceName, ...] = ("orchestrator", "model-runner", "tool-executor")
    for service in others:
        assert less_secrets(told, service) == {"KITEMESH_CATALOG": "catalog.yaml"}
