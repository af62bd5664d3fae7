"""Durable turns that have not ended, in the collection of those that have; each write is a compare-and-set.

The document is the turn with `id` as `_id`, marked `live`. `touched_at` is the last write or touch of a turn that may
be due: one held has none, or one ahead of it where it is to be looked at, so what is due is a range of its index. What
ends a turn replaces the document.
"""

from datetime import UTC, datetime
from typing import Any, Final

from msgspec.structs import asdict
from pymongo import ReturnDocument

from kitemesh_contracts.errors import Bug, Conflict
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
from kitemesh_runtime.due_mongo import find_due
from kitemesh_runtime.errors_mongo import duplicate
from kitemesh_runtime.execution_stores import Job, LiveTurn
from kitemesh_runtime.stores import TurnRecord
from kitemesh_runtime.turns_mongo import COLLECTION
from kitemesh_runtime.writer_mongo import GroupedWriter

_LOOKED_AT: Final[Document] = {
    "$cond": [{"$eq": [{"$type": "$look_at"}, "date"]}, {"$max": ["$$NOW", "$look_at"]}, "$$REMOVE"],
}
_TOUCHED: Final[Document] = {"$cond": [{"$eq": ["$status", "held"]}, _LOOKED_AT, "$$NOW"]}
_CHANGED: Final[Document] = {"version": {"$add": ["$version", 1]}, "updated_at": "$$NOW"}


class MongoLiveTurns:
    """The `LiveTurns` port on MongoDB.

    Args:
        database: Where they are.
        writer: Writes inserts, saves and ends; all of them are updates, so a group is one command.

    """

    def __init__(self, database: Database, writer: GroupedWriter) -> None:
        self._database = database
        self._run = database.run
        self._collection = database.collection(COLLECTION)
        self._writer = writer

    async def insert(self, tenant: str, turn: LiveTurn) -> bool:
        """Store a turn, version 1; `False` when the id exists, live or ended. Grouped."""
        if turn.version != 1:
            raise Bug("a turn was to be inserted as another version than its first")
        try:
            await self._put(turn, tenant, when=ABSENT)
        except Conflict as exc:
            if await self._run(self._collection.find_one({"_id": turn.id, "tenant": tenant}, {"_id": 1})) is None:
                raise duplicate() from exc
            return False
        return True

    async def get(self, tenant: str, turn: str) -> LiveTurn | TurnRecord | None:
        """Return the turn, live or ended."""
        document = await self._run(self._collection.find_one({"_id": turn, "tenant": tenant}))
        return None if document is None else _decode(document)

    async def save(self, tenant: str, turn: LiveTurn) -> None:
        """Replace the version before `turn.version`; grouped."""
        await self._put(turn, tenant, when=_is_at(tenant, turn.version - 1))

    async def finish(self, tenant: str, record: TurnRecord, *, version: int) -> None:
        """Replace the live turn of that version by the record of its end; grouped."""
        if record.tenant != tenant:
            raise Bug("a turn was to be stored for another tenant than its own")
        encoded = encode(to_document(record))
        operation = write(record.id, encoded, when=_is_at(tenant, version), dated=("stored_at",))
        await self._writer.submit(operation, size_bytes=len(encoded.raw))

    async def claim(self, tenant: str, turn: str, job: Job) -> bool:
        """Raise a job's attempt by one, if it is still outstanding at `job.attempt`; counts as a version."""
        named = {"kind": job.kind, "step": job.step, "index": job.index}
        outstanding = {"jobs": {"$elemMatch": {**named, "attempt": job.attempt}}}
        is_named = {"$and": [{"$eq": [f"$$job.{field}", value]} for field, value in named.items()]}
        raised = {"$mergeObjects": ["$$job", {"attempt": job.attempt + 1}]}
        jobs = {"$map": {"input": "$jobs", "as": "job", "in": {"$cond": [is_named, raised, "$$job"]}}}
        change = [{"$set": {**_CHANGED, "touched_at": _TOUCHED, "jobs": jobs}}]
        return await self._change({**_live(tenant, turn), **outstanding}, change)

    async def cancel(self, tenant: str, turn: str, reason: str) -> LiveTurn | TurnRecord | None:
        """Mark a live turn as being cancelled and return it as it is then; again is the same. Counts as a version."""
        marked = {"status": "cancelling", "cancelled": {"$ifNull": ["$cancelled", literal(reason)]}}
        document: Document | None = await self._run(
            self._collection.find_one_and_update(
                {**_live(tenant, turn), "status": {"$ne": "cancelling"}},
                [{"$set": {**_CHANGED, **marked, "touched_at": "$$NOW"}}],
                return_document=ReturnDocument.AFTER,
            ),
        )
        return await self.get(tenant, turn) if document is None else _decode(document)

    async def due(self, *, idle_s: float, limit: int = 100) -> list[LiveTurn]:
        """Return live turns whose last write or `touch`, or time to be looked at, is older, oldest first."""
        return await find_due(self._database, COLLECTION, idle(idle_s), "touched_at", _decode_live, limit=limit)

    async def touch(self, tenant: str, turn: str, *, version: int) -> bool:
        """Put off the next time that the turn is due, if it has that version still; no new version."""
        return await self._change({**_live(tenant, turn), "version": version}, [{"$set": {"touched_at": _TOUCHED}}])

    async def _put(self, turn: LiveTurn, tenant: str, *, when: Document) -> None:
        if turn.tenant != tenant:
            raise Bug("a turn was to be stored for another tenant than its own")
        document = to_document(turn)
        # A claim looks into them, so nothing is left out.
        document["jobs"] = [asdict(job) for job in turn.jobs]
        document["live"] = True
        document.pop("updated_at_s", None)
        dated = ["updated_at"] if turn.status == "held" else ["updated_at", "touched_at"]
        not_before: dict[str, datetime] = {}
        if turn.look_at_s is not None:
            document["look_at"] = datetime.fromtimestamp(document.pop("look_at_s"), UTC)
            if turn.status == "held":
                not_before["touched_at"] = document["look_at"]
        encoded = encode(document)
        operation = write(turn.id, encoded, when=when, dated=dated, not_before=not_before)
        await self._writer.submit(operation, size_bytes=len(encoded.raw))

    async def _change(self, match: Document, pipeline: Pipeline) -> bool:
        result: Any = await self._run(self._collection.update_one(match, pipeline))
        return bool(result.matched_count)


def idle(idle_s: float) -> Document:
    """Match turns that may be due and were not touched for so long, as the partial index serves them."""
    before = {"$subtract": ["$$NOW", round(idle_s * 1000)]}
    return {"touched_at": {"$type": "date"}, "$expr": {"$lt": ["$touched_at", before]}}


def _live(tenant: str, turn: str) -> Document:
    return {"_id": turn, "tenant": tenant, "live": True}


def _is_at(tenant: str, version: int) -> Document:
    return {
        "$and": [
            {"$eq": ["$version", version]},
            {"$eq": ["$tenant", literal(tenant)]},
            {"$eq": ["$live", True]},
        ],
    }


def _decode(document: Document) -> LiveTurn | TurnRecord:
    return _decode_live(document) if "live" in document else from_document(document, TurnRecord)


def _decode_live(document: Document) -> LiveTurn:
    take_time(document, "updated_at", "updated_at_s")
    take_time(document, "look_at", "look_at_s")
    return from_document(document, LiveTurn)
