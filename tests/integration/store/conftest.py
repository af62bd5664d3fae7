"""Every port on its three implementations: the memory twin, Motor and pymongo's asyncio client."""

import math
import uuid
from collections.abc import AsyncIterator, Iterator

import pymongo
import pytest
from bson.timestamp import Timestamp

from integration.store.backends import Backend, SteppedClock
from kitemesh_runtime.driver_mongo import Database, Driver, open_database
from kitemesh_runtime.indexes_mongo import ensure_indexes
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_memory import memory_stores
from kitemesh_runtime.stores_mongo import open_stores

_DATES = {
    "budgets": (
        *("requests.at", "tokens.at"),
        *(f"gateways.{name}.{field}" for name in ("one", "two", "three") for field in ("at", "until")),
    ),
    "conversations": ("active_until", "clear_at"),
    "claims": ("until",),
    "turns": ("touched_at", "updated_at", "look_at", "stored_at"),
    "usage": ("upto",),
    "usage_marks": ("upto", "until"),
    "holds": ("created_at", "expires_at", "due_at"),
    "ledger": ("dispatched_at",),
    "audit": ("at",),
    "keys": ("changed_at",),
    "tenants": ("changed_at",),
}


@pytest.fixture(scope="module")
def database_name(mongo_url: str) -> Iterator[str]:
    name = f"store_{uuid.uuid4().hex[:12]}"
    yield name
    with pymongo.MongoClient[dict[str, object]](mongo_url) as client:
        client.drop_database(name)


@pytest.fixture(params=["motor", "pymongo"])
async def database(request: pytest.FixtureRequest, mongo_url: str, database_name: str) -> AsyncIterator[Database]:
    driver: Driver = request.param
    async with open_database(mongo_url, name=database_name, driver=driver) as opened:
        yield opened


@pytest.fixture(params=["memory", "motor", "pymongo"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    if request.param == "memory":
        clock = SteppedClock()

        async def advance(seconds: float) -> None:
            clock.ms += int(seconds * 1000)

        yield Backend(memory_stores(clock), advance)
        return
    mongo_url, name = request.getfixturevalue("mongo_url"), request.getfixturevalue("database_name")
    async with open_database(mongo_url, name=name, driver=request.param) as database:
        await ensure_indexes(database)

        async def shift(seconds: float) -> None:
            for collection, fields in _DATES.items():
                for field in fields:
                    earlier = {"$subtract": [f"${field}", int(seconds * 1000)]}
                    dated = {field: {"$type": "date"}}
                    call = database.collection(collection).update_many(dated, [{"$set": {field: earlier}}])
                    await database.run(call)
            for name, field in (("conversations", "created_at"), ("turns", "stored_at")):
                stamped = database.collection(name)
                for inserted in await database.run(stamped.find({field: {"$type": "timestamp"}}).to_list(None)):
                    moment = inserted[field]
                    earlier_by_seconds = Timestamp(moment.time - math.ceil(seconds), moment.inc)
                    change = {"$set": {field: earlier_by_seconds}}
                    await database.run(stamped.update_one({"_id": inserted["_id"]}, change))

        async with open_stores(database) as stores:
            yield Backend(stores, shift)


@pytest.fixture
def stores(backend: Backend) -> Stores:
    return backend.stores


@pytest.fixture
def tenant() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def other(tenant: str) -> str:
    return f"{tenant}-other"


@pytest.fixture
def conversation() -> str:
    return f"c-{uuid.uuid4().hex[:12]}"
