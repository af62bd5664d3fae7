"""Keys, tenants and a second gateway: what one replica learns all of them obey, and nobody sees another's things."""

import concurrent.futures
import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import GROUP, LOOPBACK, Cluster, Reply, free_port

REVOKED_WITHIN_S = 5.0


class SecondGateway(Cluster):
    """Another gateway of the same cluster."""

    def __init__(self, first: Cluster, port: int) -> None:
        self.port = port
        self.key = first.key
        self.origin = f"http://{LOOPBACK}:{port}"


@pytest.fixture(scope="module")
def second(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    port, log = free_port(), tmp_path_factory.mktemp("second") / "log"
    environment = {
        **cluster.environment(),
        "KITEMESH_PORT": str(port),
        "KITEMESH_HEALTH_PORT": "0",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "kitemesh_gateway"], stdout=output, stderr=output, env=environment
        )
    try:
        gateway = SecondGateway(cluster, port)
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                if gateway.call("/v1/models").status == 200:
                    break
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < end
            time.sleep(0.1)
        yield gateway
    finally:
        process.terminate()
        assert process.wait(30) == 0


def make_key(cluster: Cluster, *words: str) -> tuple[str, str]:
    """Make a key and return its id and its text."""
    made = json.loads(cluster.verb("keys", "create", "--json", *words))
    return made["id"], made["key"]


@pytest.mark.requirement("promise:P17")
def test_a_revoked_key_is_refused_by_every_gateway_within_five_seconds(cluster: Cluster, second: Cluster) -> None:
    key_id, key = make_key(cluster, "--tenant", "revoked")
    for gateway in (cluster, second):
        assert gateway.call("/v1/models", key=key).status == 200
    cluster.verb("keys", "revoke", "--tenant", "revoked", key_id)
    end = time.monotonic() + REVOKED_WITHIN_S
    for gateway in (cluster, second):
        while gateway.call("/v1/models", key=key).status != 401:
            assert time.monotonic() < end
    kept = [path for path in cluster.data.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    assert kept == []


@pytest.mark.requirement("http:credential-one-answer")
def test_every_wrong_credential_gets_the_same_answer(cluster: Cluster) -> None:
    expired = make_key(cluster, "--tenant", "wrong", "--expires-in", "1s")[1]
    revoked_id, revoked = make_key(cluster, "--tenant", "wrong")
    cluster.verb("keys", "revoke", "--tenant", "wrong", revoked_id)
    unknown = "km_" + "A" * 57
    time_limit = time.monotonic() + 10
    while cluster.call("/v1/models", key=expired).status != 401:
        assert time.monotonic() < time_limit
    replies = [cluster.call("/v1/models", key=key) for key in (expired, revoked, unknown, "nonsense", "")]
    replies[-1] = cluster.call("/v1/models", key="\x20")
    assert {reply.status for reply in replies} == {401}
    assert len({re.sub(rb'"request_id":"[^"]*"', b"", reply.body) for reply in replies}) == 1


@pytest.mark.requirement("models:only-the-keys-own")
def test_a_key_without_the_scope_and_a_key_for_other_models_are_refused(cluster: Cluster) -> None:
    _, approver = make_key(cluster, "--tenant", "acme", "--scope", "approve")
    _, narrow = make_key(cluster, "--tenant", "acme", "--model", GROUP)

    def ask(model: str, key: str) -> Reply:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        return cluster.call("/v1/chat/completions", body, key=key)

    assert ask(GROUP, approver).status == 403
    assert ask(GROUP, approver).json()["error"]["type"] == "permission_error"
    assert ask(GROUP, narrow).status == 200
    assert ask("scripted", narrow).status == 404
    assert [model["id"] for model in cluster.call("/v1/models", key=narrow).json()["data"]] == [GROUP]


@pytest.mark.requirement("conversation:foreign-is-unknown")
def test_another_tenants_conversation_is_as_unknown_as_one_that_never_was(cluster: Cluster, second: Cluster) -> None:
    _, mine = make_key(cluster, "--tenant", "mine")
    _, yours = make_key(cluster, "--tenant", "yours")

    def ask(conversation: str, key: str) -> Reply:
        messages = [{"role": "user", "content": "hello"}]
        metadata = {"conversation_id": conversation}
        body = {"model": GROUP, "messages": messages, "metadata": metadata}
        return second.call("/v1/chat/completions", body, key=key)

    first = cluster.call(
        "/v1/chat/completions", {"model": GROUP, "messages": [{"role": "user", "content": "hi"}]}, key=mine
    )
    conversation = first.headers["x-conversation-id"]
    assert ask(conversation, mine).status == 200
    foreign, missing = ask(conversation, yours), ask("0" * len(conversation), yours)
    assert foreign.status == missing.status == 404
    drop = re.compile(rb'"request_id":"[^"]*"')
    assert drop.sub(b"", foreign.body) == drop.sub(b"", missing.body)


@pytest.mark.requirement("conversation:continued-while-running")
def test_a_conversation_goes_on_at_another_gateway_while_its_first_turn_still_runs(
    cluster: Cluster, second: Cluster
) -> None:
    started = cluster.chat("@echo one")
    conversation = {"conversation_id": started.headers["x-conversation-id"]}
    with concurrent.futures.ThreadPoolExecutor(4) as clients:
        slow = clients.submit(cluster.chat, "@first_ms 1500\n@tokens 2", metadata=conversation)
        others = [
            clients.submit(gateway.chat, "@roles", metadata=conversation) for gateway in (second, cluster, second)
        ]
        replies = [future.result(timeout=30) for future in (slow, *others)]
    assert [reply.status for reply in replies] == [200] * 4
    shown = json.loads(cluster.verb("conversation", "--tenant", "dev", conversation["conversation_id"]))
    ordinals = [turn["ordinal"] for turn in shown["turns"]]
    assert ordinals == [1, 2, 3, 4, 5]


@pytest.mark.requirement("http:anonymous-principal")
def test_without_a_credential_the_development_cluster_answers_as_its_own_tenant(cluster: Cluster) -> None:
    body = {"model": GROUP, "messages": [{"role": "user", "content": "hello"}]}
    assert cluster.call("/v1/chat/completions", body, key=None).status == 200


@pytest.mark.requirement("start:names-who-has-the-port")
def test_the_supervisor_says_who_runs_already(cluster: Cluster, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kitemesh_cli", "dev", "--port", str(cluster.port), "--data", str(tmp_path)]
    busy = subprocess.run(command, capture_output=True, text=True, check=False)
    assert busy.returncode == 1
    assert "kitemesh_gateway" in busy.stderr + busy.stdout
    command = [sys.executable, "-m", "kitemesh_cli", "dev", "--port", "0", "--data", str(cluster.data)]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert str(cluster.process.pid) in second.stderr + second.stdout
