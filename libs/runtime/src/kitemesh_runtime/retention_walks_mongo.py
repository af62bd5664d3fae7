"""A changed retention, brought to what is stored already: page by page, taken up again where it stopped.

Each tenant whose days were changed has a document that says how far they have been brought; the one for the default
walks over everything, and so dates what an earlier release stored without a date. The audit is not walked over: what is
written there is never changed.
"""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple, get_args

from bson.min_key import MinKey
from pymongo import ASCENDING, ReturnDocument, UpdateMany

from kitemesh_contracts.deltas import TurnOutcome
from kitemesh_contracts.errors import Conflict
from kitemesh_runtime import claims_mongo, conversations_mongo, holds_mongo, ledger_mongo, turns_mongo
from kitemesh_runtime.claims import KEY_CLAIMS
from kitemesh_runtime.conversation_updates_mongo import LOCKED
from kitemesh_runtime.documents_mongo import Document, literal
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.retention import days_of
from kitemesh_runtime.retention_mongo import KEPT, TOMBSTONE, kept_for
from kitemesh_runtime.tenancy import DEFAULT_TENANT, Kind, TenantRecord, Tenants

COLLECTION: Final = "retention"
MARK: Final = ".changes"
"""No tenant can be called so."""
PAGE: Final = 500
PAGES: Final = 20
"""Of one call: other replicas may go on with the rest."""
LEASE_MS: Final = 30_000
HEARD_MS: Final = 30_000
"""Longer than it takes until every service writes with the changed days."""
ROLLED_OUT_MS: Final = 3600 * 1000
"""By then nothing of the release before writes any more."""

IS_DUE: Final[Document] = {"due": {"$type": "date"}, "$expr": {"$lte": ["$due", "$$NOW"]}}

Range = Callable[[str, object], Document]

# What follows its kind is a client's own word.
_KEY_CLAIM: Final[Document] = {"$regexMatch": {"input": "$_id", "regex": f"^[^:]*:{KEY_CLAIMS}"}}


class _Walk(NamedTuple):
    """A collection to walk over.

    Attributes:
        since: The date that the days count from.
        owned: Matches what is a tenant's behind an `_id`, where an index has it in that order.

    """

    collection: str
    kind: Kind
    since: str
    owned: Range | None = None


def _named(tenant: str, last: object) -> Document:
    behind = last if isinstance(last, str) else f"{tenant}:"
    return {"_id": {"$gt": behind, "$lt": f"{tenant};"}}


def _ended(tenant: str, last: object) -> Document:
    return {"tenant": tenant, "status": {"$in": list(get_args(TurnOutcome))}, "_id": {"$gt": last}}


_WALKS: Final = (
    _Walk(turns_mongo.COLLECTION, "turns", turns_mongo.STORED, _ended),
    _Walk(conversations_mongo.COLLECTION, "conversations", "updated_at", _named),
    _Walk(claims_mongo.COLLECTION, "turns", "claimed_at", _named),
    _Walk(holds_mongo.COLLECTION, "holds", "ended_at"),
    _Walk(ledger_mongo.COLLECTION, "ledger", "dispatched_at"),
)
_ALL: Final = frozenset(walk.kind for walk in _WALKS)


class MongoRetention:
    """The `Retention` port on MongoDB."""

    def __init__(self, database: Database, tenants: Tenants) -> None:
        self._database: Final = database
        self._run = database.run
        self._plans = database.collection(COLLECTION)
        self._tenants: Final = tenants

    async def apply(self) -> bool:
        """Bring changed days to what is stored, a bounded number of documents; tell whether more is to be done now."""
        await self._note_changes()
        mine = uuid.uuid4().hex
        plan: Document | None = await self._run(
            self._plans.find_one_and_update(
                IS_DUE,
                [{"$set": {"by": mine, "due": {"$add": ["$$NOW", LEASE_MS]}}}],
                return_document=ReturnDocument.AFTER,
            ),
        )
        if plan is None:
            return False
        left, last = await self._go_on(plan["_id"], plan["left"], plan.get("last", MinKey()))
        goes_on: Document = {"left": left, "last": literal(last), "due": "$$NOW" if left else "$$REMOVE"}
        await self._run(self._plans.update_one({"_id": plan["_id"], "by": mine}, [{"$set": goes_on}]))
        return True

    async def _note_changes(self) -> None:
        mark = await self._run(self._plans.find_one({"_id": MARK}))
        if mark is None:
            await self._plan(DEFAULT_TENANT, {}, _ALL, ROLLED_OUT_MS)
        since: float = 0.0 if mark is None else mark["since"]
        changed, now = await self._tenants.changes(since)
        for tenant in changed:
            record = await self._tenants.get(tenant)
            wanted = {} if record is None else dict(record.retention_days)
            found = await self._run(self._plans.find_one({"_id": tenant}, {"days": 1}))
            before = {} if found is None else found["days"]
            if wanted != before:
                kinds = {kind for kind in get_args(Kind) if wanted.get(kind) != before.get(kind)}
                await self._plan(tenant, wanted, kinds, HEARD_MS)
        if mark is None or now != since:
            await self._run(self._plans.update_one({"_id": MARK}, {"$set": {"since": now}}, upsert=True))

    async def _plan(self, tenant: str, days: Mapping[Kind, int], kinds: Collection[Kind], after_ms: int) -> None:
        concerned = [walk.collection for walk in _WALKS if walk.kind in kinds]
        unfinished = {"$ifNull": ["$left", []]}
        left = {"$in": ["$$this", {"$concatArrays": [concerned, unfinished]}]}
        plan = {
            "days": literal(dict(days)),
            "left": {"$filter": {"input": [walk.collection for walk in _WALKS], "as": "this", "cond": left}},
            "last": MinKey(),
            # Never earlier than it was to be: services of the release before may write still.
            "due": {"$max": ["$due", {"$add": ["$$NOW", after_ms]}]},
            # Whoever is at it has the days from before.
            "by": "",
        }
        try:
            await self._run(self._plans.update_one({"_id": tenant}, [{"$set": plan}], upsert=True))
        except Conflict:
            # Two noted it at the same time.
            return

    async def _go_on(self, tenant: str, left: Sequence[str], last: object) -> tuple[list[str], object]:
        """Walk over some pages; return the collections that are left, and behind what to go on in the first."""
        days = _Known(self._tenants)
        walks = {walk.collection: walk for walk in _WALKS}
        rest = list(left)
        loop = asyncio.get_running_loop()
        # Whoever is as slow as that gives up its place before somebody else takes it, and nothing is done again.
        stop_s = loop.time() + LEASE_MS / 3000
        for _ in range(PAGES):
            if not rest or loop.time() > stop_s:
                break
            walk = walks[rest[0]]
            page = await self._page(walk, tenant, last)
            operations = []
            for owner, names in _by_owner(page, tenant).items():
                expression = _date(walk, await days.of(owner, walk.kind))
                operations.append(UpdateMany({"_id": {"$in": names}, "tenant": owner}, [{"$set": {KEPT: expression}}]))
            if operations:
                for error in (await self._database.write_group(walk.collection, operations)).values():
                    raise error
            last = page[-1]["_id"] if page else last
            if len(page) < PAGE:
                rest, last = rest[1:], MinKey()
        return rest, last

    async def _page(self, walk: _Walk, tenant: str, last: object) -> list[Document]:
        match: Document = {"_id": {"$gt": last}}
        if tenant != DEFAULT_TENANT and walk.owned is not None:
            match = walk.owned(tenant, last)
        found = self._database.collection(walk.collection).find(match, {"tenant": 1}).sort("_id", ASCENDING).limit(PAGE)
        page: list[Document] = await self._run(found.to_list(PAGE))
        return page


class _Known:
    """What is said of the tenants of a few pages, read once."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        self._records: dict[str, TenantRecord | None] = {}

    async def of(self, tenant: str, kind: Kind) -> int:
        """Say how many days hold."""
        for name in (tenant, DEFAULT_TENANT):
            if name not in self._records:
                self._records[name] = await self._tenants.get(name)
        return days_of(self._records[tenant], self._records[DEFAULT_TENANT], kind)


def _by_owner(page: Sequence[Document], tenant: str) -> dict[str, list[Any]]:
    owned: dict[str, list[Any]] = defaultdict(list)
    for document in page:
        owner = document.get("tenant")
        if isinstance(owner, str) and tenant in (DEFAULT_TENANT, owner):
            owned[owner].append(document["_id"])
    return owned


def _date(walk: _Walk, days: int) -> Document:
    since = f"${walk.since}"
    moment = {"$toDate": since}
    branches: list[Document] = [
        {
            "case": {"$eq": [f"${turns_mongo.DELETED}", True]},
            "then": {"$ifNull": [f"${KEPT}", TOMBSTONE[KEPT]]},
        },
        {"case": {"$in": [{"$type": since}, ["date", "timestamp"]]}, "then": kept_for(days, moment)},
    ]
    if walk.collection == conversations_mongo.COLLECTION:
        branches.insert(0, {"case": LOCKED, "then": "$$REMOVE"})
    if walk.collection == claims_mongo.COLLECTION:
        kept = {"$ifNull": [f"${KEPT}", "$expires_at", kept_for(1, moment)]}
        branches.insert(0, {"case": _KEY_CLAIM, "then": kept})
    return {"$switch": {"branches": branches, "default": "$$REMOVE"}}
