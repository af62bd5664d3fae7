"""The driver file against a mongod that dies, freezes and comes back."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from kitemesh_cli import servers
from kitemesh_contracts.errors import BadRequest, Bug, Conflict, ErrorCode, Unavailable
from kitemesh_runtime.driver_mongo import Database, open_database, ping
from kitemesh_runtime.errors_mongo import translate_code, translate_group
from kitemesh_runtime.stores_mongo import open_stores
from kitemesh_runtime.turns import TurnRecord


class Mongod:
    """A server of the test's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = servers.free_port()
        self.start()

    def start(self) -> None:
        self.process = servers.start_mongod(self._folder / "data", self.port, self._folder / "log")
        servers.wait_listening(self.process, self.port, timeout_s=30, log=self._folder / "log")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Noted:
    """A dependency that remembers what it was told."""

    def __init__(self) -> None:
        self.is_up: bool | None = None
        self.reason = ""

    def mark_up(self) -> None:
        self.is_up = True

    def mark_down(self, reason: str, *, began_s: float | None = None) -> None:
        self.is_up, self.reason = False, reason


@pytest.fixture(scope="module")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    server = Mongod(tmp_path_factory.mktemp("mongod"))
    yield server
    server.stop()


@pytest.fixture
def noted() -> Noted:
    return Noted()


@pytest.fixture(params=["motor", "pymongo"])
async def fragile(request: pytest.FixtureRequest, mongod: Mongod, noted: Noted) -> AsyncIterator[Database]:
    url = f"mongodb://{servers.LOOPBACK}:{mongod.port}"
    async with open_database(url, name="fragile", driver=request.param, dependency=noted) as database:
        yield database


def _record(tenant: str, n: int) -> TurnRecord:
    return TurnRecord(id=f"{tenant}-{n}", tenant=tenant, status="completed", mode="classic", model="scripted")


async def _outcomes(database: Database, tenant: str) -> tuple[list[object], float]:
    """Ask for many things at once, more than there are connections; return the answers and how long the last took."""
    began = time.monotonic()
    async with open_stores(database) as stores:
        answers = await asyncio.gather(
            *(stores.turns.put(tenant, _record(tenant, n)) for n in range(50)),
            *(stores.turns.get(tenant, f"t-{n}") for n in range(30)),
            *(stores.conversations.take(tenant, f"c-{n}", "one", b"", max_waiting=1) for n in range(30)),
            return_exceptions=True,
        )
        return list(answers), time.monotonic() - began


def _kill(mongod: Mongod) -> None:
    mongod.stop()


def _freeze(mongod: Mongod) -> None:
    mongod.process.send_signal(signal.SIGSTOP)


def _thaw(mongod: Mongod) -> None:
    mongod.process.send_signal(signal.SIGCONT)


@pytest.mark.requirement("store:unavailable-in-time")
@pytest.mark.parametrize("fault", [(_kill, Mongod.start), (_freeze, _thaw)], ids=["killed", "frozen"])
async def test_everything_is_unavailable_within_three_seconds_and_works_again_by_itself(
    fragile: Database,
    mongod: Mongod,
    noted: Noted,
    tenant: str,
    fault: tuple[Callable[[Mongod], None], Callable[[Mongod], None]],
) -> None:
    break_it, heal_it = fault
    await ping(fragile)
    assert noted.is_up is True
    break_it(mongod)
    try:
        answers, took_s = await _outcomes(fragile, tenant)
    finally:
        heal_it(mongod)
    assert {type(answer) for answer in answers} == {Unavailable}
    assert {answer.code for answer in answers if isinstance(answer, Unavailable)} == {ErrorCode.STORE_DOWN}
    assert took_s < 3
    assert noted.is_up is False
    assert noted.reason
    async with asyncio.timeout(10):
        while not noted.is_up:
            try:
                await ping(fragile)
            except Unavailable:
                continue
    answers, _ = await _outcomes(fragile, tenant)
    assert not [answer for answer in answers if isinstance(answer, Exception)]


@pytest.mark.requirement("store:unavailable-in-time")
async def test_a_server_that_was_never_there_is_unavailable_within_three_seconds() -> None:
    began = time.monotonic()
    async with open_database(f"mongodb://{servers.LOOPBACK}:{servers.free_port()}", name="none") as database:
        with pytest.raises(Unavailable):
            await ping(database)
    assert time.monotonic() - began < 3


async def test_a_refused_write_means_that_the_server_is_up(fragile: Database, noted: Noted, tenant: str) -> None:
    collection = fragile.collection("any")
    await fragile.run(collection.insert_one({"_id": tenant}))
    noted.mark_down("before")
    with pytest.raises(Conflict) as raised:
        await fragile.run(collection.insert_one({"_id": tenant}))
    assert raised.value.code is ErrorCode.DUPLICATE
    assert raised.value.__cause__ is not None
    assert noted.is_up is True


async def test_what_was_never_sent_says_nothing_about_the_server(fragile: Database, noted: Noted) -> None:
    with pytest.raises(BadRequest):
        await fragile.run(fragile.collection("any").find_one({"_id": 2**70}))
    assert noted.is_up is None


async def test_a_command_that_the_server_does_not_know_is_a_bug_and_says_no_more_than_its_code(
    fragile: Database,
) -> None:
    with pytest.raises(Bug) as raised:
        await fragile.command({"noSuchCommand": "secret"})
    assert "secret" not in raised.value.message


async def test_giving_up_on_a_call_leaves_the_client_usable(fragile: Database, mongod: Mongod, tenant: str) -> None:
    await ping(fragile)
    _freeze(mongod)
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await fragile.run(fragile.collection("any").find_one({"_id": tenant}))
    finally:
        _thaw(mongod)
    await ping(fragile)


@pytest.mark.parametrize(
    ("code", "family"),
    [(11000, Conflict), (91, Unavailable), (10107, Unavailable), (50, Unavailable), (10334, BadRequest), (2, Bug)],
)
def test_a_servers_code_says_what_the_catcher_should_do(code: int, family: type[Exception]) -> None:
    assert type(translate_code(code)) is family


def test_a_group_without_promised_durability_is_unavailable_but_for_its_own_errors() -> None:
    details = {"writeErrors": [{"index": 1, "code": 11000}], "writeConcernErrors": [{"code": 64}]}
    assert {index: type(error) for index, error in translate_group(details, 3).items()} == {
        0: Unavailable,
        1: Conflict,
        2: Unavailable,
    }
