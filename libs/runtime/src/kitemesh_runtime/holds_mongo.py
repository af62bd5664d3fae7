"""Holds in MongoDB: each change is one conditional write, so of many at once one wins.

What a write matches and computes is said in `hold_updates_mongo`; here are the calls.
"""

from collections.abc import Sequence
from typing import Any, Final

from pymongo import ASCENDING, DESCENDING, ReturnDocument

from kitemesh_contracts.errors import Bug, Conflict, ErrorCode
from kitemesh_runtime import hold_updates_mongo as updates
from kitemesh_runtime.documents_mongo import Document, Pipeline
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.due_mongo import find_due
from kitemesh_runtime.errors_mongo import duplicate
from kitemesh_runtime.holds import Decided, Hold, HoldStatus, Verdict
from kitemesh_runtime.retention import Days, default_days
from kitemesh_runtime.retention_mongo import dated

COLLECTION: Final = "holds"
COUNT_MAX: Final = 100_000


class MongoHolds:
    """The `Holds` port on MongoDB.

    Args:
        database: Where they are.
        days: How long those that have ended are kept.

    """

    def __init__(self, database: Database, days: Days = default_days) -> None:
        self._database = database
        self._run = database.run
        self._command = database.command
        self._collection = database.collection(COLLECTION)
        self._days = days

    async def open(self, tenant: str, hold: Hold, *, expires_after_s: float) -> Hold:
        """Store a hold that runs out by the database's clock, and return what is stored; again changes nothing."""
        if hold.tenant != tenant:
            raise Bug("a hold was to be stored for another tenant than its own")
        call: Any = self._collection.find_one_and_update(
            {"_id": hold.id},
            updates.opened(hold, expires_after_s),
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        stored: Document = await self._run(call)
        if stored["tenant"] != tenant:
            raise duplicate()
        if updates.DELETED in stored:
            raise Conflict(ErrorCode.STALE, "it was erased")
        return updates.read_hold(stored)

    async def get(self, tenant: str, hold: str) -> Hold | None:
        """Return the hold."""
        document = await self._run(self._collection.find_one(updates.kept(tenant, hold)))
        return None if document is None else updates.read_hold(document)

    async def page(self, tenant: str, *, status: HoldStatus | None, before: str | None, limit: int) -> list[Hold]:
        """Return holds, newest first; `before` is the id of the last one seen."""
        if limit < 1:
            return []
        last = None
        if before is not None:
            seen = await self._run(self._collection.find_one(updates.kept(tenant, before), {"created_at": 1}))
            if seen is None:
                return []
            last = (seen["created_at"], before)
        newest = [("created_at", DESCENDING), ("_id", DESCENDING)]
        found = self._collection.find(updates.page(tenant, status, last)).sort(newest).limit(limit)
        return [updates.read_hold(document) for document in await self._run(found.to_list(limit))]

    async def decide(
        self, tenant: str, hold: str, verdicts: dict[str, Verdict], *, texts: Sequence[str] = ()
    ) -> Decided:
        """Decide calls in one write, if the hold is open, has not run out, and has none of these decided."""
        match = updates.decidable(tenant, hold, tuple(verdicts))
        decided = await self._change(tenant, match, updates.decide(verdicts, texts)) if verdicts else None
        if decided is not None:
            return Decided(won=True, hold=decided)
        return Decided(won=False, hold=await self.get(tenant, hold))

    async def expire(self, tenant: str, hold: str) -> Hold | None:
        """End an open hold whose time has come by the database's clock; return it as it is now."""
        return await self._change_or_get(tenant, hold, updates.run_out(tenant, hold), updates.expire())

    async def cancel(self, tenant: str, hold: str, reason: str, *, only_open: bool = False) -> Hold | None:
        """End an open hold, or one decided and not yet applied unless `only_open`; return it as it is now."""
        match = updates.running(tenant, hold) if only_open else updates.cancellable(tenant, hold)
        return await self._change_or_get(tenant, hold, match, updates.cancel(reason))

    async def applied(self, tenant: str, hold: str, *, version: int) -> None:
        """Note that the turn has taken note of that version; a smaller one changes nothing."""
        await self._run(self._collection.update_one(updates.kept(tenant, hold), updates.applied(version)))

    async def due(self, *, limit: int = 100) -> list[Hold]:
        """Return open holds that have run out, and those not `applied` for 5 s, of all tenants."""
        return await find_due(self._database, COLLECTION, updates.due(), "due_at", updates.read_hold, limit=limit)

    async def count_open(self) -> int:
        """Count open holds of all tenants, by an index that has no others and up to 100,000."""
        command = {"count": COLLECTION, "query": {"status": "open"}, "limit": COUNT_MAX}
        return int((await self._command(command))["n"])

    async def oldest_open_s(self) -> float:
        """Return the age of the oldest open hold of all tenants, by the end of an index; 0 without one."""
        oldest = self._collection.find(updates.AGED, updates.AGE).sort("created_at", ASCENDING).limit(1)
        found = await self._run(oldest.to_list(1))
        return max(0.0, float(found[0]["age_s"])) if found else 0.0

    async def erase(self, tenant: str, *, conversation: str | None = None, turns: Sequence[str] = ()) -> None:
        """Empty the holds of a conversation, and of turns; nothing is written to them for an hour, then they go."""
        match = updates.belonging(tenant, conversation, turns)
        await self._run(self._collection.update_many(match, updates.erase(tenant)))

    async def _change_or_get(self, tenant: str, hold: str, match: Document, pipeline: Pipeline) -> Hold | None:
        changed = await self._change(tenant, match, pipeline)
        return await self.get(tenant, hold) if changed is None else changed

    async def _change(self, tenant: str, match: Document, pipeline: Pipeline) -> Hold | None:
        kept = dated(pipeline, self._days(tenant, "holds"), "ended_at")
        call: Any = self._collection.find_one_and_update(match, kept, return_document=ReturnDocument.AFTER)
        document: Document | None = await self._run(call)
        return None if document is None else updates.read_hold(document)
