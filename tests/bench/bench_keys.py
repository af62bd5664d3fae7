"""What a key costs where there are ten of them and ten tenants, beside 100,000 keys of 10,000 tenants, in one run.

In this process on the cluster's MongoDB: a known key, a key that is looked up, and what keeping up with changes takes
while nothing changes. Both sizes are measured in turn, so that whatever else the machine does strikes both alike.
"""

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec
from pymongo import InsertOne

from bench.bench_cluster import Cluster
from bench.bench_measures import quantile
from bench.bench_table import say
from kitemesh_gateway.address_limit import AddressLimit
from kitemesh_gateway.auth import Authenticator
from kitemesh_runtime import keyring, keys_mongo, tenants_mongo
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.directory import Directory
from kitemesh_runtime.driver_mongo import Database, open_database
from kitemesh_runtime.indexes_mongo import ensure_indexes
from kitemesh_runtime.keys import KeyRecord
from kitemesh_runtime.keys_mongo import MongoKeys
from kitemesh_runtime.tenancy import Limits, TenantRecord
from kitemesh_runtime.tenants_mongo import MongoTenants

SIZES: Final = {"few": (10, 10), "many": (100_000, 10_000)}
"""Keys, and tenants."""
PEPPER: Final = b"pepper-of-the-bench"
ROUNDS: Final = 5
KNOWN: Final = 4_000
LOOKED_UP: Final = 200
QUESTIONS: Final = 20
AT_ONCE: Final = 64
BATCH: Final = 1_000
_US: Final = 1e6


class Door(NamedTuple):
    """A gateway's authenticator, and the keys that it is to know.

    Attributes:
        bearers: `Authorization` headers.

    """

    authenticator: Authenticator
    directory: Directory
    bearers: list[str]


class PrefilledKeys(MongoKeys):
    """The store, with what it is to be asked for first at hand, since asking it for 100,000 keys takes minutes."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.at_hand: dict[str, KeyRecord] = {}

    async def find(self, digest: str) -> KeyRecord | None:
        """Return the key with that digest."""
        return self.at_hand.get(digest) or await super().find(digest)


async def measure(cluster: Cluster) -> dict[str, Any]:
    """Measure both sizes."""
    environ = cluster.environment()
    figures: dict[str, dict[str, list[float]]] = {size: {} for size in SIZES}
    async with AsyncExitStack() as stack:
        doors = {
            size: await stack.enter_async_context(_opened(environ["KITEMESH_MONGO_URL"], size, *counts))
            for size, counts in SIZES.items()
        }
        drawn = random.Random(6)
        for _ in range(ROUNDS):
            for size, door in doors.items():
                for name, values in (await _round(door, drawn)).items():
                    figures[size].setdefault(name, []).extend(values)
    found = {
        size: {name: round(quantile(values, 0.5), 2) for name, values in taken.items()}
        for size, taken in figures.items()
    }
    many, few = found["many"], found["few"]
    return {
        "keys": SIZES["many"][0],
        "tenants": SIZES["many"][1],
        **found,
        "ratio": {name: round(many[name] / few[name], 2) for name in many},
    }


async def _round(door: Door, drawn: random.Random) -> dict[str, list[float]]:
    await door.authenticator.confirm()
    await door.directory.refresh()
    known = [await _timed(door, bearer) for bearer in drawn.choices(door.bearers, k=KNOWN)]
    looked_up = []
    for bearer in drawn.choices(door.bearers, k=LOOKED_UP):
        door.authenticator.forget(keyring.parse(bearer.removeprefix("Bearer ")) or "")
        looked_up.append(await _timed(door, bearer))
    began = time.process_time()
    for _ in range(QUESTIONS):
        await door.authenticator.confirm()
        await door.directory.refresh()
    return {
        "known_us": known,
        "looked_up_us": looked_up,
        "keeping_up_us": [(time.process_time() - began) / QUESTIONS * _US],
    }


async def _timed(door: Door, bearer: str) -> float:
    began = time.perf_counter()
    await door.authenticator.identify((bearer,))
    return (time.perf_counter() - began) * _US


@asynccontextmanager
async def _opened(url: str, size: str, keys: int, tenants: int) -> AsyncIterator[Door]:
    say(f"{keys:,} keys of {tenants:,} tenants")
    clock = SystemClock()
    async with open_database(url, name=f"bench-keys-{size}", timeout_s=60.0) as database:
        await ensure_indexes(database)
        store = PrefilledKeys(database)
        bearers = await _fill(database, store.at_hand, keys, tenants)
        directory = Directory(MongoTenants(database), clock)
        store_state = Dependency("mongodb", clock=clock)
        store_state.mark_up()
        authenticator = Authenticator(
            store,
            directory,
            PEPPER,
            clock,
            anonymous=None,
            store_state=store_state,
            addresses=AddressLimit(0, 0, clock),
        )
        keeping_up = asyncio.gather(directory.run(), authenticator.run())
        await directory.refresh()
        for start in range(0, keys, AT_ONCE):
            await asyncio.gather(*(authenticator.identify((each,)) for each in bearers[start : start + AT_ONCE]))
        keeping_up.cancel()
        await asyncio.gather(keeping_up, return_exceptions=True)
        store.at_hand.clear()
        gc.collect()
        try:
            yield Door(authenticator, directory, bearers)
        finally:
            await database.command({"dropDatabase": 1})


async def _fill(database: Database, at_hand: dict[str, KeyRecord], keys: int, tenants: int) -> list[str]:
    # An hour ago, as it is with most of them: what has just changed is told anew for some seconds.
    changed_at = datetime.now(UTC) - timedelta(hours=1)
    said: list[Any] = []
    for n in range(tenants):
        record = TenantRecord(id=f"tenant-{n}", limits=Limits(requests_per_minute=600 + n))
        document = msgspec.to_builtins(record)
        said.append(InsertOne({**document, "_id": document.pop("id"), "changed_at": changed_at}))
    made: list[Any] = []
    bearers: list[str] = []
    for n in range(keys):
        key = keyring.make(n.to_bytes(8, "big") + (n + 1).to_bytes(32, "big"))
        bearers.append(f"Bearer {key.text}")
        record = KeyRecord(
            id=key.id,
            tenant=f"tenant-{n % tenants}",
            digest=keyring.digest(key.text, PEPPER),
            scopes=("chat",),
            created_at_s=1_750_000_000.0 + n,
            name=f"key {n}",
            default_agent="assistant",
        )
        at_hand[record.digest] = record
        document = msgspec.to_builtins(record)
        made.append(InsertOne({**document, "_id": document.pop("id"), "changed_at": changed_at}))
    for collection, operations in ((tenants_mongo.COLLECTION, said), (keys_mongo.COLLECTION, made)):
        for start in range(0, len(operations), BATCH):
            failed = await database.write_group(collection, operations[start : start + BATCH])
            if failed:
                raise SystemExit(f"could not fill {collection}: {failed}")
    return bearers
