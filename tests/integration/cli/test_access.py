import json
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from kitemesh_cli import servers
from kitemesh_cli.access import ensure_access
from kitemesh_cli.children import Children
from kitemesh_cli.data_folder import DataFolder, read_environment
from kitemesh_cli.dev_servers import Servers, find_mongo, find_nats
from kitemesh_cli.failures import Failed
from kitemesh_cli.settings import DevSettings
from kitemesh_contracts.permissions import OPERATOR, SERVICES
from kitemesh_runtime.bus_nats import open_bus
from kitemesh_runtime.driver_mongo import open_database, ping
from real_servers import running_nats

DATABASE = "kitemesh"


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    made = DataFolder(tmp_path / "data")
    made.create()
    return made


def say(_: str) -> None:
    """Print nothing."""


@pytest.mark.requirement("access:bootstrap")
def test_files_for_servers_that_do_not_run_yet_are_written_once(run: Callable[..., Any], tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    first = run("bootstrap", "--access", str(kept), "--files-only")
    assert first.code == 0, first.err
    names = {"passwords.json", "nats-users.conf", "operator.env", *(f"{service}.env" for service in SERVICES)}
    assert {file.name for file in kept.iterdir()} == names
    assert all(file.stat().st_mode & 0o077 == 0 for file in (kept, *kept.iterdir()))
    assert f"wrote {kept / 'nats-users.conf'}" in first.out
    assert "include it in nats-server's configuration" in first.out
    before = {file.name: file.read_text() for file in kept.iterdir()}
    again = run("bootstrap", "--access", str(kept), "--files-only")
    assert (again.code, again.out) == (0, "everything is as it should be\n")
    assert {file.name: file.read_text() for file in kept.iterdir()} == before
    passwords = json.loads(before["passwords.json"])
    assert len({*passwords["nats"].values(), *passwords["mongo"].values()}) == 2 * (len(SERVICES) + 1)


@pytest.mark.requirement("access:bootstrap")
async def test_what_was_written_opens_a_server_that_includes_it(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    run("bootstrap", "--access", str(kept), "--files-only")
    with running_nats(tmp_path / "nats", more='include "../../kept/nats-users.conf"\n') as url:
        monkeypatch.setenv("KITEMESH_NATS_URL", url)
        assert run("bootstrap", "--access", str(kept), "--files-only").code == 0
        for user in (*SERVICES, OPERATOR):
            told = read_environment(kept / f"{user}.env")
            async with open_bus(told["KITEMESH_NATS_URL"], name=user, inbox_prefix=f"_INBOX.{user}") as bus:
                await bus.barrier()


@pytest.mark.requirement("access:bootstrap")
def test_bootstrap_makes_the_users_of_mongodb_and_again_changes_nothing(
    run: Callable[..., Any], tmp_path: Path, mongo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = f"access-{tmp_path.name[-20:]}"
    monkeypatch.setenv("KITEMESH_MONGO_DATABASE", database)
    first = run("bootstrap", "--access", str(tmp_path / "kept"))
    assert first.code == 0, first.err
    for service in SERVICES:
        assert f"created role kitemesh-{service}\ncreated user {service}\n".splitlines()[1] in first.out
        told = read_environment(tmp_path / "kept" / f"{service}.env")
        with MongoClient[dict[str, Any]](told["KITEMESH_MONGO_URL"]) as client:
            client[database]["turns"].find_one({})
    again = run("bootstrap", "--access", str(tmp_path / "kept"))
    assert (again.code, again.out) == (0, "everything is as it should be\n")


def test_files_alone_need_to_be_told_which(run: Callable[..., Any]) -> None:
    refused = run("bootstrap", "--files-only")
    assert (refused.code, refused.out) == (1, "")
    assert "--access DIR" in refused.err


def test_passwords_that_cannot_be_read_are_told_and_left_alone(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "passwords.json").write_text("{")
    refused = run("bootstrap", "--access", str(tmp_path), "--files-only")
    assert refused.code == 1
    assert "does not hold the passwords of the services" in refused.err
    assert (tmp_path / "passwords.json").read_text() == "{"


def test_a_services_variables_can_be_read_by_a_shell(run: Callable[..., Any], tmp_path: Path) -> None:
    run("bootstrap", "--access", str(tmp_path / "kept"), "--files-only")
    line = (tmp_path / "kept" / "gateway.env").read_text().splitlines()[0]
    (word,) = shlex.split(line)
    assert word.startswith("KITEMESH_NATS_URL=nats://gateway:")


@pytest.mark.requirement("access:one-machine")
async def test_data_from_before_there_were_users_is_kept_and_gets_an_operator_whose_password_must_not_be_lost(
    folder: DataFolder,
) -> None:
    port, log = servers.free_port(), folder.log("old")
    old = servers.start_mongod(folder.mongo, port, log)
    try:
        servers.wait_listening(old, port, timeout_s=30, log=log)
        with MongoClient[dict[str, Any]](f"mongodb://127.0.0.1:{port}/?directConnection=true") as client:
            client[DATABASE]["turns"].insert_one({"_id": "kept"})
    finally:
        old.send_signal(signal.SIGTERM)
        old.wait(20)
    access = ensure_access(folder.access)
    for _start in ("first", "again"):
        async with Children(say) as children:
            nats = await find_nats(DevSettings(), folder, children, access)
            mongo = await find_mongo(DevSettings(), folder, children, access)
            bus_url, store_url = Servers(nats, mongo, access).operator_urls()
            async with open_database(store_url, name=DATABASE, driver="pymongo") as database:
                await ping(database)
                assert await database.run(database.collection("turns").find_one({})) == {"_id": "kept"}
            async with open_bus(bus_url, name="operator") as bus:
                await bus.barrier()

    folder.access.unlink()
    async with Children(say) as children:
        with pytest.raises(Failed, match=r"MongoDB's data has users, and .*access\.json does not hold their passwords"):
            await find_mongo(DevSettings(), folder, children, ensure_access(folder.access))
