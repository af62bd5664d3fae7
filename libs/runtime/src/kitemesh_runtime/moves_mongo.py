"""Documents that an earlier release wrote under names which are others now, and the calls that move them.

`kitemesh bootstrap` runs them before the services of this release are started; again they find nothing. A document that
was written anew meanwhile stays, and the old one goes.
"""

import hashlib
from typing import Final

from kitemesh_contracts.errors import Conflict
from kitemesh_contracts.ids import uuid7
from kitemesh_runtime import conversations_mongo
from kitemesh_runtime.conversation_updates_mongo import Document, name_of, read_conversation
from kitemesh_runtime.driver_mongo import Database

PAGE: Final = 500
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
