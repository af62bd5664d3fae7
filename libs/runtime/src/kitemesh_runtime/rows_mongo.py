"""An agent's rows in MongoDB: they are the turns' own documents, each of which says how many rows it is.

Two partial indexes hold the first number and the count of each turn, so that counting, and finding the turns of a page,
reads no document. The numbers come from one counter for each tenant and agent, in a collection of their own.
"""

from typing import Any, Final, get_args

from pymongo import ASCENDING, DESCENDING, ReturnDocument

from kitemesh_contracts.errors import Bug, Conflict
from kitemesh_contracts.ids import is_id
from kitemesh_runtime.documents_mongo import Document, read
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.live_turns import LiveStatus
from kitemesh_runtime.live_turns_mongo import decode_turn
from kitemesh_runtime.rows import BLOCK, RowPage, RowQuery, select
from kitemesh_runtime.turns_mongo import COLLECTION as TURNS

COLLECTION: Final = "row_counters"
_PARTIAL: Final = 2
"""The first and the last turn of a page may lie across its bounds."""


class MongoRows:
    """The `Rows` port on MongoDB."""

    def __init__(self, database: Database) -> None:
        self._database: Final = database
        self._run = database.run
        self._counters = database.collection(COLLECTION)
        self._turns = database.collection(TURNS)

    async def reserve(self, tenant: str, agent: str) -> int:
        """Return the first number of a block that nobody else has; one reserved later is higher."""
        if not (is_id(tenant) and is_id(agent)):
            raise Bug("the tenant or the agent of a counter is not an id, so its name would be ambiguous")
        try:
            return await self._reserve(tenant, agent)
        except Conflict:
            # Two made the counter at the same time.
            return await self._reserve(tenant, agent)

    async def page(self, tenant: str, agent: str, query: RowQuery) -> RowPage:
        """Return a page; what cannot be read is left out, and logged."""
        match = numbered(tenant, agent, query)
        direction = DESCENDING if query.after is None else ASCENDING
        most = query.limit + _PARTIAL + 1
        found: list[Document] = await self._run(
            self._turns.find(match, {"_id": 0, "row": 1, "rows": 1}).sort("row", direction).limit(most).to_list(most)
        )
        wanted: list[int] = []
        sure = 0
        for turn in found:
            if sure > query.limit:
                break
            first: int = turn["row"]
            wanted.append(first)
            is_inside = (query.before is None or first + BLOCK <= query.before) and (
                query.after is None or first > query.after
            )
            sure += turn["rows"] if is_inside else 0
        if not wanted:
            return RowPage((), has_more=False)
        documents = await self._run(
            self._turns.find({**match, "row": {"$in": wanted}}, {"state": 0}).to_list(len(wanted))
        )
        turns = [read(TURNS, _stateless(document), decode_turn) for document in documents]
        page = select((turn for turn in turns if turn is not None), query)
        return page._replace(has_more=page.has_more or len(wanted) < len(found))

    async def count(self, tenant: str, agent: str, *, conversation: str | None = None) -> int:
        """Count all rows, or those of one conversation."""
        answer = await self._database.command(counting(tenant, agent, conversation))
        batch = answer["cursor"]["firstBatch"]
        return int(batch[0]["rows"]) if batch else 0

    async def unended(self, tenant: str, agent: str, *, conversation: str | None = None) -> list[str]:
        """Return the turns that have rows and have not ended, oldest first."""
        match: Document = {"tenant": tenant, "status": {"$in": list(get_args(LiveStatus))}, "agent": agent}
        if conversation is not None:
            match["conversation"] = conversation
        live = {**match, "live": True, "row": {"$exists": True}}
        documents = await self._run(self._turns.find(live, {"_id": 1}).sort("_id", ASCENDING).to_list(None))
        return [document["_id"] for document in documents]

    async def _reserve(self, tenant: str, agent: str) -> int:
        counter: dict[str, Any] = await self._run(
            self._counters.find_one_and_update(
                {"_id": f"{tenant}:{agent}"},
                {"$inc": {"last": BLOCK}, "$setOnInsert": {"tenant": tenant, "agent": agent}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        )
        return int(counter["last"]) - BLOCK + 1


def numbered(tenant: str, agent: str, query: RowQuery) -> Document:
    """Match the turns that may have rows of a page, as the partial indexes serve them."""
    match: Document = {"tenant": tenant, "agent": agent, "rows": {"$gt": 0}}
    if query.conversation is not None:
        match["conversation"] = query.conversation
    bounds: Document = {}
    if query.before is not None:
        bounds["$lt"] = query.before
    if query.after is not None:
        bounds["$gt"] = query.after - BLOCK + 1
    if bounds:
        match["row"] = bounds
    return match


def counting(tenant: str, agent: str, conversation: str | None) -> Document:
    """Return the command that counts rows."""
    total = {"_id": None, "rows": {"$sum": "$rows"}}
    match = numbered(tenant, agent, RowQuery(conversation))
    return {"aggregate": TURNS, "pipeline": [{"$match": match}, {"$group": total}], "cursor": {}}


def _stateless(document: Document) -> Document:
    """Give a live turn that was read without its state an empty one: nobody looks into it here."""
    if "live" in document:
        document["state"] = b""
    return document
