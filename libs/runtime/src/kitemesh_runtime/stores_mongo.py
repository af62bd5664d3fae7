"""All the stores on one MongoDB database."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from kitemesh_runtime import audit_mongo, conversations_mongo, ledger_mongo, turns_mongo
from kitemesh_runtime.audit_mongo import MongoAudit
from kitemesh_runtime.blobs_mongo import MongoBlobs
from kitemesh_runtime.budgets_mongo import MongoBudgets
from kitemesh_runtime.claims_mongo import MongoClaims
from kitemesh_runtime.clock import Clock, SystemClock
from kitemesh_runtime.conversations_mongo import MongoConversations
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.holds_mongo import MongoHolds
from kitemesh_runtime.keys_mongo import MongoKeys
from kitemesh_runtime.knowledge_mongo import MongoKnowledge
from kitemesh_runtime.ledger_mongo import MongoLedger
from kitemesh_runtime.live_turns_mongo import MongoLiveTurns
from kitemesh_runtime.retention import Days, default_days
from kitemesh_runtime.retention_walks_mongo import MongoRetention
from kitemesh_runtime.rows_mongo import MongoRows
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.tenants_mongo import MongoTenants
from kitemesh_runtime.turns_mongo import MongoTurns
from kitemesh_runtime.usage_mongo import MongoUsages
from kitemesh_runtime.writer_mongo import GroupedWriter


@asynccontextmanager
async def open_stores(
    database: Database, clock: Clock | None = None, days: Days = default_days
) -> AsyncIterator[Stores]:
    """Open the stores; leaving writes what is still queued, for a bounded time.

    Args:
        database: Must stay open longer than the stores.
        clock: Gives ids; the machine's by default.
        days: Says how long what is stored is kept, asked with each write.

    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        inserts, changes, turn_inserts, turn_changes, ledger, audit = [
            await stack.enter_async_context(GroupedWriter(partial(database.write_group, collection)))
            for collection in (
                conversations_mongo.COLLECTION,
                conversations_mongo.COLLECTION,
                turns_mongo.COLLECTION,
                turns_mongo.COLLECTION,
                ledger_mongo.COLLECTION,
                audit_mongo.COLLECTION,
            )
        ]
        tenants = MongoTenants(database)
        live_turns = MongoLiveTurns(database, turn_changes, days)
        yield Stores(
            conversations=MongoConversations(database, inserts, changes, days),
            turns=MongoTurns(database, turn_inserts, clock, days),
            claims=MongoClaims(database, live_turns, days),
            keys=MongoKeys(database),
            blobs=MongoBlobs(database, clock, days),
            live_turns=live_turns,
            holds=MongoHolds(database, days),
            ledger=MongoLedger(database, ledger, days),
            audit=MongoAudit(database, audit, days),
            rows=MongoRows(database),
            knowledge=MongoKnowledge(database, clock),
            tenants=tenants,
            usage=MongoUsages(database, days),
            retention=MongoRetention(database, tenants),
            budgets=MongoBudgets(database),
        )
