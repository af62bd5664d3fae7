"""What a whole cluster tells of itself, and what it never tells: anything that came from outside."""

import json
import re
import time
import urllib.request
from importlib.metadata import version
from typing import Final

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from cluster import GROUP, Cluster
from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.permissions import SERVICES
from kitemesh_contracts.topology import TOOL, topology
from kitemesh_runtime.metrics import describe

HEALTH: Final = re.compile(r"^ +(\S+) +(http://\S+)/healthz$", re.MULTILINE)
CANARY: Final = "canary"
STREAMS: Final = {spec.name for spec in topology()}
CODES: Final = {code.value for code in ErrorCode}
CLOSED: Final = {
    "code": CODES,
    "dependency": {"nats", "mongodb"},
    "error_type": CODES | {""},
    "gen_ai_operation_name": {"chat"},
    "gen_ai_provider_name": {"openai", "scripted"},
    "gen_ai_token_type": {"input", "output"},
    "mode": {"classic", "durable"},
    "operation": {"read", "write", "group", "command"},
    "pool": {"default", ""},
    "queue": STREAMS,
    "stream": STREAMS,
    "version": {version("kitemesh-runtime")},
}


def told(cluster: Cluster) -> dict[str, str]:
    """Return what each service tells, as it is read."""
    found = {}
    for name, root in HEALTH.findall(cluster.printed()):
        with urllib.request.urlopen(f"{root}/metrics", timeout=5) as reply:
            found[name] = reply.read().decode()
    return found


def read(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


@pytest.mark.requirement("metrics:closed-labels")
def test_nothing_that_a_client_sends_is_ever_a_label(cluster: Cluster) -> None:
    message = [{"role": "user", "content": f"{CANARY} text"}]
    told_of = {"conversation_id": f"{CANARY}-conversation", "request_id": f"{CANARY}-request"}
    names = {"x-request-id": f"{CANARY}-header", "User-Agent": CANARY}
    for path, body in (
        ("/v1/chat/completions", {"model": GROUP, "messages": message, "user": CANARY, "metadata": told_of}),
        ("/v1/chat/completions", {"model": f"{CANARY}-model", "messages": message}),
        ("/v1/chat/completions", {"model": f"agent:{CANARY}", "messages": message}),
        (f"/api/agents/{CANARY}/chat", {"message": CANARY}),
        (f"/{CANARY}/path", {}),
        ("/run/api/chat", {"id": f"{CANARY}-chat", "messages": message, "executionMode": CANARY}),
    ):
        cluster.call(path, body, headers=names)
    cluster.call("/v1/models", method=CANARY.upper())
    cluster.call("/v1/models", key=f"km_{CANARY}")
    texts = told(cluster)
    assert set(texts) == set(SERVICES)
    for name, text in texts.items():
        assert CANARY not in text.lower(), name
        own = [family for family in read(text).values() if family.name.startswith(("kitemesh_", "gen_ai_"))]
        for sample in (sample for family in own for sample in family.samples):
            for label, value in sample.labels.items():
                assert value in CLOSED.get(label, {value}), (name, sample)


def test_every_service_tells_every_metric_and_the_orchestrator_what_its_queues_hold(cluster: Cluster) -> None:
    assert cluster.chat("hello", metadata={"mode": "durable"}).status == 200
    end = time.monotonic() + 10
    while 'kitemesh_queue_depth{pool="default",stream="KM_TOOL"} 0.0' not in (texts := told(cluster))["orchestrator"]:
        assert time.monotonic() < end, "the queues were not looked at"
    wanted = {each.name.removesuffix("_total") for each in describe()}
    families = {name: read(text) for name, text in texts.items()}
    for name, found in families.items():
        assert wanted <= found.keys(), name
        (build,) = found["kitemesh_build_info"].samples
        assert (build.labels, build.value) == ({"version": version("kitemesh-runtime")}, 1)
    depths = {
        (sample.labels["stream"], sample.labels["pool"]): sample.value
        for sample in families["orchestrator"]["kitemesh_queue_depth"].samples
    }
    assert {stream for stream, _ in depths} == {spec.name for spec in topology() if spec.consumers}
    assert depths[TOOL, "default"] == 0
    stored = families["orchestrator"]["kitemesh_store_duration_seconds"].samples
    assert {sample.labels["operation"] for sample in stored if sample.name.endswith("_count") and sample.value} >= {
        "read",
        "group",
        "command",
    }
    asked = families["model-runner"]["gen_ai_client_token_usage"].samples
    assert {sample.labels["gen_ai_token_type"] for sample in asked if sample.value} == {"input", "output"}


def test_a_gateway_knows_how_fast_queues_are_emptied(cluster: Cluster) -> None:
    end = time.monotonic() + 10
    while 'kitemesh_queue_drain_rate{pool="default",stream="KM_MODEL"}' not in told(cluster)["gateway"]:
        assert time.monotonic() < end, "nobody was heard"
    assert json.loads(cluster.call("/v1/models").body)["data"]
