"""Durable turns that have not ended, in the collection of those that have; each write is a compare-and-set.

The document is the turn with `id` as `_id`, marked `live`. `touched_at` is the last write or touch of a turn that may
be due: one held has none, or one ahead of it where it is to be looked at, so what is due is a range of its index. What
ends a turn replaces the document.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, get_args

import structlog
from bson.raw_bson import RawBSONDocument
from msgspec.structs import asdict
from pymongo import DESCENDING, ReturnDocument, UpdateOne

from kitemesh_contracts.content import Usage
from kitemesh_contracts.deltas import TurnOutcome
from kitemesh_contracts.errors import BadRequest, Bug, Conflict
from kitemesh_runtime.documents_mongo import (
    ABSENT,
    Document,
    Pipeline,
    encode,
    from_document,
    literal,
    read,
    take_time,
    to_document,
    write,
)
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.due_mongo import find_due
from kitemesh_runtime.errors_mongo import duplicate
from kitemesh_runtime.live_turns import GivenUp, Job, LiveStatus, LiveTurn
from kitemesh_runtime.retention import Days, default_days
from kitemesh_runtime.retention_mongo import KEPT, kept_for
from kitemesh_runtime.turns import TurnRecord
from kitemesh_runtime.turns_mongo import BILL, COLLECTION, DELETED, STORED, bill, note_rows
from kitemesh_runtime.writer_mongo import GroupedWriter

log: Final = structlog.get_logger()

_LOOKED_AT: Final[Document] = {
    "$cond": [{"$eq": [{"$type": "$look_at"}, "date"]}, {"$max": ["$$NOW", "$look_at"]}, "$$REMOVE"],
}
_LONG_AGO: Final[Document] = {"$subtract": ["$$NOW", 3600 * 1000]}
_TOUCHED: Final[Document] = {"$cond": [{"$eq": ["$status", "held"]}, _LOOKED_AT, "$$NOW"]}
_NOW: Final[Document] = {"updated_at": True, "touched_at": True}
BEFORE: Final = "given_up"
"""What a turn was when it was given up, kept with its end: no answer is made of it."""
_SAID: Final = ("state", "steps", "input", "answer", "details")
_LONG: Final[Document] = {**dict.fromkeys(_SAID, 0), **{f"{BEFORE}.{field}": 0 for field in _SAID}}
"""Leaves out what a turn said and did, of which there may be megabytes."""
_STATUSES: Final = (*get_args(LiveStatus), *get_args(TurnOutcome))
_CHANGED: Final[Document] = {"version": {"$add": ["$version", 1]}, "updated_at": "$$NOW"}


class MongoLiveTurns:
    """The `LiveTurns` port on MongoDB.

    Args:
        database: Where they are.
        writer: Writes inserts, beginnings, saves and ends; all are updates, so a group is one command.
        days: How long those that have ended are kept.

    """

    def __init__(self, database: Database, writer: GroupedWriter, days: Days = default_days) -> None:
        self._database = database
        self._run = database.run
        self._collection = database.collection(COLLECTION)
        self._writer = writer
        self._days = days

    async def insert(self, tenant: str, turn: LiveTurn) -> bool:
        """Store a turn, version 1; `False` when the id exists, live, ended or erased. Grouped."""
        if turn.version != 1:
            raise Bug("a turn was to be inserted as another version than its first")
        try:
            await self._put(turn, tenant, when=ABSENT)
        except Conflict as exc:
            if await self._run(self._collection.find_one({"_id": turn.id, "tenant": tenant}, {"_id": 1})) is None:
                raise duplicate() from exc
            return False
        return True

    async def begin(self, tenant: str, turn: str, *, ordinal: int) -> None:
        """Note that a `queued` turn runs, as its conversation's `ordinal`-th; no new version, grouped."""
        change = {"$set": {"status": "running", "ordinal": ordinal}, "$currentDate": _NOW}
        await self._writer.submit(UpdateOne({**_live(tenant, turn), "status": "queued"}, change))

    async def discard(self, tenant: str, turn: str) -> bool:
        """Remove a turn that is `queued` still at version 1; `True` when it is not there, now or already.

        No late save or end brings it back; a late insert would, so its insert has to have been answered.
        """
        untouched = {**_live(tenant, turn), "status": "queued", "version": 1}
        result = await self._run(self._collection.delete_one(untouched))
        if result.deleted_count:
            return True
        return await self.get(tenant, turn) is None

    async def get(self, tenant: str, turn: str) -> LiveTurn | TurnRecord | None:
        """Return the turn, live or ended; `None` also for one that was erased."""
        document = await self._run(self._collection.find_one({"_id": turn, "tenant": tenant}))
        return None if document is None or DELETED in document else decode_turn(document)

    async def knows(self, tenant: str, turn: str) -> bool:
        """Tell whether the turn is stored, or was and has been erased within the hour."""
        return await self._run(self._collection.find_one({"_id": turn, "tenant": tenant}, {"_id": 1})) is not None

    async def spoken(
        self, tenant: str, conversation: str, *, up_to: int | None, limit: int
    ) -> list[LiveTurn | TurnRecord]:
        """Return turns that have, or had, their place in a conversation, live and ended, the latest first."""
        if limit < 1:
            return []
        found = self._collection.find(seated(tenant, conversation, up_to)).sort("ordinal", DESCENDING).limit(limit)
        turns = [read(COLLECTION, document, decode_turn) for document in await self._run(found.to_list(limit))]
        return [turn for turn in turns if turn is not None]

    async def page(
        self,
        tenant: str,
        *,
        statuses: Sequence[str] = (),
        conversation: str | None = None,
        before: str | None = None,
        limit: int,
    ) -> list[LiveTurn | TurnRecord]:
        """Return turns, live and ended, by id, newest first; what cannot be read is left out, and logged."""
        found: list[LiveTurn | TurnRecord] = []
        while len(found) < limit:
            wanted = limit - len(found)
            newest = self._collection.find(listed(tenant, statuses, conversation, before)).sort("_id", DESCENDING)
            documents: list[Document] = await self._run(newest.limit(wanted).to_list(wanted))
            if documents:
                before = documents[-1]["_id"]
            turns = [read(COLLECTION, document, decode_turn) for document in documents]
            found += [turn for turn in turns if turn is not None]
            if len(documents) < wanted:
                break
        return found

    async def save(self, tenant: str, turn: LiveTurn) -> None:
        """Replace the version before `turn.version`; grouped."""
        await self._put(turn, tenant, when=_is_at(tenant, turn.version - 1))

    async def finish(self, tenant: str, record: TurnRecord, *, version: int, before: LiveTurn | None = None) -> None:
        """Replace the live turn of that version by the record of its end; grouped."""
        if record.tenant != tenant:
            raise Bug("a turn was to be stored for another tenant than its own")
        document = to_document(record)
        note_rows(document, record)
        if record.billed != Usage():
            document[BILL] = bill(record)
        encoded = encode(document) if before is None else _encode_both(document, before)
        kept = {KEPT: kept_for(self._days(tenant, "turns"))}
        operation = write(record.id, encoded, when=_is_at(tenant, version), dated=(STORED,), also=kept)
        await self._writer.submit(operation, size_bytes=len(encoded.raw))

    async def given_up(self, turns: Sequence[str], *, is_whole: bool = True) -> dict[str, GivenUp]:
        """Return turns of whatever tenant, by id, with what they were."""
        named = {"_id": {"$in": list(turns)}, DELETED: None}
        asked = self._collection.find(named, None if is_whole else _LONG)
        found: list[Document] = await self._run(asked.to_list(len(turns)))
        read_turns = [read(COLLECTION, document, _decode_given_up) for document in found]
        return {each.turn.id: each for each in read_turns if each is not None}

    async def revive(self, tenant: str, turn: LiveTurn) -> None:
        """Replace the end of a turn that was given up at the version before `turn.version`; grouped."""
        given_up = {
            "$and": [
                {"$eq": [f"${BEFORE}.version", turn.version - 1]},
                {"$eq": ["$tenant", literal(tenant)]},
            ],
        }
        await self._put(turn, tenant, when=given_up, is_due=True)

    async def claim(self, tenant: str, turn: str, job: Job) -> bool:
        """Raise a job's attempt by one, if it is still outstanding at `job.attempt`; counts as a version."""
        named = {"kind": job.kind, "step": job.step, "index": job.index}
        outstanding = {"jobs": {"$elemMatch": {**named, "attempt": job.attempt}}}
        is_named = {"$and": [{"$eq": [f"$$job.{field}", value]} for field, value in named.items()]}
        claimed = {"attempt": job.attempt + 1, "message": job.message, "deliveries": job.deliveries}
        raised = {"$mergeObjects": ["$$job", claimed]}
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
        return await self.get(tenant, turn) if document is None else decode_turn(document)

    async def due(self, *, idle_s: float, limit: int = 100) -> list[LiveTurn]:
        """Return live turns whose last write or `touch`, or time to be looked at, is older, oldest first."""
        return await find_due(self._database, COLLECTION, idle(idle_s), "touched_at", _decode_live, limit=limit)

    async def touch(self, tenant: str, turn: str, *, version: int) -> bool:
        """Put off the next time that the turn is due, if it has that version still; no new version."""
        return await self._change({**_live(tenant, turn), "version": version}, [{"$set": {"touched_at": _TOUCHED}}])

    async def _put(self, turn: LiveTurn, tenant: str, *, when: Document, is_due: bool = False) -> None:
        if turn.tenant != tenant:
            raise Bug("a turn was to be stored for another tenant than its own")
        document = to_document(turn)
        # A claim looks into them, so nothing is left out.
        document["jobs"] = [asdict(job) for job in turn.jobs]
        document["live"] = True
        note_rows(document, turn)
        document.pop("updated_at_s", None)
        dated = ["updated_at"] if turn.status == "held" or is_due else ["updated_at", "touched_at"]
        also = {"touched_at": _LONG_AGO} if is_due else {}
        not_before: dict[str, datetime] = {}
        if turn.look_at_s is not None:
            document["look_at"] = datetime.fromtimestamp(document.pop("look_at_s"), UTC)
            if turn.status == "held":
                not_before["touched_at"] = document["look_at"]
        encoded = encode(document)
        operation = write(turn.id, encoded, when=when, dated=dated, not_before=not_before, also=also)
        await self._writer.submit(operation, size_bytes=len(encoded.raw))

    async def _change(self, match: Document, pipeline: Pipeline) -> bool:
        result: Any = await self._run(self._collection.update_one(match, pipeline))
        return bool(result.matched_count)


def idle(idle_s: float) -> Document:
    """Match turns that may be due and were not touched for so long, as the partial index serves them."""
    before = {"$subtract": ["$$NOW", round(idle_s * 1000)]}
    return {"touched_at": {"$type": "date"}, "$expr": {"$lt": ["$touched_at", before]}}


def listed(tenant: str, statuses: Sequence[str], conversation: str | None, before: str | None) -> Document:
    """Match the turns of a page; every status is named, for then their index yields them in the order of their ids."""
    match: Document = {"tenant": tenant, "status": {"$in": list(statuses or _STATUSES)}}
    if conversation is not None:
        match["conversation"] = conversation
    if before is not None:
        match["_id"] = {"$lt": before}
    return match


def seated(tenant: str, conversation: str, up_to: int | None) -> Document:
    """Match the turns that have, or had, their place in a conversation, up to one, as their index orders them."""
    ordinal = {"$gte": 1} if up_to is None else {"$gte": 1, "$lte": up_to}
    return {"tenant": tenant, "conversation": conversation, "ordinal": ordinal}


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


def _encode_both(document: Document, before: LiveTurn) -> RawBSONDocument:
    """Encode the end of a turn with what it was, or without where there is no room for it: it has to end."""
    try:
        return encode({**document, BEFORE: to_document(before)})
    except BadRequest as exc:
        log.warning("turn.not_kept", turn=before.id, reason=exc.message)
        return encode(document)


def _decode_given_up(document: Document) -> GivenUp:
    before = document.pop(BEFORE, None)
    for live in (document if "live" in document else None, before):
        if live is not None:
            # Not asked for.
            live.setdefault("state", b"")
    return GivenUp(decode_turn(document), None if before is None else from_document(before, LiveTurn))


def decode_turn(document: Document) -> LiveTurn | TurnRecord:
    """Read a stored turn, live or ended.

    Raises:
        Bug: It is none.

    """
    return _decode_live(document) if "live" in document else from_document(document, TurnRecord)


def _decode_live(document: Document) -> LiveTurn:
    take_time(document, "updated_at", "updated_at_s")
    take_time(document, "look_at", "look_at_s")
    return from_document(document, LiveTurn)
