"""Conversations in MongoDB: each call is one write, grouped where nobody needs its answer.

What an update computes is said in `conversation_updates_mongo`, of lists and deletion in `conversation_lists_mongo`;
here are the calls.
"""

from collections.abc import Sequence
from typing import Any, Final

from pymongo import DESCENDING, InsertOne, ReturnDocument, UpdateOne

from kitemesh_contracts.errors import Conflict
from kitemesh_runtime import conversation_lists_mongo as lists
from kitemesh_runtime import conversation_updates_mongo as updates
from kitemesh_runtime import turns_mongo
from kitemesh_runtime.conversations import Buried, Conversation, Promoted, Seat
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.retention import Days, default_days
from kitemesh_runtime.retention_mongo import dated
from kitemesh_runtime.searching_mongo import Searching
from kitemesh_runtime.writer_mongo import GroupedWriter

COLLECTION: Final = "conversations"


class MongoConversations:
    """The `Conversations` port on MongoDB.

    Args:
        database: Where they are.
        inserts: Writes new conversations.
        changes: Writes to existing ones; a group of both kinds would take two turns on the wire.
        days: How long they are kept after they have changed; one with a turn in it stays.

    """

    def __init__(
        self, database: Database, inserts: GroupedWriter, changes: GroupedWriter, days: Days = default_days
    ) -> None:
        self._run = database.run
        self._collection = database.collection(COLLECTION)
        self._turns = database.collection(turns_mongo.COLLECTION)
        self._searching = Searching(database)
        self._inserts = inserts
        self._changes = changes
        self._days = days

    async def create(
        self,
        tenant: str,
        conversation: str,
        turn: str,
        *,
        agent: str | None,
        model: str = "",
        for_s: float | None = None,
    ) -> bool:
        """Insert a conversation whose lock the turn holds (ordinal 1), unless it exists; tell whether; grouped."""
        new = updates.locked(tenant, conversation, turn, agent=agent, model=model, for_s=for_s)
        try:
            await self._inserts.submit(InsertOne(new))
        except Conflict:
            return False
        return True

    async def get(self, tenant: str, conversation: str) -> Conversation | None:
        """Return the conversation, or `None`."""
        document = await self._run(self._collection.find_one(lists.is_kept(tenant, conversation)))
        return None if document is None else updates.read_conversation(document)

    async def take(self, tenant: str, conversation: str, turn: str, start: bytes, *, max_waiting: int) -> Seat:
        """Take the lock, or a place in the queue, in one write. A turn found there keeps its place."""
        document = await self._change(
            tenant,
            lists.is_kept(tenant, conversation),
            updates.take(turn, start, max_waiting),
            {"active": 1, "turns": 1, "waiting.turn": 1},
        )
        return updates.read_seat(document, turn)

    async def release(self, tenant: str, conversation: str, turn: str, *, agent: str | None = None) -> Promoted | None:
        """Give the lock up and promote the first who waits; a conversation not yet inserted is inserted, unlocked."""
        try:
            name = updates.name_of(tenant, conversation)
            pipeline = updates.release(turn, self._kept_days(tenant))
            await self._changes.submit(UpdateOne({"_id": name}, pipeline, upsert=True))
        except Conflict:
            return await self._hand_over(tenant, conversation, turn, agent)
        return None

    async def retake(self, tenant: str, conversation: str, turn: str, *, ordinal: int) -> bool:
        """Give the lock back to a turn that had it, if no turn came after it; tell whether it has it."""
        match = {**lists.is_kept(tenant, conversation), **updates.untouched_since(turn, ordinal)}
        return await self._change(tenant, match, updates.retake(turn), {"active": 1}) is not None

    async def extend(
        self, tenant: str, conversation: str, turn: str, *, for_s: float | None = None, until_s: float | None = None
    ) -> None:
        """Set the lock's end; grouped. Nothing happens unless the turn holds it and was started."""
        held = updates.held_by(tenant, conversation, turn)
        await self._changes.submit(UpdateOne({**held, "active_started": True}, updates.extend(for_s, until_s)))

    async def leave(self, tenant: str, conversation: str, turn: str) -> bool:
        """Take a waiting turn out of the queue; tell whether it was there."""
        mine = {"_id": updates.name_of(tenant, conversation), "waiting.turn": turn}
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
            swept = updates.read_promoted(await self._change(seen["tenant"], seen, updates.sweep()))
            if swept is not None:
                promoted.append(swept)
        return promoted

    async def page(self, tenant: str, *, before: str | None, limit: int) -> list[Conversation]:
        """Return conversations, those begun last first."""
        return await self._list(lists.page(tenant, before), limit)

    async def search(self, tenant: str, words: Sequence[str], *, before: str | None, limit: int) -> list[Conversation]:
        """Return conversations in whose title, or in one ended question, each word is, those begun last first."""
        if not words:
            return []
        most = lists.HITS_MAX
        titles = self._collection.find(lists.titles_that_say(tenant, words), {"_id": 1}).limit(most)
        # Not sorted: the server would look at every turn that has one of the words.
        turns = self._turns.find(lists.turns_that_say(tenant, words), {"conversation": 1}).limit(most)
        named = await self._searching.run(lambda: titles.to_list(most))
        said = await self._searching.run(lambda: turns.to_list(most))
        names = {document["_id"] for document in named}
        names |= {updates.name_of(tenant, document["conversation"]) for document in said}
        return await self._list(lists.among(sorted(names), before), limit)

    async def change(
        self, tenant: str, conversation: str, *, title: str | None = None, metadata: dict[str, str] | None = None
    ) -> Conversation | None:
        """Set what is given and return the conversation; `None` when there is none."""
        document = await self._change(tenant, lists.is_kept(tenant, conversation), lists.change(title, metadata))
        return None if document is None else updates.read_conversation(document)

    async def delete(self, tenant: str, conversation: str, *, also_unknown: bool = False) -> Conversation | None:
        """Delete a conversation and return what it was; again, within the hour, an empty one."""
        call: Any = self._collection.find_one_and_update(
            {"_id": updates.name_of(tenant, conversation)},
            lists.delete(tenant),
            upsert=also_unknown,
            return_document=ReturnDocument.BEFORE,
        )
        document: updates.Document | None = await self._run(call)
        if document is not None:
            return updates.read_conversation(document)
        return Conversation(id=conversation, tenant=tenant, created_at_s=0, updated_at_s=0) if also_unknown else None

    async def buried(self, *, limit: int = 100) -> list[Buried]:
        """Return conversations deleted within the hour that are to be cleared, of all tenants."""
        found = await self._run(self._collection.find(lists.to_clear(), {"tenant": 1}).limit(limit).to_list(limit))
        return [Buried(document["tenant"], updates.id_of(document["_id"])) for document in found]

    async def cleared(self, tenant: str, conversation: str) -> None:
        """Note that nothing was left of a deleted conversation: it is looked at again in five minutes."""
        later = lists.clear_in(lists.CLEAR_AGAIN_MS)
        await self._run(self._collection.update_one(lists.is_deleted(tenant, conversation), later))

    async def _list(self, match: updates.Document, limit: int) -> list[Conversation]:
        if limit < 1:
            return []
        found = self._collection.find(match).sort("first", DESCENDING).limit(limit)
        return [updates.read_conversation(document) for document in await self._run(found.to_list(limit))]

    async def _hand_over(self, tenant: str, conversation: str, turn: str, agent: str | None) -> Promoted | None:
        held = updates.held_by(tenant, conversation, turn)
        document = await self._change(tenant, held, updates.hand_over())
        if document is None:
            absent = updates.absent(tenant, conversation)
            unlocked = self._dated(tenant, updates.unlocked(turn, agent))
            try:
                await self._run(self._collection.update_one(absent, unlocked, upsert=True))
            except Conflict:
                # It exists: the lock is not the turn's, or its late insert has just arrived.
                document = await self._change(tenant, held, updates.hand_over())
                if document is None:
                    # Or it was deleted, and the turn may have been stored since.
                    deleted = lists.is_deleted(tenant, conversation)
                    await self._run(self._collection.update_one(deleted, lists.clear_in(0)))
        return updates.read_promoted(document)

    def _kept_days(self, tenant: str) -> int:
        return self._days(tenant, "conversations")

    def _dated(self, tenant: str, pipeline: updates.Pipeline) -> updates.Pipeline:
        return dated(pipeline, self._kept_days(tenant), "updated_at", unless=updates.LOCKED)

    async def _change(
        self,
        tenant: str,
        match: updates.Document,
        pipeline: updates.Pipeline,
        fields: updates.Document | None = None,
    ) -> updates.Document | None:
        call: Any = self._collection.find_one_and_update(
            match,
            self._dated(tenant, pipeline),
            projection=fields,
            return_document=ReturnDocument.AFTER,
        )
        document: updates.Document | None = await self._run(call)
        return document
