"""What of a collection changed since a mark: one query over the index of `changed_at`, the database's own date.

The mark goes on only when something was found, so that it needs no clock but that one; each question reaches back a
little before it, for writes that were dated earlier than they could be seen and for a primary whose clock is behind.
"""

from datetime import UTC, datetime
from typing import Any, Final

from pymongo import DESCENDING

from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.tenancy import Changes

CHANGED_AT: Final = "changed_at"
OVERLAP_S: Final = 10.0


async def changes_of(database: Database, collection: Any, since: float) -> Changes:
    """Return the ids of documents dated since a mark, 0 being the beginning."""
    after = datetime.fromtimestamp(max(0.0, since - OVERLAP_S), UTC)
    cursor = collection.find({CHANGED_AT: {"$gt": after}}, {"now": "$$NOW"})
    found: list[dict[str, Any]] = await database.run(cursor.to_list(None))
    return Changes([document["_id"] for document in found], found[-1]["now"].timestamp() if found else since)


async def latest_of(database: Database, collection: Any) -> Changes:
    """Return the mark of whatever changes from now on."""
    newest = collection.find({CHANGED_AT: {"$type": "date"}}, {CHANGED_AT: 1}).sort([(CHANGED_AT, DESCENDING)]).limit(1)
    found: list[dict[str, Any]] = await database.run(newest.to_list(None))
    return Changes((), found[0][CHANGED_AT].timestamp() if found else 0.0)
