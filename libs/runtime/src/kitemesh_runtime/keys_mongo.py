"""API keys in MongoDB, found by digest. The document is the record itself with `id` as `_id`."""

from typing import Any, Final

import msgspec
from pymongo import DESCENDING, ReturnDocument

from kitemesh_contracts.errors import Bug
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.stores import KeyRecord

COLLECTION: Final = "keys"

_NOW_S: Final = {"$divide": [{"$toLong": "$$NOW"}, 1000]}


class MongoKeys:
    """The `Keys` port on MongoDB."""

    def __init__(self, database: Database) -> None:
        self._run = database.run
        self._collection = database.collection(COLLECTION)

    async def put(self, tenant: str, record: KeyRecord) -> None:
        """Store a new key.

        Raises:
            Conflict: The id or the digest is taken (`store.duplicate`).

        """
        if record.tenant != tenant:
            raise Bug("a key was to be stored for another tenant than its own")
        document: dict[str, Any] = msgspec.to_builtins(record)
        document["_id"] = document.pop("id")
        await self._run(self._collection.insert_one(document))

    async def find(self, digest: str) -> KeyRecord | None:
        """Return the key with that digest, of whatever tenant: the only lookup that starts without one."""
        document = await self._run(self._collection.find_one({"digest": digest}))
        return None if document is None else _decode(document)

    async def list(self, tenant: str) -> list[KeyRecord]:
        """Return the tenant's keys, newest first."""
        newest = self._collection.find({"tenant": tenant}).sort([("created_at_s", DESCENDING), ("_id", DESCENDING)])
        return [_decode(document) for document in await self._run(newest.to_list(None))]

    async def revoke(self, tenant: str, key: str) -> KeyRecord | None:
        """Revoke the key for good and return it; again is the same. `None` when there is none."""
        document = await self._run(
            self._collection.find_one_and_update(
                {"_id": key, "tenant": tenant},
                [{"$set": {"revoked_at_s": {"$ifNull": ["$revoked_at_s", _NOW_S]}}}],
                return_document=ReturnDocument.AFTER,
            ),
        )
        return None if document is None else _decode(document)


def _decode(document: dict[str, Any]) -> KeyRecord:
    document["id"] = document.pop("_id")
    try:
        return msgspec.convert(document, KeyRecord)
    except msgspec.ValidationError as exc:
        raise Bug(f"a stored key is not readable: {exc}") from exc
