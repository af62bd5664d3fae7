"""The knowledge base in MongoDB: a document for each of its documents, one for each passage, and a text index.

Passages are stored under an edition that nobody sees until the document names it, so a replacement takes effect in one
write. A document lists every edition that was begun and is not gone: removing it removes also what a crash left behind.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from pymongo import ASCENDING, DESCENDING, InsertOne, ReturnDocument

from kitemesh_contracts.errors import Bug, Conflict, ErrorCode
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.documents_mongo import Document, Pipeline, encode, from_document, literal, take_time
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.knowledge import KnowledgeDocument, Passage, Stored, Told, tell_nobody
from kitemesh_runtime.knowledge_chunks import Chunk
from kitemesh_runtime.knowledge_words import is_unspaced, searched_words, words_of
from kitemesh_runtime.searching_mongo import Searching

COLLECTION: Final = "knowledge"
PASSAGES: Final = "passages"
BATCH: Final = 100
"""Passages of one write: indexing their words is what takes time, and one call has about two seconds."""

ROUNDS: Final = 3
"""A search is repeated so often at the most, when documents are replaced under it."""

_SHOWN: Final = {"editions": 0, "edition": 0, "replaced": 0, "obsolete": 0}
_HIDE: Final[Pipeline] = [
    {
        "$set": {
            "obsolete": {"$concatArrays": [{"$ifNull": ["$obsolete", []]}, "$editions"]},
            # What is being stored at this moment finds itself removed.
            "editions": [],
        },
    },
    {"$unset": ["edition", "created_at"]},
]
_BEST_FIRST: Final = [("score", {"$meta": "textScore"})]


class MongoKnowledge:
    """The `Knowledge` port on MongoDB. Ids come from the clock."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._run = database.run
        self._searching = Searching(database)
        self._write = database.write_group
        self._documents = database.collection(COLLECTION)
        self._passages = database.collection(PASSAGES)
        self._clock = clock

    async def put(
        self,
        tenant: str,
        base: str,
        name: str,
        chunks: Sequence[Chunk],
        *,
        characters: int,
        told: Told = tell_nobody,
    ) -> Stored:
        """Store a document, or put it in the place of the one of that name.

        Raises:
            Conflict: It was removed meanwhile (`store.stale`).
            BadRequest: It holds text that cannot be stored.

        """
        edition = self._clock.new_id()
        own = {"tenant": tenant, "base": base, "edition": edition}
        rows = [encode({**own, "_id": f"{edition}:{n}", "n": n, **_row(chunk)}) for n, chunk in enumerate(chunks)]
        document = await self._begin(tenant, base, name, edition)
        for first in range(0, len(rows), BATCH):
            batch = rows[first : first + BATCH]
            for error in (await self._write(PASSAGES, [InsertOne(row) for row in batch])).values():
                raise error
            told(first + len(batch))
        shown = {"characters": characters, "passages": len(rows)}
        done = await self._run(
            self._documents.find_one_and_update(
                {"_id": document, "tenant": tenant, "editions": edition},
                [{"$set": {**_switched(edition), **{field: literal(value) for field, value in shown.items()}}}],
                return_document=ReturnDocument.AFTER,
            ),
        )
        if done is None:
            await self._forget(tenant, [edition])
            raise Conflict(ErrorCode.STALE, "The document was removed while it was being stored")
        replaced = done["replaced"]
        obsolete = [*done.get("obsolete", ()), *([] if replaced is None else [replaced])]
        if obsolete:
            await self._forget(tenant, obsolete)
            pulled = {"$pullAll": {"obsolete": obsolete, "editions": obsolete}}
            await self._run(self._documents.update_one({"_id": document, "tenant": tenant}, pulled))
        return Stored(_decode(done), replaced is None)

    async def get(self, tenant: str, document: str) -> KnowledgeDocument | None:
        """Return the document, or `None`."""
        return await self._one({"_id": document, "tenant": tenant})

    async def find(self, tenant: str, base: str, name: str) -> KnowledgeDocument | None:
        """Return the document of that name, or `None`."""
        return await self._one({"tenant": tenant, "base": base, "name": name})

    async def page(
        self, tenant: str, *, base: str | None = None, before: str | None = None, limit: int
    ) -> list[KnowledgeDocument]:
        """Return documents, those last that were stored first."""
        match: Document = {"tenant": tenant, "edition": {"$exists": True}}
        if base is not None:
            match["base"] = base
        if before is not None:
            match["_id"] = {"$lt": before}
        found = self._documents.find(match, _SHOWN).sort([("_id", DESCENDING)]).limit(limit)
        return [_decode(document) for document in await self._run(found.to_list(None))]

    async def read(self, tenant: str, document: str) -> list[Chunk] | None:
        """Return what a document was cut into, in order; `None` when there is none."""
        match = {"_id": document, "tenant": tenant, "edition": {"$exists": True}}
        current = await self._run(self._documents.find_one(match, {"edition": 1}))
        if current is None:
            return None
        rows = self._passages.find({"tenant": tenant, "edition": current["edition"]}, {"heading": 1, "text": 1, "n": 1})
        return [
            Chunk(row["heading"], row["text"]) for row in await self._run(rows.sort([("n", ASCENDING)]).to_list(None))
        ]

    async def remove(self, tenant: str, document: str) -> bool:
        """Remove a document and all that was ever stored of it; tell whether it was there."""
        own: Document = {"_id": document, "tenant": tenant}
        # Out of sight first. Its passages go before it does, so that a crash leaves nothing that nobody knows of.
        gone = await self._run(self._documents.find_one_and_update(own, _HIDE))
        if gone is None:
            return False
        obsolete = [*gone.get("obsolete", ()), *gone["editions"]]
        await self._forget(tenant, obsolete)
        left = await self._run(self._documents.delete_one({**own, "editions": []}))
        if not left.deleted_count:
            await self._run(self._documents.update_one(own, {"$pullAll": {"obsolete": obsolete}}))
        return "edition" in gone

    async def search(self, tenant: str, query: str, *, bases: Sequence[str], limit: int) -> list[Passage]:
        """Return passages that have words of the query in them, the best of each base first."""
        # Of letters and digits alone: quotes and minus signs would be operators.
        words = " ".join(searched_words(query))
        if not words:
            return []
        hidden: set[str] = set()
        for _ in range(ROUNDS):
            found = await asyncio.gather(*(self._search(tenant, words, base, limit, hidden) for base in bases))
            rows = [row for each in found for row in each]
            editions = {row["edition"] for row in rows}
            names = await self._names(tenant, [*editions, *hidden])
            # What nobody sees yet, or any more, must not take the place of what is to be seen.
            unseen = (editions | hidden) - names.keys()
            if unseen == hidden:
                break
            hidden = unseen
        return [
            Passage(row["text"], names[row["edition"]], row["heading"], row["score"])
            for row in rows
            if row["edition"] in names
        ]

    async def _search(self, tenant: str, words: str, base: str, limit: int, hidden: set[str]) -> list[Document]:
        match: Document = {"tenant": tenant, "base": base, "$text": {"$search": words}}
        if hidden:
            match["edition"] = {"$nin": list(hidden)}
        shown = {"score": {"$meta": "textScore"}, "edition": 1, "heading": 1, "text": 1}
        best = self._passages.find(match, shown).sort(_BEST_FIRST).limit(limit)
        rows: list[Document] = await self._searching.run(lambda: best.to_list(None))
        return rows

    async def _names(self, tenant: str, editions: list[str]) -> dict[str, str]:
        """Return the names of the documents whose current editions are among these."""
        if not editions:
            return {}
        current = self._documents.find({"tenant": tenant, "edition": {"$in": editions}}, {"edition": 1, "name": 1})
        return {each["edition"]: each["name"] for each in await self._run(current.to_list(None))}

    async def _begin(self, tenant: str, base: str, name: str, edition: str) -> str:
        """Note that an edition is on its way, and return the document's id."""
        call: Document = {"$push": {"editions": edition}, "$setOnInsert": {"_id": self._clock.new_id()}}
        match = {"tenant": tenant, "base": base, "name": name}
        for _ in range(2):
            try:
                begun = await self._run(
                    self._documents.find_one_and_update(
                        match, call, {"_id": 1}, upsert=True, return_document=ReturnDocument.AFTER
                    ),
                )
            except Conflict:
                # Somebody else inserted it at the same time; now it is there.
                continue
            return str(begun["_id"])
        raise Bug("a document of the knowledge base can neither be inserted nor found")

    async def _forget(self, tenant: str, editions: Sequence[str]) -> None:
        await self._run(self._passages.delete_many({"tenant": tenant, "edition": {"$in": list(editions)}}))

    async def _one(self, match: Document) -> KnowledgeDocument | None:
        found = await self._run(self._documents.find_one({**match, "edition": {"$exists": True}}, _SHOWN))
        return None if found is None else _decode(found)


def _row(chunk: Chunk) -> Document:
    row: Document = {"heading": chunk.heading, "text": chunk.text}
    if is_unspaced(chunk.text):
        # The server parts words at blanks only.
        row["words"] = " ".join(words_of(f"{chunk.heading} {chunk.text}"))
    return row


def _switched(edition: str) -> dict[str, Any]:
    # What was current stays listed until its passages are gone.
    return {
        "edition": literal(edition),
        "replaced": {"$ifNull": ["$edition", None]},
        "created_at": {"$ifNull": ["$created_at", "$$NOW"]},
        "updated_at": "$$NOW",
    }


def _decode(document: Document) -> KnowledgeDocument:
    take_time(document, "created_at", "created_at_s")
    take_time(document, "updated_at", "updated_at_s")
    return from_document(document, KnowledgeDocument)
