"""Every service's own user on a real mongod, against every collection and everything that is done to one."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from integration.access.guarded import DATABASE, Guarded
from kitemesh_contracts.errors import Bug, Unavailable
from kitemesh_contracts.permissions import OPERATOR, SERVICES, ServiceName
from kitemesh_runtime.access_mongo import ensure_access, is_signed_in, make_first_user
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.driver_mongo import Database, open_database
from kitemesh_runtime.metrics import STORE_DENIED
from kitemesh_runtime.roles_mongo import ROLES

COLLECTIONS = sorted({collection for role in ROLES.values() for collection in role})

Deed = Callable[[Any], Awaitable[Any]]

DEEDS: Final[dict[str, Deed]] = {
    "find": lambda collection: collection.find_one({"_id": "x"}),
    "insert": lambda collection: collection.insert_many([{"n": 1}]),
    "update": lambda collection: collection.update_one({"_id": "x"}, {"$set": {"n": 2}}),
    "remove": lambda collection: collection.delete_one({"_id": "x"}),
    "listIndexes": lambda collection: collection.index_information(),
    "createIndex": lambda collection: collection.create_index("n"),
    "dropCollection": lambda collection: collection.drop(),
}


async def done(database: Database, collection: str, deed: str) -> bool:
    """Do it, and tell whether it was allowed."""
    try:
        await database.run(DEEDS[deed](database.collection(collection)))
    except Bug:
        return False
    return True


@pytest.mark.requirement("access:store")
@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_can_do_what_its_role_lists_and_nothing_else(
    guarded_mongo: Guarded, service: ServiceName
) -> None:
    async with open_database(guarded_mongo.store(service), name=DATABASE, driver="pymongo") as database:
        for collection in (*COLLECTIONS, "another", "system.users"):
            for deed in DEEDS:
                expected = deed in ROLES[service].get(collection, ())
                assert await done(database, collection, deed) is expected, f"{deed} {collection}"


@pytest.mark.parametrize("service", SERVICES)
async def test_no_service_reaches_another_database_or_manages_users(
    guarded_mongo: Guarded, service: ServiceName
) -> None:
    async with open_database(guarded_mongo.store(service), name=f"{DATABASE}-2", driver="pymongo") as other:
        assert not await done(other, "turns", "find")
    async with open_database(guarded_mongo.store(service), name=DATABASE, driver="pymongo") as database:
        with pytest.raises(Bug):
            await ensure_access(database, {})
        with pytest.raises(Bug):
            await database.command({"updateUser": service, "roles": ["readWrite"]})


@pytest.mark.requirement("access:denied-is-no-outage")
async def test_what_is_denied_is_counted_and_logged_without_content_and_is_no_outage(
    guarded_mongo: Guarded, dependency: Dependency
) -> None:
    before = STORE_DENIED._value.get()
    url = guarded_mongo.store("tool-executor")
    async with open_database(url, name=DATABASE, driver="pymongo", dependency=dependency) as database:
        with capture_logs() as logs, pytest.raises(Bug, match="does not let this service find keys") as raised:
            await database.run(database.collection("keys").find_one({"digest": "a secret"}))
    assert dependency.is_up
    assert STORE_DENIED._value.get() == before + 1
    assert logs == [{"event": "store.denied", "log_level": "error", "command": "find", "collection": "keys"}]
    assert "secret" not in raised.value.message


@pytest.mark.requirement("access:again")
async def test_several_may_grant_at_the_same_time(mongo_url: str) -> None:
    passwords = dict.fromkeys(SERVICES, "a password of all of them")
    async with open_database(mongo_url, name="granted_at_once", driver="pymongo") as database:
        try:
            await asyncio.gather(*(ensure_access(database, passwords) for _ in range(3)))
            assert await ensure_access(database, passwords) == []
        finally:
            await database.command({"dropAllUsersFromDatabase": 1})
            await database.command({"dropAllRolesFromDatabase": 1})


@pytest.mark.requirement("access:again")
async def test_granting_again_changes_nothing_and_what_differs_is_set_right(guarded_mongo: Guarded) -> None:
    passwords = {service: guarded_mongo.access.mongo[service] for service in SERVICES}
    async with open_database(guarded_mongo.store(OPERATOR), name=DATABASE, driver="pymongo") as database:
        assert await ensure_access(database, passwords) == []
        everything = [{"resource": {"db": DATABASE, "collection": ""}, "actions": ["find", "insert"]}]
        await database.command({"updateRole": "kitemesh-gateway", "privileges": everything, "roles": ["readWrite"]})
        await database.command({"updateUser": "model-runner", "roles": ["readWrite"]})
        assert await ensure_access(database, passwords) == [
            "changed role kitemesh-gateway",
            "changed user model-runner",
        ]
        changed = {**passwords, "gateway": "another password"}
        assert await ensure_access(database, changed) == ["changed user gateway"]
        async with open_database(guarded_mongo.store("gateway"), name=DATABASE, driver="pymongo") as gateway:
            assert not await is_signed_in(gateway)
        assert await ensure_access(database, passwords) == ["changed user gateway"]
        async with open_database(guarded_mongo.store("gateway"), name=DATABASE, driver="pymongo") as gateway:
            assert await is_signed_in(gateway)


async def test_who_has_no_password_reads_nothing_and_makes_no_user(guarded_mongo: Guarded) -> None:
    async with open_database(guarded_mongo.url, name=DATABASE, driver="pymongo") as stranger:
        assert not await done(stranger, "turns", "find")
    async with open_database(guarded_mongo.url, name="admin", driver="pymongo") as admin:
        with pytest.raises(Bug):
            await make_first_user(admin, "mallory", "secret")
    wrong = guarded_mongo.store("gateway").replace(guarded_mongo.access.mongo["gateway"], "wrong")
    async with open_database(wrong, name=DATABASE, driver="pymongo") as stranger:
        with pytest.raises(Unavailable):
            await stranger.run(stranger.collection("turns").find_one({}))
