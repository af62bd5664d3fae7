"""Conversations in MongoDB: each call is one write, grouped where nobody needs its answer.

What an update computes is said in `conversation_updates_mongo`; here are the calls.
"""

from typing import Any, Final

from pymongo import InsertOne, ReturnDocument, UpdateOne

from kitemesh_contracts.errors import Conflict
from kitemesh_runtime import conversation_updates_mongo as updates
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.stores import Conversation, Promoted, Seat
from kitemesh_runtime.writer_mongo import GroupedWriter

COLLECTION: Final = "conversations"


class MongoConversations:
    """The `Conversations` port on MongoDB.

    Args:
        database: Where they are.
        inserts: Writes new conversations.
        changes: Writes to existing ones; a group of both kinds would take two turns on the wire.

    """

    def __init__(self, database: Database, inserts: GroupedWriter, changes: GroupedWriter) -> None:
        self._run = database.run
        self._collection = database.collection(COLLECTION)
        self._inserts = inserts
        self._changes = changes

    async def create(
        self, tenant: str, conversation: str, turn: str, *, agent: str | None, for_s: float | None = None
    ) -> None:
        """Insert a conversation whose lock the turn holds (ordinal 1); grouped. Twice is the same as once.

        Raises:
            Conflict: The id is another tenant's (`store.duplicate`).

        """
        try:
            await self._inserts.submit(InsertOne(updates.locked(tenant, conversation, turn, agent, for_s)))
        except Conflict:
            if await self._run(self._collection.find_one({"_id": conversation, "tenant": tenant}, {"_id": 1})) is None:
                raise

    async def get(self, tenant: str, conversation: str) -> Conversation | None:
        """Return the conversation, or `None`."""
        document = await self._run(self._collection.find_one({"_id": conversation, "tenant": tenant}))
        return None if document is None else updates.read_conversation(document)

    async def take(self, tenant: str, conversation: str, turn: str, start: bytes, *, max_waiting: int) -> Seat:
        """Take the lock, or a place in the queue, in one write. A turn found there keeps its place."""
        document = await self._change(
            {"_id": conversation, "tenant": tenant},
            updates.take(turn, start, max_waiting),
            {"active": 1, "turns": 1, "waiting.turn": 1},
        )
        return updates.read_seat(document, turn)

    async def release(self, tenant: str, conversation: str, turn: str, *, agent: str | None = None) -> Promoted | None:
        """Give the lock up and promote the first who waits; a conversation not yet inserted is inserted, unlocked."""
        try:
            update = updates.release(tenant, turn)
            await self._changes.submit(UpdateOne({"_id": conversation}, update, upsert=True))
        except Conflict:
            return await self._hand_over(tenant, conversation, turn, agent)
        return None

    async def extend(
        self, tenant: str, conversation: str, turn: str, *, for_s: float | None = None, until_s: float | None = None
    ) -> None:
        """Set the lock's end; grouped. Nothing happens unless the turn holds it and was started."""
        held = updates.held_by(tenant, conversation, turn)
        await self._changes.submit(UpdateOne({**held, "active_started": True}, updates.extend(for_s, until_s)))

    async def leave(self, tenant: str, conversation: str, turn: str) -> bool:
        """Take a waiting turn out of the queue; tell whether it was there."""
        mine = {"_id": conversation, "tenant": tenant, "waiting.turn": turn}
        result = await self._run(self._collection.update_one(mine, {"$pull": {"waiting": {"turn": turn}}}))
        return bool(result.matched_count)

    async def renew(self, tenant: str, conversation: str, turn: str) -> None:
        """Put the lock's end at least 30 s ahead; grouped. Nothing happens unless the turn holds it and was started."""
        held = updates.held_by(tenant, conversation, turn)
        await self._changes.submit(UpdateOne({**held, "active_started": True}, updates.renew()))

    async def sweep(self, *, limit: int = 100) -> list[Promoted]:
        """Free locks that ran out and promote who waits; repeat promotions not taken up for 5 s. Over all tenants."""
        fields = dict.fromkeys(updates.DUE_FIELDS, 1)
        found = self._collection.find(updates.due(), fields).limit(limit)
        promoted: list[Promoted] = []
        for seen in await self._run(found.to_list(limit)):
            # The whole of what was seen is the filter: of many sweepers one gets each conversation.
            swept = updates.read_promoted(await self._change(seen, updates.sweep()))
            if swept is not None:
                promoted.append(swept)
        return promoted

    async def _hand_over(self, tenant: str, conversation: str, turn: str, agent: str | None) -> Promoted | None:
        held = updates.held_by(tenant, conversation, turn)
        document = await self._change(held, updates.hand_over())
        if document is None:
            absent = updates.absent(tenant, conversation)
            try:
                await self._run(self._collection.update_one(absent, updates.unlocked(agent), upsert=True))
            except Conflict:
                # It exists: the lock is not the turn's, or its late insert has just arrived.
                document = await self._change(held, updates.hand_over())
        return updates.read_promoted(document)

    async def _change(
        self,
        match: updates.Document,
        pipeline: updates.Pipeline,
        fields: updates.Document | None = None,
    ) -> updates.Document | None:
        call: Any = self._collection.find_one_and_update(
            match,
            pipeline,
            projection=fields,
            return_document=ReturnDocument.AFTER,
        )
        document: updates.Document | None = await self._run(call)
        return document
