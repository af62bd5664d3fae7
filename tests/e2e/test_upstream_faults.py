"""Whatever an upstream does, a client gets an answer or a typed error within the time-outs: never a false success."""

import asyncio
import concurrent.futures
import http.client
import json
import re
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import openai
import pytest
import yaml

from chaos import upstream_run, upstream_turns
from cluster import Cluster, Reply, events, running_cluster, streamed_text
from tool_cluster import until
from upstream import Upstream, start_upstream
from upstream_faults import FAULTS, RETRIES, WORDS, Fault, model_of, providers_at, slug

WITHIN_S = 10.0
TOGETHER = 24
"""Requests at once."""
SEED = 6
TURNS = 300
"""`make chaos ONLY=upstreams` has two thousand."""

WHOLE, STREAMED, GROUPED = "whole", "streamed", "grouped"
GOOD = {"ok", "odd", "no end mark", "429 once, waits 1 s", "503 once, waits 1 s", "500 once", "every second fails"}
MANY = 1024 * 1024 * 1024
IMAGE = "data:image/png;base64,iVBORw0KGgo="


def group_of(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def catalog_at(url: str) -> dict[str, Any]:
    models: dict[str, Any] = {
        f"{slug(name)}-{kind}": model_of(fault, kind) for name, fault in FAULTS.items() for kind in (WHOLE, STREAMED)
    }
    groups: dict[str, Any] = {}
    for name, fault in FAULTS.items():
        first, second = f"{slug(name)}-{GROUPED}", f"{slug(name)}-instead"
        models[first] = model_of(fault, GROUPED)
        models[second] = {"provider": "stub", "upstream": f"ok?mark={slug(name)}"}
        groups[group_of(name)] = {"models": [first, second]}
    models |= {
        "slow": {"provider": "stub", "upstream": "ok?tokens=500&delay_ms=50"},
        "back": {"provider": "stub", "upstream": "ok?mark=back"},
        "once": {"provider": "once", "upstream": "limited_once?mark=sdk"},
        "small": {"provider": "stub", "upstream": "ok?mark=small", "context_tokens": 20},
        "blind": {"provider": "stub", "upstream": "ok?mark=blind", "can": []},
        "able": {"provider": "stub", "upstream": "ok?mark=able"},
    }
    groups[group_of("able")] = {"models": ["small", "blind", "able"]}
    many = upstream_turns.catalog_at(url)
    return {
        "version": 1,
        "providers": providers_at(url),
        "models": models | many["models"],
        "agents": {"assistant": {"model": "back"}},
        "groups": groups | many["groups"],
    }


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with start_upstream(tmp_path_factory.mktemp("upstream") / "log") as running:
        yield running


@pytest.fixture(scope="module")
def cluster(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("faults")
    (folder / "catalog.yaml").write_text(yaml.safe_dump(catalog_at(upstream.url)))
    with running_cluster(folder, KITEMESH_CATALOG=str(folder / "catalog.yaml")) as running:
        yield running


def body(model: str, *, stream: bool, text: Any = "hello") -> dict[str, object]:
    return {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]}


class Asked(NamedTuple):
    """A request, its answer, and how often the stub was called for it."""

    fault: Fault
    reply: Reply
    took_s: float
    calls: int


@pytest.fixture(scope="module")
def asked(cluster: Cluster, upstream: Upstream) -> dict[tuple[str, str], Asked]:
    """Every fault whole, streamed and first in a group, many at a time: most of them are waits."""

    def ask(name: str, kind: str) -> tuple[Reply, float]:
        model = f"group:{group_of(name)}" if kind == GROUPED else f"{slug(name)}-{kind}"
        began_s = time.monotonic()
        reply = cluster.call("/v1/chat/completions", body(model, stream=kind == STREAMED, text=f"{kind}: {name}"))
        return reply, time.monotonic() - began_s

    wanted = [(name, kind) for kind in (WHOLE, STREAMED, GROUPED) for name in FAULTS]
    before = peak_of(cluster)
    with concurrent.futures.ThreadPoolExecutor(TOGETHER) as clients:
        replies = list(clients.map(lambda each: ask(*each), wanted))
    grown = peak_of(cluster) - before
    assert grown < 64 * 1024, f"the model-runner grew by {grown} KiB"
    records = asyncio.run(upstream.records())
    sent = max(record["sent"] for record in records)
    assert 0 < sent < MANY / 32
    counts = [sum(record["asked"] == f"{kind}: {name}" for record in records) for name, kind in wanted]
    return {
        (name, kind): Asked(FAULTS[name], reply, took_s, calls)
        for (name, kind), (reply, took_s), calls in zip(wanted, replies, counts, strict=True)
    }


def peak_of(cluster: Cluster) -> int:
    """Return the most memory that the model-runner ever had, in KiB."""
    status = Path(f"/proc/{cluster.processes()['model-runner'].pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1])


def check_error(reply: Reply, fault: Fault) -> None:
    error = reply.json()["error"]
    assert (reply.status, error["type"]) == (fault.status, fault.code)
    assert error["request_id"] == reply.headers["x-request-id"]
    assert b"sk-secret" not in reply.body
    if fault.retry_after is not None:
        assert int(reply.headers["Retry-After"]) >= fault.retry_after


@pytest.mark.requirement("promise:P20", "upstream:each-fault-ends-as-documented")
@pytest.mark.parametrize("name", FAULTS)
def test_a_whole_answer_is_right_or_a_typed_error(asked: dict[tuple[str, str], Asked], name: str) -> None:
    fault, reply, took_s, _ = asked[name, WHOLE]
    assert took_s < WITHIN_S
    if fault.status == 200:
        assert reply.status == 200, reply.body
        (choice,) = reply.json()["choices"]
        assert choice["finish_reason"] == "stop"
        assert choice["message"]["content"] == ("w0 w1" if name == "odd" else WORDS)
    else:
        check_error(reply, fault)


@pytest.mark.requirement("promise:P20", "upstream:each-fault-ends-as-documented")
@pytest.mark.parametrize("name", FAULTS)
def test_a_stream_is_right_or_ends_in_an_explicit_error(asked: dict[tuple[str, str], Asked], name: str) -> None:
    fault, reply, took_s, _ = asked[name, STREAMED]
    assert took_s < WITHIN_S
    done = reply.body.rstrip().endswith(b"data: [DONE]")
    if fault.status == 200:
        assert (reply.status, done) == (200, True), reply.body
        assert streamed_text(reply.body) == ("w0 w1" if name == "odd" else WORDS)
        return
    assert not done
    assert b'"finish_reason":"stop"' not in reply.body
    assert b"sk-secret" not in reply.body
    if fault.begins:
        assert reply.status == 200
        error = events(reply.body)[-1]["error"]
        assert (error["type"], bool(error["message"])) == (fault.code, True)
        assert WORDS.startswith(streamed_text(reply.body))
    else:
        check_error(reply, fault)


@pytest.mark.requirement("upstream:not-hammered")
@pytest.mark.parametrize("name", FAULTS)
def test_an_upstream_is_called_as_often_as_its_fault_allows(asked: dict[tuple[str, str], Asked], name: str) -> None:
    for kind in (WHOLE, STREAMED):
        assert asked[name, kind].calls == FAULTS[name].calls
    assert FAULTS[name].calls <= 1 + RETRIES


@pytest.mark.requirement("upstream:fallback-before-the-first-word")
@pytest.mark.parametrize("name", [name for name in FAULTS if name not in GOOD])
def test_another_model_of_the_group_answers_unless_words_were_shown(
    asked: dict[tuple[str, str], Asked], name: str
) -> None:
    fault, reply, took_s, calls = asked[name, GROUPED]
    assert took_s < WITHIN_S
    if fault.elsewhere and not fault.begins:
        assert reply.status == 200, reply.body
        assert reply.json()["choices"][0]["message"]["content"] == WORDS
        # The one that failed was called once and never again: the other is sooner than a retry.
        assert calls == 1 + min(fault.calls, 1)
    else:
        check_error(reply, fault)
        assert calls == 1


def calls_of(upstream: Upstream, text: Any) -> list[str]:
    return [record["model"] for record in asyncio.run(upstream.records()) if record["asked"] == text]


@pytest.mark.requirement("upstream:never-where-it-cannot-work")
def test_a_call_never_goes_where_it_cannot_work(cluster: Cluster, upstream: Upstream) -> None:
    group = f"group:{group_of('able')}"
    long, short = "which is far too long for the smallest of them " * 20, "short for all"
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": IMAGE}}]
    for text in (long, short, parts):
        assert cluster.call("/v1/chat/completions", body(group, stream=False, text=text)).status == 200
    assert calls_of(upstream, long) == ["ok?mark=blind"]
    assert calls_of(upstream, short) == ["ok?mark=small"]
    seen = [record for record in asyncio.run(upstream.records()) if isinstance(record["asked"], list)]
    assert [record["model"] for record in seen] == ["ok?mark=able"]


@pytest.mark.requirement("promise:P20", "upstream:breaker", "upstream:health-is-shown")
def test_a_breaker_opens_within_ten_failures_and_closes_when_the_upstream_is_back(
    cluster: Cluster, upstream: Upstream
) -> None:
    def ask(text: str) -> Reply:
        return cluster.call("/v1/chat/completions", body("back", stream=False, text=text))

    asyncio.run(upstream.plan("broken", model="ok?mark=back"))
    refused = [ask(f"down {number}") for number in range(20)]
    assert {reply.status for reply in refused} == {502}
    failures = [record for record in asyncio.run(upstream.records()) if str(record["asked"]).startswith("down ")]
    assert 0 < len(failures) <= 10
    assert asyncio.run(upstream.calls("down 19")) == 0
    assert 1 <= int(refused[-1].headers["Retry-After"]) <= 10
    until(lambda: state_of(cluster) == 2, timeout_s=3)
    # Told with a sign of life: by then it may be half open.
    until(lambda: health_of(cluster) in {"down", "degraded"}, timeout_s=5)
    asyncio.run(upstream.plan("", model="ok?mark=back"))
    assert until(lambda: ask("up again").status == 200, timeout_s=WITHIN_S)
    assert ask("as before").status == 200
    until(lambda: health_of(cluster) == "ok", timeout_s=5)


def health_of(cluster: Cluster) -> str:
    """Return what clients are told of the model."""
    return str(cluster.call("/v1/models/back").json()["kitemesh"]["health"])


def state_of(cluster: Cluster) -> float:
    """Return what the model-runner says of the stub."""
    (root,) = re.findall(r"^ +model-runner +(http://\S+)/healthz$", cluster.printed(), re.MULTILINE)
    with urllib.request.urlopen(f"{root}/metrics", timeout=5) as reply:
        (value,) = re.findall(rb'^kitemesh_upstream_state\{upstream="stub"\} (\S+)$', reply.read(), re.MULTILINE)
    return float(value)


@pytest.mark.requirement("promise:P20", "upstream:breaker", "upstream:not-hammered")
def test_many_turns_over_failing_upstreams_all_end_as_they_may(cluster: Cluster, upstream: Upstream) -> None:
    asyncio.run(upstream.reset())
    found = asyncio.run(upstream_run.run(cluster, upstream, seed=SEED, turns=TURNS))
    assert found.violations == [], upstream_run.render(found)
    assert {turn.result for turn in found.turns} >= {"answered", "refused", "failed"}
    assert found.openings, upstream_run.render(found)


@pytest.mark.requirement("clients:waits-out-a-429")
def test_the_openai_sdk_waits_as_an_upstreams_limit_says_and_then_succeeds(
    cluster: Cluster, upstream: Upstream
) -> None:
    with openai.OpenAI(base_url=f"{cluster.origin}/v1", api_key=cluster.key, max_retries=1) as sdk:
        answer = sdk.chat.completions.create(model="once", messages=[{"role": "user", "content": "when you can"}])
    assert answer.choices[0].message.content == WORDS
    first, second = (record for record in asyncio.run(upstream.records()) if record["asked"] == "when you can")
    assert 1.0 <= second["at_s"] - first["end_at_s"] < 3.0


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

    environ = cluster.environment()
    with MongoClient[dict[str, Any]](environ["KITEMESH_MONGO_URL"]) as client:
        turns = client[environ["KITEMESH_MONGO_DATABASE"]]["turns"]
        return str(until(lambda: turns.find_one({"_id": turn}), timeout_s=5)["status"])


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
