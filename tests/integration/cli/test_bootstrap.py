import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kitemesh_cli.dev_catalog import packaged_text
from kitemesh_cli.servers import LOOPBACK, free_port
from kitemesh_contracts.topology import topology
from kitemesh_runtime.bus_nats import open_bus


def ask(url: str, question: str, body: dict[str, Any]) -> dict[str, Any]:
    async def go() -> bytes:
        async with open_bus(url, name="test") as bus:
            return await bus.request(f"$JS.API.{question}", json.dumps(body).encode(), timeout_s=5)

    answer: dict[str, Any] = json.loads(asyncio.run(go()))
    assert "error" not in answer, answer
    return answer


@pytest.mark.requirement("bootstrap:idempotent")
def test_the_first_bootstrap_makes_everything_and_the_second_changes_nothing(
    run: Callable[..., Any], own_nats_url: str
) -> None:
    first = run("bootstrap")
    assert first.code == 0, first.err
    for stream in topology():
        assert f"created stream {stream.name}" in first.out
        assert ask(own_nats_url, f"STREAM.INFO.{stream.name}", {})["config"]["num_replicas"] == 1
    assert "created index keys.by_digest" in first.out
    second = run("bootstrap")
    assert (second.code, second.out) == (0, "everything is as it should be\n")


def test_pools_of_the_catalog_get_their_consumers_and_bounds_are_changed_in_place(
    run: Callable[..., Any], own_nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("bootstrap")
    Path("catalog.yaml").write_text(packaged_text() + "\npools: {model: {default: {}, gpu: {lanes: 2}}}\n")
    monkeypatch.setenv("KITEMESH_TURN_QUEUE_MAX", "77")
    monkeypatch.setenv("KITEMESH_RETENTION_DAYS", "7")
    changed = run("bootstrap")
    assert changed.code == 0, changed.err
    assert "created consumer gpu-interactive-1 of stream KM_MODEL" in changed.out
    assert "changed retention of turns" in changed.out
    assert ask(own_nats_url, "STREAM.INFO.KM_TURN", {})["config"]["max_msgs"] == 77


@pytest.mark.requirement("bootstrap:drift-is-refused")
def test_drift_that_no_update_heals_is_refused_and_left_alone(run: Callable[..., Any], own_nats_url: str) -> None:
    run("bootstrap")
    ask(own_nats_url, "STREAM.DELETE.KM_TIMER", {})
    wrong = {"name": "KM_TIMER", "subjects": ["km.v1.timer.>"], "storage": "memory", "retention": "limits"}
    ask(own_nats_url, "STREAM.CREATE.KM_TIMER", wrong)
    refused = run("bootstrap")
    assert refused.code == 1
    assert "KM_TIMER" in refused.err
    assert "Traceback" not in refused.err
    assert ask(own_nats_url, "STREAM.INFO.KM_TIMER", {})["config"]["storage"] == "memory"
    ask(own_nats_url, "STREAM.DELETE.KM_TIMER", {})


def test_servers_that_do_not_answer_are_named_with_what_to_do(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kitemesh_cli.connections.CONNECT_S", 0.3)
    monkeypatch.setenv("KITEMESH_NATS_URL", f"nats://user:secret@{LOOPBACK}:{free_port()}")
    refused = run("bootstrap")
    assert refused.code == 1
    assert "NATS does not answer at nats://***@127.0.0.1" in refused.err
    assert "which KITEMESH_NATS_URL names; start it, or unset the variable" in refused.err
    assert "secret" not in refused.err


def test_a_bad_number_of_replicas_is_a_wrong_setting(run: Callable[..., Any]) -> None:
    refused = run("bootstrap", "--replicas", "9")
    assert refused.code == 78
    assert "KITEMESH_REPLICAS" in refused.err
