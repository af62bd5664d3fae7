"""The running server against its own OpenAPI document: whatever that offers is asked for, and every answer is in it."""

import functools
import json
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from cluster import GROUP, Cluster
from kitemesh_gateway.openapi import document
from kitemesh_gateway.openapi_bodies import DONE, SSE

EXAMPLES = 6
AGENT = "assistant"
DOCUMENT = document("0")
ENDLESS = ("streamEvents",)
"""Their answers have no end, so nothing is held against them when it comes."""
RULED = ("followConversation", "listConversations", "readUsage", "resumeRunChat", "streamExecution")
"""Their parameters have rules that JSON Schema has no words for, as bodies have: what it allows may be refused."""

SCHEMA = schemathesis.openapi.from_dict(DOCUMENT).exclude(operation_id=list(ENDLESS))


@pytest.mark.requirement("openapi:true")
@SCHEMA.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_as_described(case: schemathesis.Case, cluster: Cluster) -> None:
    operation = case.operation.definition.raw
    aim(case)
    answer = case.call_and_validate(
        base_url=cluster.origin,
        headers={"Authorization": f"Bearer {cluster.key}"},
        excluded_checks=[positive_data_acceptance] if is_ruled(operation) else [],
        timeout=30,
    )
    if answer.status_code == 200 and answer.headers["content-type"][0].startswith(SSE):
        check_events(operation["operationId"], answer.content)


@pytest.mark.requirement("openapi:true")
@pytest.mark.parametrize(
    "said", ["@reason 2\n@count 3", "weather in Oslo", "Delete record 7", "@fail upstream.cut after 2"]
)
@pytest.mark.parametrize(
    "path",
    [
        *("/v1/chat/completions", "/run/v1/chat/completions", "/run/api/chat"),
        *("/api/kernel2/chat", f"/api/agents/{AGENT}/chat"),
    ],
)
def test_every_event_of_a_stream_is_as_described(cluster: Cluster, path: str, said: str) -> None:
    body = {"model": GROUP, "messages": [{"role": "user", "content": said}], "message": said, "stream": True}
    answer = cluster.call(path, body)
    assert (answer.status, answer.headers["Content-Type"]) == (200, SSE)
    described = DOCUMENT["paths"][path.replace(AGENT, "{id}")]["post"]
    check_events(described["operationId"], answer.body)
    again = cluster.call(f"/v1/executions/{answer.headers['x-execution-id']}/stream")
    assert again.status == 200
    check_events("streamExecution", again.body)


def check_events(name: str, body: bytes) -> None:
    """Hold every event of an operation's stream against its description."""
    told = [json.loads(event) for event in data_of(body) if event != DONE]
    assert told
    assert [event for event in told if not validator(name).is_valid(event)] == []


def data_of(body: bytes) -> list[str]:
    return [line.removeprefix("data: ") for line in body.decode().splitlines() if line.startswith("data: ")]


@functools.cache
def validator(name: str) -> jsonschema_rs.Validator:
    """Return what holds an operation's events against their description."""
    (operation,) = (
        each for methods in DOCUMENT["paths"].values() for each in methods.values() if each["operationId"] == name
    )
    data = operation["responses"]["200"]["content"][SSE]["schema"]["properties"]["data"]
    told = data.get("anyOf", [data])[0]["contentSchema"]
    return jsonschema_rs.Draft202012Validator({**told, "components": DOCUMENT["components"]})


def aim(case: schemathesis.Case) -> None:
    """Have a valid request reach something that is there."""
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body = {**case.body, "model": GROUP}
    if "/agents/" in case.operation.path:
        case.path_parameters = {"id": AGENT}


def is_ruled(operation: dict[str, Any]) -> bool:
    return "requestBody" in operation or operation["operationId"] in RULED
