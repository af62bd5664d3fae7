"""Usage in MongoDB: one document for each hour, tenant, key and model, filled from the turns by windows of their ends.

The window is named in one mark, by compare-and-set, before it is counted, so whoever takes over counts the same one;
each hour's document says up to where it was counted, so a window that is counted twice counts once. The server's clock
says what is settled. An end that was inserted has a timestamp of whole seconds, one that replaced a live turn a date:
windows are of whole seconds.
"""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final

from bson.timestamp import Timestamp
from pymongo import ASCENDING, DESCENDING, ReturnDocument, UpdateOne

from kitemesh_contracts.errors import Conflict
from kitemesh_runtime.documents_mongo import Document, literal
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.retention import Days, default_days
from kitemesh_runtime.retention_mongo import KEPT
from kitemesh_runtime.searching_mongo import Searching
from kitemesh_runtime.turns_mongo import BILL, STORED
from kitemesh_runtime.turns_mongo import COLLECTION as TURNS
from kitemesh_runtime.usage import COUNTS, FRESH_S, SETTLED_S, By, Period, UsageRow

COLLECTION: Final = "usage"
MARKS: Final = "usage_marks"
MARK: Final = "turns"
WINDOW_TURNS: Final = 1_000
"""Of one window: reading them has to be done within one call's time."""
BATCH: Final = 500
LEASE_MS: Final = 30_000

_BEGINNING: Final = datetime.fromtimestamp(0, UTC)
_SECOND: Final = timedelta(seconds=1)
_IS_FREE: Final[Document] = {"$lt": [{"$ifNull": ["$until", _BEGINNING]}, "$$NOW"]}
_OUTCOMES: Final = ("completed", "failed", "cancelled")
_NAMES: Final[dict[By, Any]] = {
    "day": {"$dateToString": {"date": "$hour", "format": "%Y-%m-%d"}},
    "model": "$model",
    "key": "$key",
    "tenant": "$tenant",
}


class MongoUsages:
    """The `Usages` port on MongoDB.

    Args:
        database: Where the turns and the counts are.
        days: How long the audit of a tenant is kept.

    """

    def __init__(self, database: Database, days: Days = default_days) -> None:
        self._database: Final = database
        self._run = database.run
        self._turns = database.collection(TURNS)
        self._hours = database.collection(COLLECTION)
        self._marks = database.collection(MARKS)
        self._days: Final = days
        self._searching: Final = Searching(database)

    async def roll_up(self) -> bool:
        """Count turns that were not counted, a bounded number; tell whether there are more to be counted now."""
        mark = await self._run(self._marks.find_one({"_id": MARK}))
        if mark is None:
            mark = {"_id": MARK, "upto": await self._counted_upto(), "until": _BEGINNING}
            try:
                await self._run(self._marks.insert_one(mark))
            except Conflict:
                return True
        bound = await self._bound(mark["upto"])
        mine = uuid.uuid4().hex
        claimed = await self._claim(mark["upto"], bound, mine)
        if claimed is None:
            return False
        since, upto = claimed["window"]["since"], claimed["window"]["upto"]
        await self._apply(await self._count(since, upto), upto)
        done = {"$set": {"upto": upto, "until": _BEGINNING}, "$unset": {"window": 1}}
        await self._run(self._marks.update_one({"_id": MARK, "by": mine}, done))
        return bool(upto == bound)

    async def read(
        self, tenant: str | None, period: Period, *, by: By, after: str | None = None, limit: int
    ) -> list[UsageRow]:
        """Return what a tenant's turns cost, the latest day first, else by name."""
        first, end = (datetime.combine(day, time(), UTC) for day in (period.first, period.end))
        # Of one tenant by its index; of all by the names, which begin with the hour.
        match: Document = {"_id": {"$gte": _hour_name(first), "$lt": _hour_name(end)}}
        if tenant is not None:
            match = {"tenant": tenant, "hour": {"$gte": first, "$lt": end}}
        is_day = by == "day"
        rest = [] if after is None else [{"$match": {"_id": {"$lt" if is_day else "$gt": after}}}]
        pipeline: list[Document] = [
            {"$match": match},
            {"$group": {"_id": _NAMES[by], **{name: {"$sum": f"${name}"} for name in COUNTS}}},
            *rest,
            {"$sort": {"_id": DESCENDING if is_day else ASCENDING}},
            {"$limit": limit},
        ]
        rows = await self._searching.run(lambda: self._database.aggregate(COLLECTION, pipeline))
        return [UsageRow(name=row["_id"], **{name: row[name] for name in COUNTS}) for row in rows]

    async def as_of(self) -> float:
        """Return up to when turns are counted, epoch seconds of the database's clock; 0 when none were ever."""
        mark = await self._run(self._marks.find_one({"_id": MARK}, {"upto": 1}))
        return 0.0 if mark is None else float(mark["upto"].timestamp())

    async def _counted_upto(self) -> datetime:
        """Return up to when turns were counted, of which only the counts tell where the mark was lost."""
        newest = self._hours.find({}, {"upto": 1}).sort("upto", DESCENDING).limit(1)
        found: list[Document] = await self._run(newest.to_list(1))
        return found[0]["upto"] if found else _BEGINNING

    async def _bound(self, since: datetime) -> datetime | None:
        """Return where a window ends that begins there, if it must end before all that is settled."""
        ends: list[datetime] = []
        for begins in (since, Timestamp(int(since.timestamp()), 0)):
            later = self._turns.find({STORED: {"$gte": begins}}, {"_id": 0, STORED: 1})
            found = await self._run(later.sort(STORED, ASCENDING).skip(WINDOW_TURNS).limit(1).to_list(1))
            if found:
                moment = found[0][STORED]
                end = moment.as_datetime() if isinstance(moment, Timestamp) else moment
                # Whole seconds, and never none.
                ends.append(max(end.replace(microsecond=0), since + _SECOND))
        return min(ends, default=None)

    async def _claim(self, upto: datetime, bound: datetime | None, mine: str) -> Document | None:
        """Name the next window, or take over the one that is named and that nobody counts any more."""
        settled = {"$dateTrunc": {"date": _ago(SETTLED_S), "unit": "second"}}
        named = {"since": "$upto", "upto": settled if bound is None else {"$min": [settled, bound]}}
        is_due = {"$lt": ["$upto", _ago(SETTLED_S + FRESH_S)]}
        change = {
            "by": literal(mine),
            "until": {"$add": ["$$NOW", LEASE_MS]},
            "window": {"$ifNull": ["$window", named]},
        }
        claimed: Document | None = await self._run(
            self._marks.find_one_and_update(
                {"_id": MARK, "upto": upto, "$expr": {"$and": [_IS_FREE, is_due]}},
                [{"$set": change}],
                return_document=ReturnDocument.AFTER,
            ),
        )
        return claimed

    async def _count(self, since: datetime, upto: datetime) -> list[Document]:
        seconds = [int(moment.timestamp()) for moment in (since, upto)]
        stamps = [Timestamp(second, 0) for second in seconds]
        ended = [{STORED: {"$gte": low, "$lt": high}} for low, high in ((since, upto), stamps)]
        served = {"$cond": [{"$gt": ["$served_by", ""]}, "$served_by", "$model"]}
        place = {
            "hour": {"$dateTrunc": {"date": {"$toDate": f"${STORED}"}, "unit": "hour"}},
            "tenant": "$tenant",
            "key": {"$ifNull": [f"${BILL}.key", "$key", ""]},
            "model": {"$ifNull": [f"${BILL}.model", served, ""]},
        }
        outcome = {"$ifNull": [f"${BILL}.outcome", "$status"]}
        counts: Document = {name: {"$sum": {"$cond": [{"$eq": [outcome, name]}, 1, 0]}} for name in _OUTCOMES}
        for name in COUNTS:
            counts.setdefault(name, {"$sum": {"$ifNull": [f"${BILL}.usage.{name}", f"$usage.{name}"]}})
        pipeline = [{"$match": {"$or": ended}}, {"$group": {"_id": place, **counts}}]
        return await self._run(self._database.aggregate(TURNS, pipeline))

    async def _apply(self, groups: Sequence[Document], upto: datetime) -> None:
        for first in range(0, len(groups), BATCH):
            operations = [self._addition(group, upto) for group in groups[first : first + BATCH]]
            for error in (await self._database.write_group(COLLECTION, operations)).values():
                # A key that is taken: this window, or a later one, is counted there.
                if not isinstance(error, Conflict):
                    raise error

    def _addition(self, group: Document, upto: datetime) -> UpdateOne:
        place = group["_id"]
        hour: datetime = place["hour"]
        name = f"{_hour_name(hour)}:{place['tenant']}:{place['key']}:{place['model']}"
        kept = hour + timedelta(days=self._days(place["tenant"], "audit"))
        return UpdateOne(
            {"_id": name, "upto": {"$lt": upto}},
            {
                "$inc": {name: group[name] for name in COUNTS},
                "$set": {"upto": upto, KEPT: kept},
                "$setOnInsert": place,
            },
            upsert=True,
        )


def _ago(seconds: int) -> Document:
    return {"$subtract": ["$$NOW", seconds * 1000]}


def _hour_name(hour: datetime) -> str:
    return f"{hour:%Y-%m-%dT%H}"
