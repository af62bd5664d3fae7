"""API keys in MongoDB, found by digest. The document is the record itself with `id` as `_id`, dated by the server."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from pymongo import DESCENDING, ReturnDocument

from kitemesh_contracts.errors import Bug
from kitemesh_runtime.changes_mongo import CHANGED_AT, changes_of, latest_of
from kitemesh_runtime.documents_mongo import Document, Pipeline, from_document, literal, to_document
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.keys import KeyChanges, KeyRecord
from kitemesh_runtime.tenancy import Changes

COLLECTION: Final = "keys"

_NOW_S: Final = {"$divide": [{"$toLong": "$$NOW"}, 1000]}
_NEWEST: Final = [("created_at_s", DESCENDING), ("_id", DESCENDING)]


class MongoKeys:
    """The `Keys` port on MongoDB."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._run = database.run
        self._collection = database.collection(COLLECTION)

    async def put(self, tenant: str, record: KeyRecord) -> None:
        """Store a new key.

        Raises:
            Conflict: The id or the digest is taken (`store.duplicate`).

        """
        if record.tenant != tenant:
            raise Bug("a key was to be stored for another tenant than its own")
        document = to_document(record)
        # Only an update is dated by the server. What has the id already has a tenant, so that nothing of it matches
        # and the insert that is tried instead is refused.
        absent = {"_id": document.pop("_id"), "tenant": {"$exists": False}}
        change = {"$set": document, "$currentDate": {CHANGED_AT: True}}
        await self._run(self._collection.update_one(absent, change, upsert=True))

    async def find(self, digest: str) -> KeyRecord | None:
        """Return the key with that digest, of whatever tenant: the only lookup that starts without one."""
        return _decode(await self._run(self._collection.find_one({"digest": digest})))

    async def get(self, tenant: str, key: str) -> KeyRecord | None:
        """Return the key."""
        return _decode(await self._run(self._collection.find_one({"_id": key, "tenant": tenant})))

    async def list(self, tenant: str) -> list[KeyRecord]:
        """Return the tenant's keys, newest first."""
        newest = self._collection.find({"tenant": tenant}).sort(_NEWEST)
        return _decode_all(await self._run(newest.to_list(None)))

    async def page(self, tenant: str, *, before: str | None, limit: int) -> Sequence[KeyRecord]:
        """Return keys, newest first; `before` is the id of the last one seen, and nothing is behind an unknown one."""
        wanted: Document = {"tenant": tenant}
        if before is not None:
            last = await self.get(tenant, before)
            if last is None:
                return []
            wanted["$or"] = [
                {"created_at_s": {"$lt": last.created_at_s}},
                {"created_at_s": last.created_at_s, "_id": {"$lt": before}},
            ]
        newest = self._collection.find(wanted).sort(_NEWEST).limit(limit)
        return _decode_all(await self._run(newest.to_list(None)))

    async def update(self, tenant: str, key: str, changes: KeyChanges) -> KeyRecord | None:
        """Change the key and return it; `None` when there is none."""
        fields: Document = {field: literal(value) for field, value in msgspec.to_builtins(changes).items()}
        if changes.scopes is not msgspec.UNSET:
            kept = {"$in": ["$$this", literal(list(changes.scopes))]}
            fields["scopes"] = {"$filter": {"input": "$scopes", "cond": kept}}
        return await self._change({"_id": key, "tenant": tenant}, [{"$set": fields}] if fields else [])

    async def replace(self, tenant: str, key: str, *, by: str, grace_s: float) -> KeyRecord | None:
        """Have a key run out and name its successor; return it as it is then, `None` when it cannot."""
        until_s = {"$add": [_NOW_S, grace_s]}
        serves = {
            "$and": [
                {"$eq": [{"$ifNull": ["$revoked_at_s", None]}, None]},
                {"$gt": [{"$ifNull": ["$expires_at_s", float("inf")]}, _NOW_S]},
            ]
        }
        sooner = {"$min": ["$expires_at_s", until_s]}
        return await self._change(
            {"_id": key, "tenant": tenant, "rotated_to": {"$exists": False}, "$expr": serves},
            [{"$set": {"expires_at_s": sooner, "rotated_to": literal(by)}}],
        )

    async def changes(self, since: float | None) -> Changes:
        """Return the ids of keys, of all tenants, that were stored or changed since a mark; `None` begins with now."""
        if since is None:
            return await latest_of(self._database, self._collection)
        return await changes_of(self._database, self._collection, since)

    async def revoke(self, tenant: str, key: str) -> KeyRecord | None:
        """Revoke the key for good and return it; again is the same. `None` when there is none."""
        first = {"$ifNull": ["$revoked_at_s", _NOW_S]}
        return await self._change({"_id": key, "tenant": tenant}, [{"$set": {"revoked_at_s": first}}])

    async def _change(self, which: Document, pipeline: Pipeline) -> KeyRecord | None:
        dated = [*pipeline, {"$set": {CHANGED_AT: "$$NOW"}}]
        return _decode(
            await self._run(
                self._collection.find_one_and_update(which, dated, return_document=ReturnDocument.AFTER),
            ),
        )


def _decode(document: dict[str, Any] | None) -> KeyRecord | None:
    return None if document is None else from_document(document, KeyRecord)


def _decode_all(documents: Sequence[dict[str, Any]]) -> "list[KeyRecord]":
    return [from_document(document, KeyRecord) for document in documents]
