"""Ended turns in MongoDB: one document a turn, its messages embedded, inserted in groups.

The document is the record itself with `id` as `_id`, and `stored_at` for retention. The collection also holds the
turns that have not ended, which `live_turns_mongo` writes and which are marked `live`.
"""

from datetime import UTC, datetime
from typing import Final

from pymongo import DESCENDING, InsertOne

from kitemesh_contracts.errors import Bug, Conflict, ErrorCode
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.documents_mongo import encode, from_document, to_document
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.stores import TurnRecord
from kitemesh_runtime.writer_mongo import GroupedWriter

COLLECTION: Final = "turns"


class MongoTurns:
    """The `Turns` port on MongoDB."""

    def __init__(self, database: Database, writer: GroupedWriter, clock: Clock) -> None:
        self._run = database.run
        self._collection = database.collection(COLLECTION)
        self._writer = writer
        self._clock = clock

    async def put(self, tenant: str, record: TurnRecord) -> None:
        """Store an ended turn; grouped. The first one stored under an id stays; a live one is not ended here.

        Raises:
            Conflict: The turn is live (`store.stale`), or the id is another tenant's (`store.duplicate`).
            BadRequest: It is too large, or holds text that cannot be stored.

        """
        if record.tenant != tenant:
            raise Bug("a turn was to be stored for another tenant than its own")
        document = to_document(record)
        document["stored_at"] = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        encoded = encode(document)
        try:
            await self._writer.submit(InsertOne(encoded), size_bytes=len(encoded.raw))
        except Conflict as exc:
            found = await self._run(self._collection.find_one({"_id": record.id, "tenant": tenant}, {"live": 1}))
            if found is None:
                raise
            if "live" in found:
                raise Conflict(ErrorCode.STALE, "it has not ended") from exc

    async def get(self, tenant: str, turn: str) -> TurnRecord | None:
        """Return the turn, or `None`."""
        document = await self._run(self._collection.find_one({"_id": turn, "tenant": tenant, "live": None}))
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
