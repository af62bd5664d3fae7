"""`kitemesh doctor` where servers do not answer, do not know it, or are not what they should be."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kitemesh_cli import doctor_access, doctor_probe_bus, doctor_store_mongo
from kitemesh_cli.data_folder import DataFolder, write_environment
from kitemesh_cli.dev_catalog import packaged_text
from kitemesh_cli.doctor_findings import Verdict, judge
from kitemesh_cli.doctor_probe import gather_facts
from kitemesh_cli.failures import Failed
from kitemesh_cli.processes import spawn
from kitemesh_cli.servers import LOOPBACK, free_port, nats_binary, wait_listening
from real_servers import running_mongod, running_nats

USERS = """authorization {users: [
  {user: "operator", password: "right"},
  {user: "service", password: "right", permissions: {publish: {deny: "$JS.API.>"}}}
]}
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What refuses or is not there is on this machine: half the time is enough to see it."""
    for module in (doctor_probe_bus, doctor_access):
        monkeypatch.setattr(module, "CONNECT_S", 0.75)
    for module in (doctor_store_mongo, doctor_access):
        monkeypatch.setattr(module, "SELECT_S", 0.75)


@pytest.fixture(scope="module")
def guarded_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A nats-server that knows one user, and has no streams."""
    with running_nats(tmp_path_factory.mktemp("nats"), more=USERS) as url:
        yield url


@pytest.fixture(scope="module")
def core_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A nats-server without JetStream."""
    folder, port = tmp_path_factory.mktemp("core-nats"), free_port()
    process = spawn([str(nats_binary()), "-a", LOOPBACK, "-p", str(port)], folder / "log")
    try:
        wait_listening(process, port, timeout_s=15, log=folder / "log")
        yield f"nats://{LOOPBACK}:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def mongo_without_primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A mongod of a replica set that elected nobody."""
    with running_mongod(tmp_path_factory.mktemp("mongo"), "--replSet", "rs0") as url:
        yield url


def look(folder: Path, access: Path | None = None, **environ: str) -> dict[str, Verdict]:
    """Return what is wrong, by check; nobody is listened to for long."""
    catalog = folder / "catalog.yaml"
    if not catalog.exists():
        catalog.write_text(packaged_text())
    told = {
        "KITEMESH_CATALOG": str(catalog),
        "KITEMESH_KEY_PEPPER": "a pepper for the tests",
        "KITEMESH_URL": f"http://{LOOPBACK}:{free_port()}",
        **environ,
    }
    facts = asyncio.run(gather_facts(DataFolder(folder / "none"), access, told, listen_s=0.0))
    return {each.check: each for each in judge(facts) if each.level not in {"ok", "untold"}}


def test_servers_that_do_not_answer_and_what_is_wrong_here_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_store_mongo, "TIMEOUT_S", 0.5)
    (tmp_path / "catalog.yaml").write_text("models: {m: {provider: nobody}}\n")
    found = look(
        tmp_path,
        KITEMESH_NATS_URL=f"nats://operator:secret@{LOOPBACK}:{free_port()}",
        KITEMESH_MONGO_URL=f"mongodb://operator:secret@{LOOPBACK}:{free_port()}",
        KITEMESH_KEY_PEPPER="short",
    )
    assert list(found) == ["nats.reachable", "mongodb.reachable", "pepper", "catalog", "gateway"]
    assert "secret" not in str(found)


def test_a_user_that_nats_does_not_know_and_a_set_without_a_primary_are_named(
    tmp_path: Path, guarded_nats: str, mongo_without_primary: str
) -> None:
    found = look(
        tmp_path,
        KITEMESH_NATS_URL=guarded_nats.replace("//", "//operator:wrong@"),
        KITEMESH_MONGO_URL=mongo_without_primary,
    )
    assert list(found) == ["nats.user", "mongodb.primary", "gateway"]


def test_jetstream_that_is_off_and_an_empty_database_are_named(
    tmp_path: Path, core_nats: str, mongo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_probe_bus, "ASK_S", 0.5)
    found = look(
        tmp_path,
        KITEMESH_NATS_URL=core_nats,
        KITEMESH_MONGO_URL=mongo_url,
        KITEMESH_MONGO_DATABASE=f"doctor-{os.getpid()}",
        KITEMESH_MONGO_DRIVER="pymongo",
    )
    assert list(found) == ["nats.jetstream", "mongodb.indexes", "services.present", "gateway"]


def test_services_whose_passwords_are_wrong_are_named(tmp_path: Path, guarded_nats: str, mongo_url: str) -> None:
    access = tmp_path / "access"
    access.mkdir()
    wrong = {"KITEMESH_NATS_URL": guarded_nats.replace("//", "//gateway:wrong@")}
    right = {"KITEMESH_NATS_URL": guarded_nats.replace("//", "//operator:right@")}
    for service in ("gateway", "orchestrator", "model-runner", "tool-executor"):
        store = {"KITEMESH_MONGO_URL": mongo_url}
        write_environment(access / f"{service}.env", {**(wrong if service == "gateway" else right), **store})
    found = look(
        tmp_path,
        access,
        KITEMESH_NATS_URL=right["KITEMESH_NATS_URL"],
        KITEMESH_MONGO_URL=mongo_url,
        KITEMESH_MONGO_DATABASE=f"doctor-{os.getpid()}",
    )
    assert [each.about for each in found["access.nats"].findings] == ["gateway"]
    assert found["access.nats"].findings[0].problem == "NATS refuses its user"
    assert "access.mongodb" not in found
    assert len(found["nats.streams"].findings) == 9


def test_a_folder_that_holds_no_variables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"has no gateway\.env, orchestrator\.env"):
        look(tmp_path, tmp_path)


def test_a_service_is_never_tried_with_what_the_operator_signs_in_with(tmp_path: Path, guarded_nats: str) -> None:
    for service in ("gateway", "orchestrator", "model-runner", "tool-executor"):
        write_environment(tmp_path / f"{service}.env", {"KITEMESH_NATS_URL": guarded_nats})
    with pytest.raises(Failed, match=r"gateway\.env has no KITEMESH_MONGO_URL; "):
        look(tmp_path, tmp_path)


def test_a_user_that_may_not_ask_nats_is_named(tmp_path: Path, guarded_nats: str, mongo_url: str) -> None:
    user = guarded_nats.replace("//", "//service:right@")
    found = look(tmp_path, KITEMESH_NATS_URL=user, KITEMESH_MONGO_URL=mongo_url)
    (finding,) = found["nats.user"].findings
    assert "does not let this service publish to $JS.API." in finding.problem


def test_addresses_that_cannot_be_used_are_named_and_show_no_password(tmp_path: Path) -> None:
    access = tmp_path / "access"
    access.mkdir()
    for service in ("gateway", "orchestrator", "model-runner", "tool-executor"):
        urls = {"KITEMESH_NATS_URL": "nats://s:se/cret@h:1", "KITEMESH_MONGO_URL": "mongodb://s:se/cret@h:1"}
        write_environment(access / f"{service}.env", urls)
    found = look(
        tmp_path,
        access,
        KITEMESH_NATS_URL=f"nats://operator:secret@{LOOPBACK}:{free_port()}",
        KITEMESH_MONGO_URL=f"mongodb://operator:secret@{LOOPBACK}:{free_port()}/?tls=true&tlsCAFile=/none/ca.pem",
        KITEMESH_URL=f"http://proxy:secret@{LOOPBACK}:{free_port()}",
        KITEMESH_KEY="km_of_nobody",
    )
    assert list(found) == ["nats.reachable", "mongodb.reachable", "gateway"]
    assert found["mongodb.reachable"].findings[0].problem.endswith("No such file or directory: /none/ca.pem")
    assert found["gateway"].findings[0].about.startswith("http://proxy:***@")
    assert "secret" not in str(found)
    assert "se/cret" not in str(found)
