"""The audit in MongoDB: rows are inserted, read and, by retention, removed; nothing changes one."""

from datetime import UTC, datetime, timedelta
from typing import Final

from pymongo import ASCENDING, DESCENDING

from kitemesh_contracts.errors import Bug, Conflict
from kitemesh_runtime.audit import AuditRow
from kitemesh_runtime.documents_mongo import ABSENT, Document, encode, from_document, take_time, to_document, write
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.errors_mongo import duplicate
from kitemesh_runtime.retention import Days, default_days
from kitemesh_runtime.retention_mongo import KEPT, kept_for
from kitemesh_runtime.writer_mongo import GroupedWriter

COLLECTION: Final = "audit"


class MongoAudit:
    """The `Audit` port on MongoDB.

    Args:
        database: Where it is.
        writer: Writes the rows.
        days: How long they are kept; a row that is written keeps its date.

    """

    def __init__(self, database: Database, writer: GroupedWriter, days: Days = default_days) -> None:
        self._run = database.run
        self._collection = database.collection(COLLECTION)
        self._writer = writer
        self._days = days

    async def append(self, tenant: str, row: AuditRow) -> None:
        """Note a deed; grouped. Twice is the same as once."""
        if row.tenant != tenant:
            raise Bug("a deed was to be noted for another tenant than its own")
        document = to_document(row)
        at_s = document.pop("at_s", None)
        days = self._days(tenant, "audit")
        if at_s:
            document["at"] = datetime.fromtimestamp(at_s, UTC)
            document[KEPT] = document["at"] + timedelta(days=days)
        # Pairs, because a field's name would have to be free of dots and dollars.
        document["calls"] = list(row.calls.items())
        encoded = encode(document)
        try:
            await self._writer.submit(
                write(
                    row.id,
                    encoded,
                    when=ABSENT,
                    dated=() if at_s else ("at",),
                    also={} if at_s else {KEPT: kept_for(days)},
                ),
                size_bytes=len(encoded.raw),
            )
        except Conflict as exc:
            if await self._run(self._collection.find_one({"_id": row.id, "tenant": tenant}, {"_id": 1})) is None:
                raise duplicate() from exc

    async def about(self, tenant: str, subject: str) -> list[AuditRow]:
        """Return what was done to a subject, oldest first."""
        oldest = [("at", ASCENDING), ("_id", ASCENDING)]
        found = self._collection.find({"tenant": tenant, "subject": subject}).sort(oldest)
        return [_decode(document) for document in await self._run(found.to_list(None))]

    async def page(self, tenant: str, *, subject: str | None, before: str | None, limit: int) -> list[AuditRow]:
        """Return what was done, newest first; `before` is the last one's id, and nothing is behind an unknown one."""
        wanted: Document = {"tenant": tenant} if subject is None else {"tenant": tenant, "subject": subject}
        if before is not None:
            last = await self._run(self._collection.find_one({"_id": before, "tenant": tenant}, {"at": 1}))
            if last is None:
                return []
            wanted["$or"] = [{"at": {"$lt": last["at"]}}, {"at": last["at"], "_id": {"$lt": before}}]
        newest = self._collection.find(wanted).sort([("at", DESCENDING), ("_id", DESCENDING)]).limit(limit)
        return [_decode(document) for document in await self._run(newest.to_list(None))]


def _decode(document: Document) -> AuditRow:
    take_time(document, "at", "at_s")
    document["calls"] = dict(document["calls"])
    return from_document(document, AuditRow)
