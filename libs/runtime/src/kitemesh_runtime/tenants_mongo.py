"""What is said of tenants in MongoDB. The document is the record with `id` as `_id`, dated by the server.

One that was taken back stays for an hour as an empty one, so that everybody learns of it.
"""

from typing import Any, Final

from pymongo import ASCENDING, ReturnDocument

from kitemesh_runtime.changes_mongo import CHANGED_AT, changes_of
from kitemesh_runtime.documents_mongo import Document, from_document, literal, take_time, to_document
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.tenancy import Changes, TenantRecord

COLLECTION: Final = "tenants"

_SAID: Final[Document] = {"deleted_at": {"$exists": False}}


class MongoTenants:
    """The `Tenants` port on MongoDB."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._run = database.run
        self._collection = database.collection(COLLECTION)

    async def get(self, tenant: str) -> TenantRecord | None:
        """Return the record, or `None` when nothing was ever said."""
        document = await self._run(self._collection.find_one({"_id": tenant, **_SAID}))
        return None if document is None else _decode(document)

    async def put(self, record: TenantRecord) -> TenantRecord:
        """Store it in the place of what was said, and return it as it is stored."""
        document = to_document(record)
        document.pop("updated_at_s", None)
        new = {"$mergeObjects": [literal(document), {CHANGED_AT: "$$NOW"}]}
        stored = await self._run(
            self._collection.find_one_and_update(
                {"_id": record.id}, [{"$replaceWith": new}], upsert=True, return_document=ReturnDocument.AFTER
            )
        )
        return _decode(stored)

    async def remove(self, tenant: str) -> bool:
        """Take back all that was said; tell whether there was anything."""
        empty = {"_id": "$_id", CHANGED_AT: "$$NOW", "deleted_at": "$$NOW"}
        done: Any = await self._run(self._collection.update_one({"_id": tenant, **_SAID}, [{"$replaceWith": empty}]))
        return bool(done.modified_count)

    async def page(self, *, after: str = "", limit: int = 100) -> list[TenantRecord]:
        """List records by name."""
        found = self._collection.find({"_id": {"$gt": after}, **_SAID}).sort([("_id", ASCENDING)]).limit(limit)
        return [_decode(document) for document in await self._run(found.to_list(None))]

    async def changes(self, since: float) -> Changes:
        """Return which records were put or removed since a mark; 0 is the beginning."""
        return await changes_of(self._database, self._collection, since)


def _decode(document: Document) -> TenantRecord:
    take_time(document, CHANGED_AT, "updated_at_s")
    return from_document(document, TenantRecord)
