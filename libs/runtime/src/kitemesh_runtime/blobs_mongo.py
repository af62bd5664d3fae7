"""Blobs in MongoDB: in their document up to 8 MiB, above that in GridFS with the document naming the file.

The document is written last, so a blob is whole or not there. Retention removes the document and, by a date that
each chunk is given, what GridFS holds; a file has its blob's id as its name, so that what nobody refers to is found.
"""

from collections.abc import Sequence
from typing import Any, Final

from kitemesh_contracts.errors import Bug, Conflict
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.retention import Days, default_days
from kitemesh_runtime.retention_mongo import kept_for

COLLECTION: Final = "blobs"
BUCKET: Final = "large_blobs"
INLINE_MAX_BYTES: Final = 8 * 1024 * 1024
WAIT_DAYS: Final = 5
"""A turn may wait for a person so long before it ends, which is when its own days begin."""


class MongoBlobs:
    """The `Blobs` port on MongoDB. Ids come from the clock; the server's clock says how long a blob is kept.

    Args:
        database: Where they are.
        clock: Gives ids.
        days: How long the turns are kept that name them.

    """

    def __init__(self, database: Database, clock: Clock, days: Days = default_days) -> None:
        self._run = database.run
        self._collection = database.collection(COLLECTION)
        self._chunks = database.collection(f"{BUCKET}.chunks")
        self._files = database.collection(f"{BUCKET}.files")
        self._bucket = database.bucket(BUCKET)
        self._clock = clock
        self._days = days

    async def put(
        self, tenant: str, data: bytes, *, keep_s: float | None, about: str = "", name: str | None = None
    ) -> str:
        """Store the bytes for at least `keep_s` seconds and return their id."""
        kept = kept_for(self._days(tenant, "turns") + WAIT_DAYS) if keep_s is None else _in(keep_s)
        expires_at = [{"$set": {"expires_at": kept}}]
        if name is not None and await self._keep(tenant, name, expires_at):
            return name
        blob = self._clock.new_id() if name is None else name
        document: dict[str, Any] = {"size": len(data), "data": data}
        if len(data) > INLINE_MAX_BYTES:
            # Of its own for each upload: two at once would write each other's chunks.
            file = self._clock.new_id()
            await self._run(self._bucket.upload_from_stream_with_id(file, blob, data))
            await self._date(file, expires_at)
            document |= {"data": None, "file": file}
        if about:
            document["about"] = {"$literal": about}
        stored = [{"$set": document}, *expires_at]
        try:
            await self._run(self._collection.update_one({"_id": blob, "tenant": tenant}, stored, upsert=True))
        except Conflict:
            # Two stored the same name at once, and the other was first.
            if not await self._keep(tenant, blob, expires_at):
                raise
        return blob

    async def get(self, tenant: str, blob: str) -> bytes | None:
        """Return the bytes, or `None`."""
        document = await self._run(self._collection.find_one({"_id": blob, "tenant": tenant}))
        if document is None:
            return None
        data = document["data"]
        if data is None:
            stream = await self._run(self._bucket.open_download_stream(document.get("file", blob)))
            data = await self._run(stream.read())
        if len(data) != document["size"]:
            raise Bug("a blob has another size than was stored")
        return bytes(data)

    async def forget(self, tenant: str, about: str, blobs: Sequence[str] = ()) -> None:
        """Remove what belongs to `about`, and the blobs named besides."""
        mine = {"tenant": tenant, "$or": [{"about": about}, {"_id": {"$in": list(blobs)}}]}
        found = await self._run(self._collection.find(mine, {"size": 1}).to_list(None))
        if not found:
            return
        large = [document["_id"] for document in found if document["size"] > INLINE_MAX_BYTES]
        if large:
            # The document goes last: who dies before that finds it again.
            files = await self._run(self._files.find({"filename": {"$in": large}}, {"_id": 1}).to_list(None))
            names = {"$in": [file["_id"] for file in files]}
            await self._run(self._chunks.delete_many({"files_id": names}))
            await self._run(self._files.delete_many({"_id": names}))
        await self._run(self._collection.delete_many({**mine, "_id": {"$in": [each["_id"] for each in found]}}))

    async def _keep(self, tenant: str, blob: str, expires_at: list[dict[str, Any]]) -> bool:
        """Keep a blob for longer; tell whether it is stored."""
        mine = {"_id": blob, "tenant": tenant}
        document = await self._run(self._collection.find_one_and_update(mine, expires_at, {"file": 1}))
        if document is not None and "file" in document:
            await self._date(document["file"], expires_at)
        return document is not None

    async def _date(self, file: str, expires_at: list[dict[str, Any]]) -> None:
        await self._run(self._chunks.update_many({"files_id": file}, expires_at))
        await self._run(self._files.update_many({"_id": file}, expires_at))


def _in(seconds: float) -> dict[str, Any]:
    return {"$add": ["$$NOW", int(seconds * 1000)]}
