"""Ended turns in MongoDB: one document a turn, its messages embedded, inserted in groups.

The document is the record itself with `id` as `_id`, and `stored_at`, by which it is counted. The collection also holds
the turns that have not ended, which `live_turns_mongo` writes and which are marked `live`, and, for an hour, what keeps
a turn that was erased from being written again: its `_id` and its tenant, marked `deleted`, and its `bill`.
"""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bson.timestamp import Timestamp
from pymongo import DESCENDING, InsertOne

from kitemesh_contracts.content import Usage
from kitemesh_contracts.errors import Bug, Conflict, ErrorCode
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.documents_mongo import ABSENT, Document, Pipeline, encode, from_document, literal, to_document
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.retention import Days, default_days
from kitemesh_runtime.retention_mongo import KEPT, TOMBSTONE
from kitemesh_runtime.rows import rows_of
from kitemesh_runtime.turns import Erased, TurnRecord
from kitemesh_runtime.usage import bill_of
from kitemesh_runtime.writer_mongo import GroupedWriter

COLLECTION: Final = "turns"
DELETED: Final = "deleted"
STORED: Final = "stored_at"
"""When the end of a turn was stored, by the server's clock: a timestamp where it was inserted, else a date."""
BILL: Final = "bill"
"""What an erased turn cost, which is all that is left of it."""
_ENDED: Final[Document] = {"live": None, DELETED: None}
_WHAT_IT_IS: Final[Document] = {"live": 1, DELETED: 1, BILL: 1}
_LEFT_BEHIND: Final[Document] = {"message": 1, "rows": 1, "input.parts.blob": 1, "steps.results.blob": 1}


class MongoTurns:
    """The `Turns` port on MongoDB.

    Args:
        database: Where they are.
        writer: Inserts them.
        clock: Dates how long they are kept.
        days: How long that is.

    """

    def __init__(self, database: Database, writer: GroupedWriter, clock: Clock, days: Days = default_days) -> None:
        self._run = database.run
        self._collection = database.collection(COLLECTION)
        self._writer = writer
        self._clock = clock
        self._days = days

    async def put(self, tenant: str, record: TurnRecord) -> None:
        """Store an ended turn; grouped. The first one stored under an id stays; a live one is not ended here.

        Raises:
            Conflict: The turn is live (`store.stale`), or the id is another tenant's (`store.duplicate`).
            BadRequest: It is too large, or holds text that cannot be stored.

        """
        if record.tenant != tenant:
            raise Bug("a turn was to be stored for another tenant than its own")
        document = to_document(record)
        note_rows(document, record)
        # The server fills it in; an expression over its clock would be an upsert, which costs ten times as much.
        document[STORED] = Timestamp(0, 0)
        days = timedelta(days=self._days(tenant, "turns"))
        document[KEPT] = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC) + days
        encoded = encode(document)
        try:
            await self._writer.submit(InsertOne(encoded), size_bytes=len(encoded.raw))
        except Conflict as exc:
            found = await self._run(self._collection.find_one({"_id": record.id, "tenant": tenant}, _WHAT_IT_IS))
            if found is None:
                raise
            if "live" in found:
                raise Conflict(ErrorCode.STALE, "it has not ended") from exc
            if DELETED in found and BILL not in found:
                unbilled = {"_id": record.id, "tenant": tenant, DELETED: True, BILL: None}
                billed = {"$set": {BILL: bill(record)}, "$currentDate": {STORED: True}}
                await self._run(self._collection.update_one(unbilled, billed))

    async def get(self, tenant: str, turn: str) -> TurnRecord | None:
        """Return the turn, or `None`."""
        document = await self._run(self._collection.find_one({"_id": turn, "tenant": tenant, **_ENDED}))
        return None if document is None else from_document(document, TurnRecord)

    async def recent(self, tenant: str, conversation: str, *, limit: int) -> list[TurnRecord]:
        """Return the newest `limit` turns in which a model said or did something, oldest first."""
        if limit < 1:
            return []
        spoke = [{"answer": {"$exists": True}}, {"steps": {"$exists": True}}]
        answered = {"tenant": tenant, "conversation": conversation, "live": None, "$or": spoke}
        newest = self._collection.find(answered).sort("ordinal", DESCENDING).limit(limit)
        documents = await self._run(newest.to_list(limit))
        return [from_document(document, TurnRecord) for document in reversed(documents)]

    async def erase(
        self, tenant: str, *, conversation: str | None = None, agent: str | None = None, limit: int = 500
    ) -> list[Erased]:
        """Empty turns, live and ended, and return what they leave."""
        if conversation is None and agent is None:
            raise Bug("turns are erased of a conversation or of an agent")
        match: Document = {"tenant": tenant, DELETED: None}
        if conversation is not None:
            match["conversation"] = conversation
        if agent is not None:
            match |= {"agent": agent, "rows": {"$gte": 0}, "live": None}
        found = await self._run(self._collection.find(match, _LEFT_BEHIND).limit(limit).to_list(limit))
        if found:
            named = {**match, "_id": {"$in": [document["_id"] for document in found]}}
            mine = uuid.uuid4().hex if agent is not None else ""
            done = await self._run(self._collection.update_many(named, _erase(tenant, mine)))
            if mine and done.modified_count < len(found):
                # Somebody else erased some of them in between: each is one's only.
                mine_only = {"_id": named["_id"], "tenant": tenant, "by": mine}
                erased = await self._run(self._collection.find(mine_only, {"_id": 1}).to_list(None))
                ids = {document["_id"] for document in erased}
                found = [document for document in found if document["_id"] in ids]
        return [
            Erased(document["_id"], document.get("message", ""), _blobs_in(document), document.get("rows", 0))
            for document in found
        ]

    async def bury(self, tenant: str, turn: str) -> None:
        """Have a turn count as erased that is not stored so far; one that is stored stays."""
        if_absent: Any = [{"$replaceWith": {"$cond": [ABSENT, _tombstone(tenant), "$$ROOT"]}}]
        await self._run(self._collection.update_one({"_id": turn}, if_absent, upsert=True))


def note_rows(document: Document, turn: LiveTurn | TurnRecord) -> None:
    """Note how many rows a turn is shown as, where it is shown as rows: they are counted and found by that."""
    if turn.row:
        document["rows"] = len(rows_of(turn))


_IS_LIVE: Final[Document] = {"$eq": ["$live", True]}
_HAS_SERVED: Final[Document] = {"$and": [{"$not": [_IS_LIVE]}, {"$gt": ["$served_by", ""]}]}
# Only one that was requeued says what was counted of it before; its record has a bill.
_WAS_BILLED: Final[Document] = {"$and": [_IS_LIVE, {"$eq": [{"$type": "$billed"}, "object"]}]}
_UNBILLED: Final[Document] = {
    name: {"$max": [0, {"$subtract": [{"$ifNull": [f"$usage.{name}", 0]}, {"$ifNull": [f"$billed.{name}", 0]}]}]}
    for name in Usage.__struct_fields__
}
_BILLED: Final[Document] = {
    STORED: {"$cond": [_IS_LIVE, "$$NOW", f"${STORED}"]},
    # Not its `status`: no list must find it.
    BILL: {
        "$ifNull": [
            f"${BILL}",
            {
                "key": {"$ifNull": ["$key", ""]},
                "model": {"$cond": [_HAS_SERVED, "$served_by", "$model"]},
                "outcome": {"$cond": [_IS_LIVE, "cancelled", "$status"]},
                "usage": {"$cond": [_WAS_BILLED, _UNBILLED, {"$ifNull": ["$usage", {}]}]},
            },
        ]
    },
}


def _tombstone(tenant: str) -> Document:
    return {"_id": "$_id", "tenant": literal(tenant), DELETED: True, **TOMBSTONE}


def _erase(tenant: str, by: str) -> Pipeline:
    left = {**_tombstone(tenant), **_BILLED}
    return [{"$replaceWith": {**left, "by": by} if by else left}]


def bill(record: TurnRecord) -> Document:
    """Return what of a turn's cost is to be counted, where that is not what the turn itself says."""
    cost = bill_of(record)
    # Every field: what is left out would be read from the turn itself.
    usage = {name: getattr(cost.usage, name) for name in cost.usage.__struct_fields__}
    return {"key": cost.key, "model": cost.model, "outcome": cost.outcome, "usage": usage}


def _blobs_in(document: Document) -> tuple[str, ...]:
    files = [part for message in document.get("input", ()) for part in message.get("parts", ())]
    results = [result for step in document.get("steps", ()) for result in step.get("results", ())]
    return tuple(each["blob"] for each in (*files, *results) if each.get("blob") is not None)
