"""`kitemesh doctor`, `status` and `dead` on a cluster that is well, then on the same one with things broken."""

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymongo import MongoClient

from cluster import SERVICES, Cluster, clean_environment, running_cluster
from kitemesh_cli import __main__ as command
from kitemesh_cli.data_folder import DataFolder
from kitemesh_cli.doctor import public
from kitemesh_cli.doctor_findings import judge
from kitemesh_cli.doctor_probe import gather_facts
from kitemesh_cli.processes import kill_group, spawn
from kitemesh_cli.servers import free_port, wait_listening
from kitemesh_contracts import subjects
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.bus_nats import open_bus

MODEL_RUNNER_OF_THE_FUTURE = """
import importlib.metadata, time
importlib.metadata.version = lambda _: "99.0.0"
true_ns = time.time_ns
time.time_ns = lambda: true_ns() + 90_000_000_000
from kitemesh_model_runner.__main__ import main
main()
"""


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("patient")) as cluster:
        yield cluster


@pytest.fixture
def from_the_future(patient: Cluster) -> Iterator[None]:
    """Another model-runner, of another release and with a clock that is ahead."""
    environ = {
        **patient.environment("model-runner"),
        "KITEMESH_LOG_FORMAT": "json",
        "KITEMESH_HEALTH_PORT": str(port := free_port()),
        "KITEMESH_REPLICA": "future",
    }
    process = spawn([sys.executable, "-c", MODEL_RUNNER_OF_THE_FUTURE], patient.data / "future.log", environ)
    try:
        wait_listening(process, port, timeout_s=20, log=patient.data / "future.log")
        yield
    finally:
        kill_group(process)
        process.wait()


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(patient: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process; returns its exit code and what it printed."""

    def call(*words: str, **environ: str) -> tuple[int, str, str]:
        monkeypatch.setattr(os, "environ", {**clean_environment(), **environ})
        monkeypatch.setattr(sys, "argv", ["kitemesh", *words, "--data", str(patient.data)])
        code = command.main()
        return (code, *capsys.readouterr())

    return call


def look(cluster: Cluster, *, listen_s: float, **environ: str) -> dict[str, list[dict[str, Any]]]:
    """Return what is found, by check."""
    told = {**clean_environment(), **environ}
    facts = asyncio.run(gather_facts(DataFolder(cluster.data), None, told, listen_s=listen_s))
    checks = public(judge(facts))["checks"]
    assert [each["id"] for each in checks if each["level"] == "untold"] == []
    return {each["id"]: each["findings"] for each in checks if each["findings"]}


def break_streams(cluster: Cluster) -> None:
    """Delete a stream and a consumer, change another stream, poison an event, and leave a job to nobody."""

    async def do() -> None:
        async with open_bus(cluster.environment()["KITEMESH_NATS_URL"], name="breaker") as bus:
            await bus.send(f"{subjects.ROOT}.event.step.generated.nobody", b"no event", msg_id="poison")
            await buried(bus)
            await ask(bus, "STREAM.DELETE.KM_TIMER", {})
            await ask(bus, "CONSUMER.DELETE.KM_TOOL.default-batch-0", {})
            config = (await ask(bus, "STREAM.INFO.KM_CONTROL", {}))["config"]
            await ask(bus, "STREAM.UPDATE.KM_CONTROL", {**config, "max_age": 60_000_000_000, "duplicate_window": 10**9})
            await bus.send(f"{subjects.ROOT}.model.gpu.interactive.0.nobody", b"{}", msg_id="unattended")

    asyncio.run(do())


async def ask(bus: Bus, question: str, body: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        await bus.request(f"$JS.API.{question}", json.dumps(body).encode(), timeout_s=5)
    )
    assert "error" not in answer, answer
    return answer


async def buried(bus: Bus) -> None:
    """Return once the poisoned event is a dead letter."""
    filtered = {"subjects_filter": subjects.DEAD_ALL}
    async with asyncio.timeout(10):
        while not (await ask(bus, "STREAM.INFO.KM_DEAD", filtered))["state"].get("subjects"):
            await bus.barrier()


def break_store(cluster: Cluster) -> None:
    """Drop an index, and take something from a service's role."""
    with MongoClient[dict[str, Any]](cluster.environment()["KITEMESH_MONGO_URL"]) as client:
        database = client["kitemesh"]
        database["turns"].drop_index("due")
        resource = {"db": "kitemesh", "collection": "knowledge"}
        taken = [{"resource": resource, "actions": ["remove"]}]
        database.command({"revokePrivilegesFromRole": "kitemesh-gateway", "privileges": taken})


def break_rights(cluster: Cluster) -> None:
    """Take something from what NATS lets a service do."""
    file = cluster.data / "nats" / "nats.conf"
    text = file.read_text()
    subject = f'"{subjects.ROOT}.control.decide.*", '
    # The gateway's, which is the first user.
    assert subject in text
    file.write_text(text.replace(subject, "", 1))
    cluster.kill("nats-server", signal.SIGHUP)


def add_pool(cluster: Cluster, run: Run) -> None:
    """Have the catalog name a pool that no runner takes from, and make its queues."""
    catalog = cluster.data / "catalog.yaml"
    catalog.write_text(catalog.read_text() + "\npools: {model: {default: {}, gpu: {}}}\n")
    assert run("bootstrap")[0] == 0


@pytest.mark.requirement("doctor:well")
def test_a_cluster_that_is_well_is_told_to_be(patient: Cluster) -> None:
    assert look(patient, listen_s=2.5) == {}


@pytest.mark.requirement("doctor:names")
@pytest.mark.usefixtures("from_the_future")
def test_each_of_twelve_broken_things_is_named(patient: Cluster, run: Run) -> None:
    add_pool(patient, run)
    break_rights(patient)
    break_streams(patient)
    break_store(patient)
    frozen = patient.processes()["orchestrator"]
    frozen.suspend()
    try:
        found = look(patient, listen_s=2.5, KITEMESH_KEY="km_of_nobody")
    finally:
        frozen.resume()
    named = {check: {each["about"] for each in findings} for check, findings in found.items()}
    assert named == {
        "nats.streams": {"KM_TIMER"},
        "nats.consumers": {"KM_TOOL/default-batch-0"},
        "nats.configuration": {"KM_CONTROL"},
        "mongodb.indexes": {"turns.due"},
        "access.nats": {"gateway"},
        "access.mongodb": {"gateway"},
        "services.present": {"orchestrator", "model-runner/gpu"},
        "services.versions": {"model-runner/future"},
        "services.clocks": {"model-runner/future"},
        "queues.attended": {"KM_MODEL/gpu-interactive-0"},
        "dead-letters": {"KM_DEAD"},
        "gateway": {patient.origin},
    }
    assert found["access.nats"][0]["problem"] == "NATS does not let it publish to km.v1.control.decide.*"
    assert found["access.mongodb"][0]["problem"] == "MongoDB does not let it remove in knowledge"
    assert found["nats.configuration"][0]["problem"] == "max_age is 60 s, this release needs 3600 s"
    assert found["services.clocks"][0]["problem"] == "its clock is 90.0 s ahead of the others"
    assert all(each["advice"] for findings in found.values() for each in findings)


@pytest.mark.requirement("status:gateway")
def test_status_tells_what_a_gateway_knows(run: Run) -> None:
    # What the doctor advised: only then do gateways take up the catalog with the pool that nobody serves.
    assert run("bootstrap")[0] == 0
    end = time.monotonic() + 15
    while (told := run("status", "--json"))[0] == 0:
        assert time.monotonic() < end, told
    code, out, err = told
    cluster = json.loads(out)
    assert (code, err) == (1, "")
    assert cluster["source"] == "gateway"
    assert {"mood": "wrong", "text": "1 messages wait in KM_MODEL/gpu/interactive, and nobody takes them"} in cluster[
        "words"
    ]
    assert cluster["dead_letters"] == 1
    assert {each["service"] for each in cluster["services"]} == set(SERVICES)


@pytest.mark.requirement("status:without-a-gateway")
def test_status_hears_the_replicas_where_no_gateway_answers(run: Run) -> None:
    code, out, err = run("status", KITEMESH_URL=f"http://127.0.0.1:{free_port()}")
    assert err == ""
    assert code == 1
    assert "\nwrong: no gateway tells: the gateway does not answer at " in out
    assert "\x1b" not in out
    for service in SERVICES:
        assert re.search(rf"^{service} +{service}-", out, re.MULTILINE)


@pytest.mark.requirement("dead:commands")
def test_dead_letters_are_listed_shown_refused_and_dropped(run: Run) -> None:
    code, out, _ = run("dead", "list", "--json")
    (letter,) = json.loads(out)
    assert (code, letter["stream"], letter["turn"], letter["requeueable"]) == (0, "KM_EVENT", "nobody", False)
    code, out, _ = run("dead", "list", "--stream", "KM_MODEL")
    assert (code, out) == (0, "there are no dead letters of KM_MODEL\n")
    code, out, _ = run("dead", "show", letter["id"])
    assert code == 0
    assert f"requeue: no: {letter['why']}" in out
    code, out, err = run("dead", "requeue", letter["id"], "--json")
    assert (code, json.loads(out)) == (1, [])
    assert err.startswith(f"kitemesh: dead letter {letter['id']}: ")
    code, out, _ = run("dead", "drop", "--all")
    assert (code, out) == (0, f"dead letter {letter['id']} is dropped\n")
    assert run("dead", "list")[1] == "there are no dead letters\n"
    assert run("dead", "drop")[0] == 1
