"""The tool ledger in MongoDB: the insert of a row is the dispatch, everything after it a compare-and-set.

The document is the row with `id` as `_id`; it goes by retention, `dispatched_at`, and by nothing else.
"""

from typing import Any, Final

import msgspec
from pymongo import DESCENDING, ReturnDocument

from kitemesh_contracts.content import CallResult
from kitemesh_contracts.errors import Bug, Conflict, ErrorCode, NotFound
from kitemesh_runtime.documents_mongo import (
    ABSENT,
    Document,
    Pipeline,
    encode,
    from_document,
    literal,
    take_time,
    to_document,
    write,
)
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.errors_mongo import duplicate
from kitemesh_runtime.ledger import GIVEN_UP, LedgerRow
from kitemesh_runtime.retention import Days, default_days
from kitemesh_runtime.retention_mongo import KEPT, kept_for
from kitemesh_runtime.writer_mongo import GroupedWriter

COLLECTION: Final = "ledger"

_IS_DISPATCHED: Final[Document] = {"$eq": ["$state", "dispatched"]}


class MongoLedger:
    """The `Ledger` port on MongoDB.

    Args:
        database: Where it is.
        writer: Writes new rows.
        days: How long they are kept.

    """

    def __init__(self, database: Database, writer: GroupedWriter, days: Days = default_days) -> None:
        self._run = database.run
        self._collection = database.collection(COLLECTION)
        self._writer = writer
        self._days = days

    async def dispatch(self, tenant: str, row: LedgerRow) -> LedgerRow:
        """Insert a row as `dispatched` (or `cancelled`, to win against a dispatch); grouped."""
        if row.tenant != tenant:
            raise Bug("a call was to be dispatched for another tenant than its own")
        encoded = encode(to_document(row))
        dated = ("dispatched_at",) if row.state == "dispatched" else ("dispatched_at", "ended_at")
        kept = {KEPT: kept_for(self._days(tenant, "ledger"))}
        operation = write(row.id, encoded, when=ABSENT, dated=dated, also=kept)
        try:
            await self._writer.submit(operation, size_bytes=len(encoded.raw))
        except Conflict as exc:
            stored = await self._read_settled(tenant, row.id)
            if stored is None:
                raise duplicate() from exc
            if stored.args_sha256 != row.args_sha256 and "cancelled" not in (stored.state, row.state):
                raise duplicate() from exc
            return stored
        return row

    async def get(self, tenant: str, call: str) -> LedgerRow | None:
        """Return the row."""
        document = await self._run(self._collection.find_one({"_id": call, "tenant": tenant}))
        return None if document is None else _decode(document)

    async def finish(self, tenant: str, call: str, by: str, result: CallResult) -> LedgerRow:
        """Store the result of the caller's dispatch and return the row; after `unknown` it is kept as late."""
        mine = {"by": by, "state": {"$in": ["dispatched", "unknown"]}, "result": None}
        finished = {
            "result": literal(msgspec.to_builtins(result)),
            "late": {"$not": [_IS_DISPATCHED]},
            "state": {"$cond": [_IS_DISPATCHED, "finished", "$state"]},
            "ended_at": {"$cond": [_IS_DISPATCHED, "$$NOW", "$ended_at"]},
        }
        return await self._change(tenant, call, mine, [{"$set": finished}])

    async def take_over(self, tenant: str, row: LedgerRow, by: str) -> LedgerRow:
        """Make a `dispatched` row, as it was seen, the caller's, to run a `keyed` call again; return what is stored."""
        return await self._change(tenant, row.id, _as_seen(row), {"$set": {"by": by}})

    async def give_up(self, tenant: str, row: LedgerRow) -> LedgerRow:
        """Make a `dispatched` row, as it was seen, `unknown`; return what is stored."""
        unknown = {"$set": {"state": "unknown"}, "$currentDate": {"ended_at": True}}
        return await self._change(tenant, row.id, _as_seen(row), unknown)

    async def reopen(self, tenant: str, call: str) -> None:
        """Remove a row that is `cancelled` by `GIVEN_UP`, so that the call may begin; any other stays."""
        stopped = {"_id": call, "tenant": tenant, "state": "cancelled", "by": GIVEN_UP}
        await self._run(self._collection.delete_one(stopped))

    async def unknown(self, tenant: str, *, limit: int = 100) -> list[LedgerRow]:
        """Return calls whose outcome is unknown, newest first."""
        newest = [("dispatched_at", DESCENDING), ("_id", DESCENDING)]
        found = self._collection.find({"tenant": tenant, "state": "unknown"}).sort(newest).limit(limit)
        return [_decode(document) for document in await self._run(found.to_list(limit))]

    async def _change(self, tenant: str, call: str, match: Document, update: Document | Pipeline) -> LedgerRow:
        row = await self._update({"_id": call, "tenant": tenant, **match}, update)
        row = await self._read_settled(tenant, call) if row is None else row
        if row is None:
            raise NotFound(ErrorCode.EXECUTION_UNKNOWN, "there is no such call")
        return row

    async def _read_settled(self, tenant: str, call: str) -> LedgerRow | None:
        """Read what is on the majority: a write that changes nothing waits for it, and a read does not.

        A dispatch that the majority did not have would be the caller's own today and nobody's after a failover.
        """
        return await self._update({"_id": call, "tenant": tenant}, {"$set": {"tenant": tenant}})

    async def _update(self, match: Document, update: Document | Pipeline) -> LedgerRow | None:
        call: Any = self._collection.find_one_and_update(match, update, return_document=ReturnDocument.AFTER)
        document: Document | None = await self._run(call)
        return None if document is None else _decode(document)


def _as_seen(row: LedgerRow) -> Document:
    return {"state": "dispatched", "by": row.by}


def _decode(document: Document) -> LedgerRow:
    take_time(document, "dispatched_at", "dispatched_at_s")
    take_time(document, "ended_at", "ended_at_s")
    return from_document(document, LedgerRow)
