"""A held call outlives whatever held it: every process, the bus's store, its gateway, and the time to decide it."""

import contextlib
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from chaos.effect_catalog import BRIEF_S, BRIEF_TOOL, tool_of, write_catalog
from chaos.replicas import replicas_of
from cluster import GROUP, Cluster, Reply, running_cluster, streamed_text
from kitemesh_cli.servers import free_port
from tool_stub import ToolStub, start_tool_stub

PATIENCE_S = 30.0
ONCE = tool_of("once", held=True)


class Held(NamedTuple):
    """A turn that waits for a person."""

    tag: str
    execution: str
    approval: str
    call: str


class Place(NamedTuple):
    """What stays while clusters come and go: a stub with its ledger, and the folder of their data."""

    folder: Path
    stub: ToolStub
    catalog: Path

    @contextlib.contextmanager
    def cluster(self) -> Iterator[Cluster]:
        with running_cluster(self.folder / "cluster", KITEMESH_CATALOG=str(self.catalog)) as cluster:
            yield cluster

    def effects(self, tag: str) -> int:
        return sum(line["path"].partition("?")[0].endswith(f"/{tag}") for line in self.stub.effects())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("holds")
    with start_tool_stub(folder) as stub:
        yield Place(folder, stub, write_catalog(folder / "catalog.yaml", stub.url, delay_ms=10))


class Killed(NamedTuple):
    """What was held when every process was killed, and the cluster that was started after that."""

    cluster: Cluster
    approved_late: Held
    ran_out: Held


@pytest.fixture(scope="module")
def killed(place: Place) -> Iterator[Killed]:
    with place.cluster() as cluster:
        approved_late = hold(cluster, ONCE, "killed")
        ran_out = hold(cluster, BRIEF_TOOL, "ran-out")
        end = time.monotonic() + BRIEF_S
        kill_all(cluster)
    until(lambda: time.monotonic() > end)
    with place.cluster() as cluster:
        yield Killed(cluster, approved_late, ran_out)


def hold(cluster: Cluster, tool: str, tag: str) -> Held:
    """Have a call held."""
    reply = cluster.chat(f'@call {tool} {{"tag": "{tag}"}}\n@then\n@echo the end of {tag}')
    assert reply.status == 200, reply.body
    body = reply.json()
    (call,) = body["choices"][0]["message"]["tool_calls"]
    return Held(tag, body["kitemesh"]["execution_id"], body["kitemesh"]["approval_id"], call["id"])


def approve(cluster: Cluster, held: Held, *, stream: bool = False) -> Reply:
    body = {"model": GROUP, "approval_id": held.approval, "approved_tool_execution_ids": [held.call], "stream": stream}
    return cluster.call("/v1/chat/resume", body)


def execution(cluster: Cluster, held: Held) -> dict[str, Any]:
    """Return a turn as the API tells it."""
    reply = cluster.call(f"/v1/executions/{held.execution}")
    assert reply.status == 200, reply.body
    found: dict[str, Any] = reply.json()
    return found


def call_status(turn: dict[str, Any]) -> str:
    (call,) = turn["steps"][0]["tool_calls"]
    return str(call["status"])


def said(reply: Reply) -> str:
    """Return the text of a complete answer."""
    assert reply.status == 200, reply.body
    if reply.headers["Content-Type"].startswith("text/event-stream"):
        assert reply.body.rstrip().endswith(b"data: [DONE]"), reply.body
        return streamed_text(reply.body)
    return str(reply.json()["choices"][0]["message"]["content"])


def kill_all(cluster: Cluster) -> None:
    """Kill every process of a cluster, the one that keeps the others first."""
    family = psutil.Process(cluster.process.pid).children(recursive=True)
    names = cluster.processes().keys()
    assert {"gateway", "orchestrator", "model-runner", "tool-executor", "nats-server", "mongod"} <= names
    cluster.process.send_signal(signal.SIGKILL)
    cluster.process.wait()
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=10)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_held_call_is_approved_after_every_process_was_killed_and_runs_once(place: Place, killed: Killed) -> None:
    cluster, held, _ = killed
    assert execution(cluster, held)["status"] == "held"
    assert place.effects(held.tag) == 0
    assert said(approve(cluster, held, stream=True)) == "the end of killed"
    assert said(approve(cluster, held)) == "the end of killed"
    assert place.effects(held.tag) == 1
    turn = execution(cluster, held)
    assert (turn["status"], call_status(turn)) == ("completed", "completed")


def test_a_hold_that_ran_out_while_nothing_ran_is_denied_and_its_turn_goes_on(place: Place, killed: Killed) -> None:
    cluster, _, held = killed
    until(lambda: execution(cluster, held)["status"] == "completed")
    turn = execution(cluster, held)
    assert (call_status(turn), turn["steps"][-1]["text"]) == ("denied", "the end of ran-out")
    assert place.effects(held.tag) == 0
    late = approve(cluster, held)
    assert (late.status, late.json()["error"]["type"]) == (410, "gone_error")
    assert place.effects(held.tag) == 0


def test_a_held_call_is_approved_at_another_gateway_than_the_one_that_held_it(place: Place, killed: Killed) -> None:
    cluster = killed.cluster
    held = hold(cluster, ONCE, "elsewhere")
    port = free_port()
    with replicas_of(cluster, {}) as replicas:
        replicas.start("gateway-b", "gateway", KITEMESH_PORT=str(port))
        replicas.ready()
        other = Cluster(cluster.process, port, cluster.data, cluster.log)
        assert said(approve(other, held, stream=True)) == "the end of elsewhere"
        assert said(approve(other, held)) == "the end of elsewhere"
    assert said(approve(cluster, held)) == "the end of elsewhere"
    assert place.effects(held.tag) == 1
    assert execution(cluster, held)["status"] == "completed"


def test_a_held_call_is_approved_after_the_store_of_the_bus_was_deleted(place: Place, killed: Killed) -> None:
    held = hold(killed.cluster, ONCE, "wiped")
    killed.cluster.process.send_signal(signal.SIGINT)
    killed.cluster.process.wait(PATIENCE_S)
    shutil.rmtree(killed.cluster.data / "nats" / "jetstream")
    with place.cluster() as cluster:
        assert execution(cluster, held)["status"] == "held"
        assert said(approve(cluster, held)) == "the end of wiped"
        assert place.effects(held.tag) == 1
        assert execution(cluster, held)["status"] == "completed"
