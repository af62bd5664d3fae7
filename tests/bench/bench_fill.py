"""Many open holds in little time: copies of everything that one real hold left in the stores, and its timer.

A copy differs in its ids alone, so it is what a turn would have left that was held by itself.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import bson
from bson.raw_bson import RawBSONDocument
from pymongo import InsertOne

from bench.bench_cluster import Cluster
from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import ApplyHold
from kitemesh_contracts.headers import hold_msg_id
from kitemesh_runtime import audit_mongo, conversations_mongo, holds_mongo, turns_mongo
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.driver_mongo import Database, open_database
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_mongo import open_stores

BATCH: Final = 500
SETTLE_S: Final = 3.0


class Filled:
    """A cluster whose one hold can be copied.

    Args:
        held: The answer that said that the turn is held.

    """

    def __init__(self, database: Database, stores: Stores, bus: NatsBus, held: Any) -> None:
        self._database: Final = database
        self._stores: Final = stores
        self._bus: Final = bus
        self._held: Final = held

    @classmethod
    @asynccontextmanager
    async def of(cls, cluster: Cluster, held: Any) -> AsyncIterator["Filled"]:
        """Open the cluster's stores and bus while inside."""
        environ = cluster.environment()
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(_open(environ))
            stores = await stack.enter_async_context(open_stores(database))
            bus = await stack.enter_async_context(open_bus(environ["KITEMESH_NATS_URL"], name="bench"))
            yield cls(database, stores, bus, held)

    async def count_open(self) -> int:
        """Count open holds."""
        return await self._stores.holds.count_open()

    async def copy(self, copies: int) -> list[Any]:
        """Copy the hold so often; return the answers that the copies' turns would have had."""
        told = self._held["kitemesh"]
        turn, hold, conversation = told["execution_id"], told["approval_id"], told["conversation_id"]
        call = self._held["choices"][0]["message"]["tool_calls"][0]["id"]
        found = {
            turns_mongo.COLLECTION: {"_id": turn},
            holds_mongo.COLLECTION: {"_id": hold},
            conversations_mongo.COLLECTION: {"_id": {"$regex": f":{conversation}$"}},
            audit_mongo.COLLECTION: {"subject": hold},
        }
        originals = {
            name: bson.encode(await self._database.run(self._database.collection(name).find_one(match)))
            for name, match in found.items()
        }
        original = await self._stores.holds.get(_tenant(originals), hold)
        if original is None:
            raise SystemExit("the hold is not in the store")
        answers: list[Any] = []
        for start in range(0, copies, BATCH):
            new = [
                {id_: str(uuid.uuid4()) for id_ in (turn, hold, conversation, call)}
                for _ in range(min(BATCH, copies - start))
            ]
            for name, document in originals.items():
                inserts = [InsertOne(RawBSONDocument(_renamed(document, ids))) for ids in new]
                if await self._database.write_group(name, inserts):
                    raise SystemExit(f"copies of {name} were refused")
            await asyncio.gather(
                *(self._schedule(original.tenant, ids[turn], ids[hold], original.expires_at_s) for ids in new)
            )
            answers += [json.loads(_renamed(json.dumps(self._held).encode(), ids)) for ids in new]
        return answers

    async def _schedule(self, tenant: str, turn: str, hold: str, at_s: float) -> None:
        """Set the timer that ends a hold, as the orchestrator does."""
        await self._bus.schedule(
            subjects.timer("hold", hold),
            subjects.timer_due("hold", hold),
            codec.encode(ApplyHold(turn=turn, tenant=tenant, hold=hold)),
            at_s=at_s,
            msg_id=hold_msg_id(hold, 0),
            timeout_s=30.0,
        )


async def settle(cluster: Cluster) -> None:
    """Have everything written that was put off, so that a measurement does not pay for what was before it."""
    async with _open(cluster.environment(), name="admin") as admin:
        await admin.command({"fsync": 1})
    await asyncio.sleep(SETTLE_S)


@asynccontextmanager
async def _open(environ: dict[str, str], name: str | None = None) -> AsyncIterator[Database]:
    chosen = name or environ["KITEMESH_MONGO_DATABASE"]
    async with open_database(environ["KITEMESH_MONGO_URL"], name=chosen, timeout_s=60.0) as database:
        yield database


def _renamed(content: bytes, ids: dict[str, str]) -> bytes:
    """Put new ids in the place of old ones; all are of one length, so the lengths inside stay right."""
    for old, new in ids.items():
        content = content.replace(old.encode(), new.encode())
    return content


def _tenant(originals: dict[str, bytes]) -> str:
    return str(bson.decode(originals[holds_mongo.COLLECTION])["tenant"])
