"""Documents as an earlier release wrote them, and the calls that make them what they are now.

`kitemesh bootstrap` runs them before the services of this release are started; again they find nothing. A document that
was written anew meanwhile stays, and the old one goes.
"""

import hashlib
from typing import Final

from bson.min_key import MinKey
from pymongo import ASCENDING

from kitemesh_contracts.errors import Conflict
from kitemesh_contracts.ids import uuid7
from kitemesh_runtime import audit_mongo, conversations_mongo, retention_walks_mongo, turns_mongo
from kitemesh_runtime.conversation_updates_mongo import Document, name_of, read_conversation
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.indexes_mongo import OBSOLETE
from kitemesh_runtime.retention_mongo import KEPT, kept_for
from kitemesh_runtime.tenancy import DEFAULT_DAYS

PAGE: Final = 500
ROWS: Final = 2_000
_MS: Final = 1000
_RANDOM_BYTES: Final = 10
"""Of an id. Here they come from the document's name: pages of a list need places that differ within a second."""


async def move_conversations(database: Database) -> int:
    """Give conversations the names that begin with their tenants, and a place in lists; return how many were moved.

    Raises:
        Unavailable: The store does not answer; again it does what is left.

    """
    collection = database.collection(conversations_mongo.COLLECTION)
    moved = 0
    while True:
        old: list[Document] = await database.run(
            collection.find({"_id": {"$not": {"$regex": ":"}}, "tenant": {"$type": "string"}}).limit(PAGE).to_list(PAGE)
        )
        for document in old:
            named = {**document, "_id": name_of(document["tenant"], document["_id"])}
            created_ms = round(read_conversation(document).created_at_s * _MS)
            # Turns that began conversations are in the order of their time, and so is this.
            place = hashlib.sha256(document["_id"].encode()).digest()[:_RANDOM_BYTES]
            named.setdefault("first", uuid7(created_ms, place))
            try:
                await database.run(collection.insert_one(named))
            except Conflict:
                moved -= 1
            await database.run(collection.delete_one({"_id": document["_id"]}))
        moved += len(old)
        if len(old) < PAGE:
            return moved


async def date_audit(database: Database) -> int:
    """Give rows of the audit the date on which they go; return how many got one.

    Nobody changes a row later, so this is done here, each time: services of the release before go on writing rows
    without a date until they are stopped. All else that was stored without one gets it from the sweep.

    Raises:
        Unavailable: The store does not answer; again it does what is left.

    """
    collection = database.collection(audit_mongo.COLLECTION)
    given, last = 0, MinKey()
    date = [{"$set": {KEPT: kept_for(DEFAULT_DAYS["audit"], "$at")}}]
    while True:
        # Page by page, because to look for what is not there would take one call as long as the audit is.
        rows = collection.find({"_id": {"$gt": last}}, {KEPT: 1}).sort("_id", ASCENDING).limit(ROWS)
        page: list[Document] = await database.run(rows.to_list(ROWS))
        undated = [row["_id"] for row in page if KEPT not in row]
        if undated:
            dateless = {"_id": {"$in": undated}, KEPT: None, "at": {"$type": "date"}}
            given += (await database.run(collection.update_many(dateless, date))).modified_count
        if len(page) < ROWS:
            return given
        last = page[-1]["_id"]


async def date_rest(database: Database) -> bool:
    """Have the sweep date all that has no date, if an earlier release stored it; tell whether it will.

    Its indexes are still there, or again where it was gone back to: so this comes before they are dropped.
    """
    found = await database.run(database.collection(turns_mongo.COLLECTION).index_information())
    is_due = any((turns_mongo.COLLECTION, name) in OBSOLETE for name in found)
    if is_due:
        marks = database.collection(retention_walks_mongo.COLLECTION)
        await database.run(marks.delete_one({"_id": retention_walks_mongo.MARK}))
    return is_due
