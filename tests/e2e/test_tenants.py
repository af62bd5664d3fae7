"""Keys, tenants and a second gateway: what one replica learns all of them obey, and nobody sees another's things."""

import concurrent.futures
import contextlib
import itertools
import json
import re
import string
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import foreign_ids
from cluster import GROUP, LOOPBACK, Cluster, Reply, free_port
from foreign_ids import Place
from tool_cluster import make_keys, read_held

REVOKED_WITHIN_S = 5.0
AT_ONCE = 8
OF_EACH = 2
"""So many things of each kind a tenant has at the least."""
PAIRS = 2000
"""An id of another's and one of nobody's, in so many places and of so many kinds at the least."""
COMMON = {"getModel", "getAgentHistory", "getDeadLetter"}
"""What they name belongs to no tenant."""


_ALIKE = ("0123456789abcdef", "ghijklmnopqrstuvwxyz", string.ascii_uppercase)
_NEXT = str.maketrans("".join(_ALIKE), "".join(each[1:] + each[0] for each in _ALIKE))
"""Leaves nothing of an id as it is, and looks like one of the same kind."""


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


class Belongings(NamedTuple):
    """A tenant, its key, and what is its own.

    Attributes:
        ids: By what they are ids of.
        secret: Stands in everything that it said.

    """

    key: str
    ids: dict[str, list[str]]
    secret: str


def furnish(cluster: Cluster, key: str) -> Belongings:
    """Have a tenant own one of everything, more than once."""
    secret = f"canary{uuid.uuid4().hex}"
    ids: dict[str, list[str]] = {}

    def own(kind: str, *mine: str) -> None:
        ids.setdefault(kind, []).extend(mine)

    for n in range(OF_EACH):
        conversation, message, keyed = (uuid.uuid4().hex for _ in range(3))
        body = {"model": GROUP, "messages": [{"role": "user", "content": f"@echo {secret}"}]}
        said = cluster.call(
            "/run/v1/chat/completions",
            {**body, "conversationId": conversation, "messageId": message, "executionMode": "durable"},
            key=key,
            headers={"Idempotency-Key": keyed},
        )
        assert said.status == 200, said.body
        own("conversation", conversation)
        own("message", message)
        own("idempotency key", keyed)
        own("execution", said.headers["x-execution-id"])
        own("event", said.body.splitlines()[0].decode().removeprefix("id: "))
        asked = {"model": GROUP, "messages": [{"role": "user", "content": f"Delete record {secret}"}]}
        held = read_held(cluster.call("/v1/chat/completions", asked, key=key).json())
        own("conversation", held.conversation)
        own("execution", held.execution)
        own("approval", held.approval)
        own("call", *held.calls)
        for base in ("one", "other"):
            document = {"name": f"{secret} {n}", "text": f"It says {secret}.", "base": base}
            own("document", cluster.call("/v1/knowledge", document, key=key).json()["id"])
        made = cluster.call("/v1/keys", {"name": secret}, key=key).json()
        own("key", made["id"])
    own("tenant", made["tenant"])
    return Belongings(key, ids, secret)


def belongings(cluster: Cluster, mine: Belongings) -> list[bytes]:
    """Look at everything that a tenant owns."""
    looks = [f"/v1/conversations/{each}/messages" for each in mine.ids["conversation"]]
    looks += [f"/v1/executions/{each}" for each in mine.ids["execution"]]
    looks += [f"/v1/approvals/{each}" for each in mine.ids["approval"]]
    looks += [f"/v1/knowledge/{each}" for each in mine.ids["document"]]
    looks += [f"/v1/keys/{each}" for each in mine.ids["key"]]
    looks += [f"/v1/tenants/{each}" for each in mine.ids["tenant"]]
    replies = [cluster.call(look, key=mine.key) for look in looks]
    assert {reply.status for reply in replies} == {200}
    return [reply.body for reply in replies]


def missing(id_: str) -> str:
    """Make up an id that looks like another and that nobody has."""
    name, colon, position = id_.partition(":")
    return name.translate(_NEXT) + colon + position


def plain(reply: Reply, id_: str) -> tuple[int, str, bytes]:
    """Return what an answer says, but for the id that was asked for and that of the request."""
    body = reply.body.replace(id_.encode(), b"ID").replace(id_.partition(":")[0].encode(), b"ID")
    return reply.status, reply.headers.get("Content-Type", ""), re.sub(rb"req_[0-9a-f]+", b"", body)


class Pair(NamedTuple):
    """The answers to an id of another tenant and to one of nobody, in the same place."""

    place: Place
    kind: str
    foreign: tuple[int, str, bytes]
    unknown: tuple[int, str, bytes]

    def is_told_apart(self) -> bool:
        """Tell whether the answers differ; what was begun has ids of its own."""
        return self.foreign[0] != self.unknown[0] or (self.foreign[0] >= 400 and self.foreign != self.unknown)


def fits(place: Place, kind: str) -> bool:
    """Tell whether an id may be put in a place: an event's has a header of its own."""
    return (place.field[-1] == "Last-Event-ID") == (kind == "event")


def ask_pairs(gateways: tuple[Cluster, Cluster], place: Place, owner: Belongings, stranger: Belongings) -> list[Pair]:
    """Ask for all that a tenant has, and for as much that nobody has, with another's key."""
    here, there = gateways
    asked = [(kind, id_) for kind, ids in owner.ids.items() if fits(place, kind) for id_ in ids]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as clients:
        foreign = clients.map(lambda each: foreign_ids.ask(there, place, each[1], stranger.key), asked)
        unknown = clients.map(lambda each: foreign_ids.ask(here, place, missing(each[1]), stranger.key), asked)
        return [
            Pair(place, kind, plain(theirs, id_), plain(nobodys, missing(id_)))
            for (kind, id_), theirs, nobodys in zip(asked, foreign, unknown, strict=True)
        ]


def leads_its_owner_somewhere(cluster: Cluster, place: Place, owner: Belongings) -> bool:
    ids = [mine[0] for kind, mine in owner.ids.items() if fits(place, kind)]
    return any(foreign_ids.ask(cluster, place, each, owner.key).status < 300 for each in ids)


@pytest.mark.requirement("promise:P12")
def test_nothing_tells_another_tenants_id_from_one_that_nobody_has(cluster: Cluster, second: Cluster) -> None:
    scopes = ("chat", "approve", "admin")
    keys = make_keys(cluster, *((f"tenant-{uuid.uuid4().hex}", scopes) for _ in range(2)))
    tenants = [furnish(cluster, key) for key in keys]
    before = [belongings(cluster, each) for each in tenants]
    shown = [place for place in foreign_ids.places() if (place.method, place.where) == ("GET", "path")]
    led = {place.operation for place in shown if leads_its_owner_somewhere(cluster, place, tenants[0])}
    assert led == {place.operation for place in shown} - COMMON
    pairs = [
        (pair, owner.secret)
        for place in foreign_ids.places()
        for owner, stranger in itertools.permutations(tenants)
        for pair in ask_pairs((cluster, second), place, owner, stranger)
    ]
    assert [pair for pair, _ in pairs if pair.is_told_apart()] == []
    assert [pair for pair, secret in pairs if secret.encode() in pair.foreign[2]] == []
    assert len(pairs) >= PAIRS
    assert [belongings(cluster, each) for each in tenants] == before


@pytest.mark.requirement("promise:P12")
def test_a_chat_clients_answer_decides_nothing_of_another_tenant(cluster: Cluster) -> None:
    keys = make_keys(cluster, *((f"tenant-{uuid.uuid4().hex}", ("chat", "approve", "admin")) for _ in range(2)))
    owner, stranger = (furnish(cluster, key) for key in keys)
    before = belongings(cluster, owner)
    kinds = ("conversation", "approval", "call")
    theirs = [owner.ids[kind][-1] for kind in kinds]
    unknown = [missing(each) for each in theirs]
    replies = [
        cluster.call("/run/api/chat", foreign_ids.answer_of(*each), key=stranger.key) for each in (theirs, unknown)
    ]
    told = [plain(reply, names[0]) for reply, names in zip(replies, (theirs, unknown), strict=True)]
    assert told[0] == told[1]
    assert told[0][0] == 404
    assert belongings(cluster, owner) == before
