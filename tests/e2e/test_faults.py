"""kill -9 of any one process, idle or busy: everything starts again, and every client gets its answer or an error."""

import concurrent.futures
import contextlib
import http.client
import json
import re
import signal
import time
from collections.abc import Iterator

import pytest

from cluster import GROUP, SERVICES, Cluster, Reply, running_cluster

PROCESSES = (*SERVICES, "nats-server", "mongod")
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that these tests break; each leaves it serving."""
    with running_cluster(tmp_path_factory.mktemp("broken")) as running:
        yield running


def serving_again(cluster: Cluster) -> Reply:
    """Ask until answered; fails after the promised time."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            reply = cluster.chat("@echo back again")
        except (OSError, http.client.HTTPException):
            reply = None
        if reply is not None and reply.status == 200:
            return reply
        assert time.monotonic() < end, f"not serving: {reply}\n{cluster.printed()[-2000:]}"
        time.sleep(0.1)


@pytest.mark.requirement("fault:killed-process-comes-back")
@pytest.mark.parametrize("name", PROCESSES)
def test_an_idle_process_that_is_killed_comes_back_and_serves_by_itself(broken: Cluster, name: str) -> None:
    old = broken.kill(name)
    broken.restarted(name, old)
    reply = serving_again(broken)
    assert reply.json()["choices"][0]["message"]["content"] == "back again"


@pytest.mark.requirement("fault:cut-before-the-first-delta")
@pytest.mark.parametrize("name", [name for name in PROCESSES if name != "gateway"])
def test_turns_cut_before_their_first_delta_are_answered_or_refused_with_words(broken: Cluster, name: str) -> None:
    with concurrent.futures.ThreadPoolExecutor(12) as clients:
        began = time.monotonic()
        waiting = [clients.submit(broken.chat, f"@delay_ms 300\n@echo answer {n}") for n in range(12)]
        broken.kill(name)
        replies = [future.result(timeout=PATIENCE_S + 5) for future in waiting]
    assert time.monotonic() - began < PATIENCE_S
    for n, reply in enumerate(replies):
        if reply.status == 200:
            assert reply.json()["choices"][0]["message"]["content"] == f"answer {n}"
        else:
            assert reply.status in {502, 503, 504}
            assert reply.json()["error"]["message"]
    if name in {"orchestrator", "model-runner", "tool-executor"}:
        assert [reply.status for reply in replies] == [200] * 12
    serving_again(broken)


@contextlib.contextmanager
def begun_stream(cluster: Cluster, text: str, *, pieces: int) -> Iterator[tuple[bytes, http.client.HTTPResponse]]:
    """Begin a stream and yield what was read once that many pieces of text had come."""
    connection = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=PATIENCE_S)
    body = {"model": GROUP, "stream": True, "messages": [{"role": "user", "content": text}]}
    headers = {"Authorization": f"Bearer {cluster.key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    seen = b""
    while len(re.findall(rb'"content": ?"[^"]', seen)) < pieces:
        line = response.readline()
        assert line, seen
        seen += line
    with contextlib.closing(connection), response:
        yield seen, response


@pytest.mark.requirement("attempt:only-a-prefix-is-continued")
def test_a_stream_cut_in_the_middle_never_looks_complete(broken: Cluster) -> None:
    with begun_stream(broken, "@tokens 60\n@delay_ms 100", pieces=5) as (seen, response):
        broken.kill("model-runner")
        text = (seen + response.read()).decode()
    if "data: [DONE]" in text:
        assert '"finish_reason":"stop"' in text
    else:
        assert 'data: {"error":' in text
        assert '"finish_reason":"stop"' not in text
    serving_again(broken)


@pytest.mark.requirement("fault:store-down")
def test_a_frozen_store_is_refused_with_words_within_three_seconds_and_heals(broken: Cluster) -> None:
    broken.kill("mongod", signal.SIGSTOP)
    try:
        end = time.monotonic() + 10
        while True:
            began = time.monotonic()
            reply = broken.chat("@echo hello")
            took = time.monotonic() - began
            assert took < 5
            if reply.status == 503:
                break
            assert time.monotonic() < end
        assert reply.json()["error"]["code"]
        assert int(reply.headers["Retry-After"]) >= 1
        assert took < 3
    finally:
        broken.kill("mongod", signal.SIGCONT)
    serving_again(broken)


@pytest.mark.requirement("completions:unstored-answer-says-so", "fault:store-fails-in-mid-turn")
def test_a_store_that_fails_in_mid_turn_costs_the_record_and_not_the_answer(broken: Cluster) -> None:
    with begun_stream(broken, "@delay_ms 100\n@tokens 20", pieces=3) as (seen, response):
        broken.kill("mongod", signal.SIGSTOP)
        try:
            text = (seen + response.read()).decode()
        finally:
            broken.kill("mongod", signal.SIGCONT)
    assert text.rstrip().endswith("data: [DONE]")
    assert '"stored":false' in text
    serving_again(broken)
