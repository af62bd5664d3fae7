"""What is due in a collection, oldest first, whatever some document there looks like.

A document that cannot be read is put off, so that it neither ends the sweep of all the others nor fills every page.
It knows no collection.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from pymongo import ASCENDING

from kitemesh_runtime.documents_mongo import Document, read
from kitemesh_runtime.driver_mongo import Database

T = TypeVar("T")

PUT_OFF_MS: Final = 60_000


async def find_due(
    database: Database, collection: str, due: Document, date: str, decode: Callable[[Document], T], *, limit: int
) -> list[T]:
    """Return what is due and can be read; a page may be short of what could not.

    Args:
        database: Where the collection is.
        collection: Its name.
        due: Matches what is due, now and no longer once it has been put off.
        date: The field by which it is due.
        decode: Reads one document; raises `Bug` for one that it cannot read.
        limit: How many to look at.

    """
    documents = database.collection(collection)
    found: list[T] = []
    unreadable: list[object] = []
    for document in await database.run(documents.find(due).sort(date, ASCENDING).limit(limit).to_list(limit)):
        name = document["_id"]
        decoded = read(collection, document, decode)
        if decoded is None:
            unreadable.append(name)
        else:
            found.append(decoded)
    if unreadable:
        later = {date: {"$add": ["$$NOW", PUT_OFF_MS]}}
        # What was written meanwhile is not due any more, and keeps its date.
        await database.run(documents.update_many({**due, "_id": {"$in": unreadable}}, [{"$set": later}]))
    return found
