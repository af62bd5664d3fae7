"""Blobs in MongoDB: in their document up to 8 MiB, above that in GridFS with the document naming them.

The document is written last, so a blob is whole or not there. Retention removes the document and, by a date that
each chunk is given, what GridFS holds.
"""

from typing import Any, Final

from kitemesh_contracts.errors import Bug
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.driver_mongo import Database

COLLECTION: Final = "blobs"
BUCKET: Final = "large_blobs"
INLINE_MAX_BYTES: Final = 8 * 1024 * 1024


class MongoBlobs:
    """The `Blobs` port on MongoDB. Ids come from the clock; the server's clock says how long a blob is kept."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._run = database.run
        self._collection = database.collection(COLLECTION)
        self._parts = tuple(database.collection(f"{BUCKET}.{part}") for part in ("chunks", "files"))
        self._bucket = database.bucket(BUCKET)
        self._clock = clock

    async def put(self, tenant: str, data: bytes, *, keep_s: float) -> str:
        """Store the bytes for at least `keep_s` seconds and return their id."""
        blob = self._clock.new_id()
        expires_at = {"$add": ["$$NOW", int(keep_s * 1000)]}
        large = len(data) > INLINE_MAX_BYTES
        if large:
            await self._run(self._bucket.upload_from_stream_with_id(blob, blob, data))
            for part, field in zip(self._parts, ("files_id", "_id"), strict=True):
                await self._run(part.update_many({field: blob}, [{"$set": {"expires_at": expires_at}}]))
        document: dict[str, Any] = {
            "size": len(data),
            "data": None if large else data,
            "expires_at": expires_at,
        }
        await self._run(self._collection.update_one({"_id": blob, "tenant": tenant}, [{"$set": document}], upsert=True))
        return blob

    async def get(self, tenant: str, blob: str) -> bytes | None:
        """Return the bytes, or `None`."""
        document = await self._run(self._collection.find_one({"_id": blob, "tenant": tenant}))
        if document is None:
            return None
        data = document["data"]
        if data is None:
            stream = await self._run(self._bucket.open_download_stream(blob))
            data = await self._run(stream.read())
        if len(data) != document["size"]:
            raise Bug("a blob has another size than was stored")
        return bytes(data)
