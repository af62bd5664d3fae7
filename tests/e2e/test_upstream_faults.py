"""Whatever an upstream does, a client gets an answer or a typed error within the time-outs: never a false success."""

import asyncio
import concurrent.futures
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cluster import Cluster, events, running_cluster, streamed_text
from upstream import Upstream, start_upstream

LIMITS = {
    "connect_timeout_s": 1,
    "first_token_timeout_s": 1.5,
    "silence_timeout_s": 1.5,
    "total_timeout_s": 8,
    "retries": 1,
}
WITHIN_S = 10.0

# What the upstream does: the status of a whole answer, or 200 for one that must succeed.
FAULTS = {
    "ok": 200,
    "limited_once": 200,
    "failing_once": 200,
    "odd": 200,
    "refused": 502,
    "unauthorized": 502,
    "bad_request": 502,
    "redirect": 502,
    "limited": 429,
    "failing": 502,
    "slow_head": 504,
    "stalled_first": 504,
    "stalled": 504,
    "reset_first": 502,
    "reset": 502,
    "unterminated": 502,
    "only_done": 502,
    "empty": 502,
    "garbage": 502,
    "error_first": 502,
    "error": 502,
    "huge_line": 502,
    "html": 502,
    "not_a_stream": 502,
    "calls": 502,
}
BEGINS = {"stalled", "reset", "unterminated", "only_done", "garbage", "error", "huge_line", "calls"}


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with start_upstream(tmp_path_factory.mktemp("upstream") / "log") as running:
        yield running


@pytest.fixture(scope="module")
def cluster(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("faults")
    provider = {"kind": "openai", "base_url": upstream.url, **LIMITS}
    nobody = {**provider, "base_url": "http://127.0.0.1:9/v1"}
    catalog = {
        "version": 1,
        "providers": {"stub": provider, "nobody": nobody},
        "models": {name: {"provider": "nobody" if name == "refused" else "stub"} for name in FAULTS}
        | {"slow": {"provider": "stub", "upstream": "ok?tokens=500&delay_ms=50"}},
        "agents": {"assistant": {"model": "ok"}},
    }
    (folder / "catalog.yaml").write_text(yaml.safe_dump(catalog))
    with running_cluster(folder, KITEMESH_CATALOG=str(folder / "catalog.yaml")) as running:
        yield running


def body(model: str, *, stream: bool) -> dict[str, object]:
    return {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.requirement("promise:P20")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_whole_answer_is_right_or_a_typed_error(cluster: Cluster, fault: str) -> None:
    began = time.monotonic()
    reply = cluster.call("/v1/chat/completions", body(fault, stream=False))
    assert time.monotonic() - began < WITHIN_S
    assert reply.status == FAULTS[fault], reply.body
    if reply.status == 200:
        assert reply.json()["choices"][0]["finish_reason"] == "stop"
        assert reply.json()["choices"][0]["message"]["content"]
    else:
        error = reply.json()["error"]
        assert error["type"] in {"upstream_error", "upstream_timeout", "rate_limit_error"}
        assert error["request_id"] == reply.headers["x-request-id"]
        assert b"sk-secret" not in reply.body
    if reply.status == 429:
        assert int(reply.headers["Retry-After"]) >= 1


@pytest.mark.requirement("promise:P20")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_stream_is_right_or_ends_in_an_explicit_error(cluster: Cluster, fault: str) -> None:
    began = time.monotonic()
    reply = cluster.call("/v1/chat/completions", body(fault, stream=True))
    assert time.monotonic() - began < WITHIN_S
    done = reply.body.rstrip().endswith(b"data: [DONE]")
    if FAULTS[fault] == 200:
        assert reply.status == 200
        assert done
        assert streamed_text(reply.body)
        return
    assert not done
    assert b'"finish_reason":"stop"' not in reply.body
    if reply.status == 200:
        assert fault in BEGINS
        assert events(reply.body)[-1]["error"]["message"]
    else:
        assert reply.status == FAULTS[fault]
        assert reply.json()["error"]["message"]
    assert b"sk-secret" not in reply.body


@pytest.mark.requirement("promise:P20")
def test_none_of_many_turns_over_a_failing_upstream_is_stuck(cluster: Cluster) -> None:
    names = [name for name in FAULTS for _ in range(12)]
    with concurrent.futures.ThreadPoolExecutor(50) as clients:
        asked = [clients.submit(cluster.call, "/v1/chat/completions", body(name, stream=False)) for name in names]
        statuses = [future.result(timeout=60).status for future in asked]
    unexpected = [
        (name, status)
        for name, status in zip(names, statuses, strict=True)
        if status != FAULTS[name] and name not in {"limited_once", "failing_once"}
    ]
    assert not unexpected


@pytest.mark.requirement("promise:P16")
def test_a_client_that_leaves_stops_its_upstream_call_within_two_seconds(cluster: Cluster, upstream: Upstream) -> None:
    asyncio.run(upstream.reset())
    connection = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=20)
    headers = {"Authorization": f"Bearer {cluster.key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body("slow", stream=True)), headers)
    response = connection.getresponse()
    turn = response.headers["x-execution-id"]
    assert response.readline()
    response.close()
    connection.close()
    left = time.monotonic()
    records = asyncio.run(upstream.records(came=1, ended=1, timeout_s=5))
    assert time.monotonic() - left < 2
    assert len(records) == 1
    assert stored_status(cluster, turn) == "cancelled"


def stored_status(cluster: Cluster, turn: str) -> str:
    """Return how a turn ended, from MongoDB, once it is there."""
    from pymongo import MongoClient  # noqa: PLC0415  the one look into the store

    url = next(line.split("MongoDB")[1].strip() for line in cluster.printed().splitlines() if "  MongoDB  " in line)
    end = time.monotonic() + 5
    with MongoClient(url, directConnection=True) as client:
        while (found := client["kitemesh"]["turns"].find_one({"_id": turn})) is None:
            assert time.monotonic() < end
            time.sleep(0.05)
    return str(found["status"])


@pytest.mark.requirement("provider:keeps-secrets", "start:openai-needs-no-configuration")
def test_a_key_for_an_openai_endpoint_adds_its_models_without_more_words(
    upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder: Path = tmp_path_factory.mktemp("openai")
    with running_cluster(folder, OPENAI_API_KEY="sk-test-canary", OPENAI_BASE_URL=upstream.url) as cluster:
        offered = {model["id"] for model in cluster.call("/v1/models").json()["data"]}
        assert {"ok", "scripted"} <= offered
        assert cluster.call("/v1/chat/completions", body("ok", stream=False)).status == 200
        kept = [path for path in cluster.data.rglob("*") if path.is_file() and b"sk-test-canary" in path.read_bytes()]
    assert kept == []
