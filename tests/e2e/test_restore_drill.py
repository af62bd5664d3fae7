"""The drill of docs/backup.md: MongoDB is copied under a running cluster, and another one is started from the copy.

It gets what the page says is to be kept, and a NATS without anything. The first cluster goes on meanwhile and does
more, of which the second one knows nothing.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copy2
from typing import Any, NamedTuple

import pytest
from pymongo import MongoClient

from chaos.replicas import Replicas, replicas_of
from cluster import Cluster, clean_environment, denials
from kitemesh_cli.access import ensure_access
from kitemesh_cli.access_files import NATS_USERS, PASSWORDS
from kitemesh_cli.cluster import MONGOD_FLAGS
from kitemesh_cli.data_folder import read_environment
from kitemesh_cli.dev_servers import ADMIN
from kitemesh_cli.servers import LOOPBACK, free_port
from kitemesh_contracts.permissions import OPERATOR
from real_servers import running_mongod, running_nats
from tool_cluster import (
    Held,
    ToolCluster,
    approval,
    ask,
    called,
    calling,
    cancel,
    content,
    ended,
    execution,
    hold,
    make_keys,
    question,
    resume,
    until,
)
from tool_stub import read_ledger

TENANT = "drill"
SCOPES = ("chat", "approve", "admin")
OTHERS = ("orchestrator", "model-runner", "tool-executor")
SWEEP_S = 0.5
DELAY_MS = 20
WORDS = 100
SLOW_MS = 4000


class Copied(NamedTuple):
    """What there was when the copy was made.

    Attributes:
        key: Of the tenant.
        leaked: A key that was revoked after the copy.
        conversation: One that had ended, and what was `told` in it.
        running: A turn in the middle of its answer.
        under_way: A turn whose `once` call was at its tool.
        wipe: A held `once` call, undecided.
        pay: A held `keyed` call that was approved, and ran, after the copy.
        again: A held `once` call likewise.

    """

    key: str
    leaked: str
    conversation: str
    told: dict[str, Any]
    running: str
    under_way: str
    wipe: Held
    pay: Held
    again: Held


class Drill(NamedTuple):
    """The cluster that was started from the copy, and the one that was copied."""

    restored: Cluster
    desk: ToolCluster
    copied: Copied


class Restored(Cluster):
    """A cluster that was started piece by piece, from the folder of `kitemesh bootstrap --access`."""

    def __init__(self, folder: Path, key: str) -> None:
        self.data = folder
        self.key = key
        self.port = free_port()
        self.origin = f"http://{LOOPBACK}:{self.port}"
        (folder / "logs").mkdir()

    def environment(self, service: str = "") -> dict[str, str]:
        """Return what a service is told."""
        return {
            **clean_environment(),
            **read_environment(self.data / "access" / f"{service}.env"),
            "KITEMESH_CATALOG": str(self.data / "catalog.yaml"),
        }


@pytest.fixture(scope="module")
def drill(desk: ToolCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    folder = tmp_path_factory.mktemp("drill")
    copied = copy_under_way(desk, folder / "backup")
    with restoring(folder / "backup", folder / "restored", copied.key) as (restored, replicas):
        look_first(restored, copied)
        for service in OTHERS:
            replicas.start(service, service, KITEMESH_SWEEP_S=str(SWEEP_S))
        replicas.ready()
        yield Drill(restored, desk, copied)
        assert not denials(restored.data)


def copy_under_way(desk: ToolCluster, backup: Path) -> Copied:
    """Have things happen, make the copy in the middle of them, and have more happen that it does not know."""
    key, leaked = make_keys(desk.cluster, (TENANT, SCOPES), (TENANT, SCOPES))
    first = Cluster(desk.cluster.process, desk.cluster.port, desk.cluster.data, desk.cluster.log)
    first.key = key
    answered = ask(first, "@echo remembered")
    assert content(answered) == "remembered"
    conversation = answered.json()["kitemesh"]["conversation_id"]
    told = messages(first, conversation)
    wipe = hold(first, calling(("wipe", {"id": "drill-wipe"}), then="@echo wiped"))
    pay = hold(first, calling(("pay", {"id": "drill-pay", "amount": 3}), then="@echo paid"))
    again = hold(first, calling(("wipe", {"id": "drill-again"}), then="@echo wiped, too"))
    slow = {"id": "drill-note", "mode": "slow", "delay_ms": str(SLOW_MS)}
    under_way = begin(first, calling(("note", slow), then="@echo noted"))
    until(lambda: notes(desk))
    running = begin(first, f"@delay_ms {DELAY_MS}\n@count {WORDS}")
    until(lambda: execution(first, running)["status"] == "running")
    back_up(desk, backup)
    assert execution(first, running)["status"] == "running"
    assert content(resume(first, pay.whole)) == "paid"
    assert content(resume(first, again.whole)) == "wiped, too"
    revoke(first, leaked)
    return Copied(key, leaked, conversation, told, running, under_way, wipe, pay, again)


def back_up(desk: ToolCluster, backup: Path) -> None:
    """Copy MongoDB's files while nothing writes them, and what is no data: pepper, passwords and catalog."""
    data = desk.cluster.data
    backup.mkdir()
    with MongoClient[dict[str, Any]](desk.cluster.environment()["KITEMESH_MONGO_URL"]) as client:
        client.admin.command("fsync", lock=True)
        try:
            copy_files(data / "mongo", backup / "mongo")
        finally:
            client.admin.command("fsyncUnlock")
    copy2(data / "pepper", backup / "pepper")
    copy2(data / "access.json", backup / PASSWORDS)
    copy2(desk.catalog, backup / "catalog.yaml")


def copy_files(source: Path, target: Path) -> None:
    """Copy a folder; MongoDB's journal is made ahead, and almost all of it is empty."""
    subprocess.run(["cp", "-a", "--sparse=always", source, target], check=True)


@contextmanager
def restoring(backup: Path, folder: Path, key: str) -> Iterator[tuple[Restored, Replicas]]:
    """Start servers from a backup, have them bootstrapped, and start a gateway; nothing else runs yet."""
    kept = folder / "access"
    kept.mkdir(parents=True)
    (folder / "mongo").mkdir()
    copy_files(backup / "mongo", folder / "mongo" / "data")
    copy2(backup / PASSWORDS, kept / PASSWORDS)
    copy2(backup / "catalog.yaml", folder / "catalog.yaml")
    access = ensure_access(kept / PASSWORDS)
    with (
        running_nats(folder / "nats", more=access.nats_users()) as nats,
        running_mongod(folder / "mongo", *MONGOD_FLAGS) as mongo,
    ):
        restored = Restored(folder, key)
        command = [sys.executable, "-m", "kitemesh_cli", "bootstrap", "--access", str(kept)]
        environ = {
            **clean_environment(),
            "KITEMESH_NATS_URL": access.bus_url(nats, OPERATOR),
            "KITEMESH_MONGO_URL": access.store_url(mongo, OPERATOR, source=ADMIN),
            "KITEMESH_CATALOG": str(folder / "catalog.yaml"),
        }
        subprocess.run(command, check=True, capture_output=True, env=environ, cwd=folder)
        assert (kept / NATS_USERS).read_text() == access.nats_users()
        pepper = (backup / "pepper").read_text().strip()
        with replicas_of(restored, {}) as replicas:
            replicas.start("gateway", "gateway", KITEMESH_PORT=str(restored.port), KITEMESH_KEY_PEPPER=pepper)
            replicas.ready()
            yield restored, replicas


def look_first(restored: Cluster, copied: Copied) -> None:
    """See what the copy has forgotten while nothing moves, and cancel what must not happen again."""
    assert approval(restored, copied.again)["status"] == "open"
    assert execution(restored, copied.running)["status"] == "running"
    assert cancel(restored, copied.again.execution).status == 200


def begin(cluster: Cluster, text: str) -> str:
    """Start a durable turn that nobody reads, and return its id."""
    reply = cluster.call("/v1/executions", question(text))
    assert reply.status == 202, reply.body
    return str(reply.json()["id"])


def messages(cluster: Cluster, conversation: str) -> dict[str, Any]:
    reply = cluster.call(f"/v1/conversations/{conversation}/messages")
    assert reply.status == 200, reply.body
    return dict(reply.json())


def revoke(cluster: Cluster, key: str) -> None:
    """Revoke a key by the name that its text begins with, and see it refused."""
    name = key.removeprefix("km_")[:8]
    reply = cluster.call(f"/v1/keys/{name}", method="DELETE")
    assert reply.status == 200, reply.body
    until(lambda: cluster.call("/v1/models", key=key).status == 401)


def notes(desk: ToolCluster) -> list[dict[str, Any]]:
    """Return what the call that was under way has done at its tool."""
    return [line for line in read_ledger(desk.stub.ledger) if "/note/drill-note" in line["path"]]


def test_keys_and_conversations_are_as_they_were(drill: Drill) -> None:
    told = drill.copied.told
    assert [each["content"] for each in told["data"]] == ["@echo remembered", "remembered"]
    assert messages(drill.restored, drill.copied.conversation) == told


def test_a_turn_that_ran_when_the_copy_was_made_is_driven_on_to_its_end(drill: Drill) -> None:
    turn = ended(drill.restored, drill.copied.running, "completed")
    assert turn["steps"][-1]["text"].split() == [str(n) for n in range(1, WORDS + 1)]


def test_a_once_call_that_was_under_way_is_not_made_again_but_told_as_unknown(drill: Drill) -> None:
    turn = ended(drill.restored, drill.copied.under_way, "completed")
    (call,) = called(turn).values()
    assert (call["status"], turn["steps"][-1]["text"]) == ("outcome_unknown", "noted")
    assert len(notes(drill.desk)) == 1


def test_a_hold_that_was_open_is_approved_and_its_call_runs_once(drill: Drill) -> None:
    held = drill.copied.wipe
    (call,) = held.calls
    assert drill.desk.stub.effects(call) == []
    assert content(resume(drill.restored, held.whole)) == "wiped"
    assert content(resume(drill.restored, held.whole)) == "wiped"
    assert len(drill.desk.stub.effects(call)) == 1


def test_an_approval_given_after_the_copy_is_forgotten_and_a_keyed_call_repeated_under_its_key(drill: Drill) -> None:
    held = drill.copied.pay
    (call,) = held.calls
    assert approval(drill.restored, held)["status"] == "open"
    assert content(resume(drill.restored, held.whole)) == "paid"
    made = [line["replay"] for line in read_ledger(drill.desk.stub.ledger) if line["id"] == call]
    assert made == [False, True]


def test_a_turn_that_was_cancelled_before_anything_ran_makes_its_once_call_no_second_time(drill: Drill) -> None:
    held = drill.copied.again
    (call,) = held.calls
    ended(drill.restored, held, "cancelled")
    assert resume(drill.restored, held.whole).status == 410
    assert len(drill.desk.stub.effects(call)) == 1


def test_a_key_that_was_revoked_after_the_copy_serves_again_until_it_is_revoked_again(drill: Drill) -> None:
    leaked = drill.copied.leaked
    assert drill.desk.cluster.call("/v1/models", key=leaked).status == 401
    assert drill.restored.call("/v1/models", key=leaked).status == 200
    revoke(drill.restored, leaked)
