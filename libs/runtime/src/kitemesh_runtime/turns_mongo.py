"""Ended turns in MongoDB: one document a turn, its messages embedded, inserted in groups.

The document is the record itself with `id` as `_id`, and `stored_at` for retention.
"""

from datetime import UTC, datetime
from typing import Any, Final

import bson
import msgspec
from bson.raw_bson import RawBSONDocument
from pymongo import DESCENDING, InsertOne

from kitemesh_contracts.errors import BadRequest, Bug, Conflict, ErrorCode
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.errors_mongo import UNENCODABLE, translate
from kitemesh_runtime.stores import TurnRecord
from kitemesh_runtime.writer_mongo import GroupedWriter

COLLECTION: Final = "turns"
DOCUMENT_MAX_BYTES: Final = 15 * 1024 * 1024
"""MongoDB's own bound is 16 MiB and would fail the whole group."""


class MongoTurns:
    """The `Turns` port on MongoDB."""

    def __init__(self, database: Database, writer: GroupedWriter, clock: Clock) -> None:
        self._run = database.run
        self._collection = database.collection(COLLECTION)
        self._writer = writer
        self._clock = clock

    async def put(self, tenant: str, record: TurnRecord) -> None:
        """Store an ended turn; grouped. The first one stored under an id stays.

        Raises:
            Conflict: The id is another tenant's (`store.duplicate`).
            BadRequest: It is too large, or holds text that cannot be stored.

        """
        if record.tenant != tenant:
            raise Bug("a turn was to be stored for another tenant than its own")
        encoded = _encode(record, self._clock.now_ms())
        try:
            await self._writer.submit(InsertOne(RawBSONDocument(encoded)), size_bytes=len(encoded))
        except Conflict:
            if await self._run(self._collection.find_one({"_id": record.id, "tenant": tenant}, {"_id": 1})) is None:
                raise

    async def get(self, tenant: str, turn: str) -> TurnRecord | None:
        """Return the turn, or `None`."""
        document = await self._run(self._collection.find_one({"_id": turn, "tenant": tenant}))
        return None if document is None else _decode(document)

    async def recent(self, tenant: str, conversation: str, *, limit: int) -> list[TurnRecord]:
        """Return the newest `limit` turns that have an answer, oldest first."""
        if limit < 1:
            return []
        answered = {"tenant": tenant, "conversation": conversation, "answer": {"$exists": True}}
        newest = self._collection.find(answered).sort("ordinal", DESCENDING).limit(limit)
        documents = await self._run(newest.to_list(limit))
        return [_decode(document) for document in reversed(documents)]


def _encode(record: TurnRecord, now_ms: int) -> bytes:
    """Encode here, not in the group, so that one that cannot be encoded fails alone."""
    document: dict[str, Any] = msgspec.to_builtins(record)
    document["_id"] = document.pop("id")
    document["stored_at"] = datetime.fromtimestamp(now_ms / 1000, UTC)
    try:
        encoded: bytes = bson.encode(document)
    except UNENCODABLE as exc:
        raise translate(exc) from exc
    if len(encoded) > DOCUMENT_MAX_BYTES:
        raise BadRequest(ErrorCode.REQUEST_TOO_LARGE, "the turn is too large to store")
    return encoded


def _decode(document: dict[str, Any]) -> TurnRecord:
    document["id"] = document.pop("_id")
    try:
        return msgspec.convert(document, TurnRecord)
    except msgspec.ValidationError as exc:
        raise Bug(f"a stored turn is not readable: {exc}") from exc
