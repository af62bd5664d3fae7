"""The lock and the queue of a conversation as single writes that the server computes.

Filters and pipelines over the server's clock, and pure readings of the document they leave behind; it does not talk to
a server. Inserting costs the server a tenth of upserting, and a filter on `_id` alone half of one that is planned. So
a new lock is inserted: it has no `active_until` yet and counts from `created_at`, which the server fills in, for 30 s
or `locked_for_ms`.
A promoted turn that was not taken up keeps its start in `active_start`, and its lock counts from its last promotion.
A document's `_id` begins with its tenant, because clients choose ids: `name_of` makes it, and nothing else does.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from bson.timestamp import Timestamp

from kitemesh_contracts.errors import Bug
from kitemesh_contracts.ids import is_id
from kitemesh_runtime.conversations import Conversation, Promoted, Seat, Waiting
from kitemesh_runtime.retention_mongo import KEPT, kept_for

LOCK_MS: Final = 30_000
PROMOTION_REPEAT_MS: Final = 5_000
PROMOTION_TRIES: Final = 6
"""A promoted turn that was not taken up after so many promotions loses its place."""

Document = dict[str, Any]
Pipeline = list[Document]

_UNTIL: Final[Document] = {"$add": ["$$NOW", LOCK_MS]}
_UNLOCK: Final[Document] = {
    "active": None,
    "active_until": None,
    "active_started": False,
    "active_start": None,
    "active_tries": 0,
    "updated_at": "$$NOW",
}
_FIRST: Final[Document] = {"$first": "$waiting"}
# The count must be positive, even for an empty array.
_REST: Final[Document] = {"$slice": ["$waiting", 1, {"$max": [1, {"$size": "$waiting"}]}]}
_NONE_WAITS: Final[Document] = {"$eq": ["$waiting", []]}
# The server's timestamp counts whole seconds; no lock may be shorter for that.
_INSERTED_UNTIL: Final[Document] = {
    "$dateAdd": {
        "startDate": "$created_at",
        "unit": "millisecond",
        "amount": {"$ifNull": ["$locked_for_ms", LOCK_MS + 1_000]},
    },
}
LOCKED: Final[Document] = {"$eq": [{"$type": "$active"}, "string"]}
"""Holds while a turn has the lock, be it for days: retention must not take the conversation from under it."""
_END: Final[Document] = {"$ifNull": ["$active_until", _INSERTED_UNTIL]}
# A holder that was given longer keeps it.
_RENEWED: Final[Document] = {"$max": [_END, _UNTIL]}
# A lock that ran out counts as free.
_FREE: Final[Document] = {"$or": [{"$eq": ["$active", None]}, {"$lt": [_END, "$$NOW"]}]}


def _promote_first(*, published: bool) -> Document:
    """Move the first entry to the lock; what is not `published` by the caller is due at the next sweep."""
    until = _UNTIL if published else {"$add": ["$$NOW", LOCK_MS - PROMOTION_REPEAT_MS]}
    promoted = {
        "active": "$$first.turn",
        "active_start": "$$first.start",
        "active_started": False,
        "active_until": until,
        "active_tries": int(published),
        "turns": {"$add": ["$turns", 1]},
        "promotions": {"$add": ["$promotions", int(published)]},
        "waiting": _REST,
        "updated_at": "$$NOW",
    }
    return {"$let": {"vars": {"first": _FIRST}, "in": promoted}}


_UNLOCK_OR_PROMOTE: Final[Document] = {"$cond": [_NONE_WAITS, _UNLOCK, _promote_first(published=True)]}


def _merge(change: Document) -> Document:
    return {"$replaceWith": {"$mergeObjects": ["$$ROOT", change]}}


def _holds(turn: Document) -> Document:
    return {"$eq": ["$active", turn]}


def name_of(tenant: str, conversation: str) -> str:
    """Return a conversation's `_id`.

    Raises:
        Bug: The tenant is no id, so the name would be ambiguous.

    """
    if not is_id(tenant):
        raise Bug("the tenant of a conversation is not an id")
    return f"{tenant}:{conversation}"


def id_of(name: str) -> str:
    """Return the conversation's id, given its `_id`."""
    return name.partition(":")[2]


def held_by(tenant: str, conversation: str, turn: str) -> Document:
    """Match the conversation while the turn holds its lock."""
    return {"_id": name_of(tenant, conversation), "active": turn}


def locked(
    tenant: str, conversation: str, turn: str, *, agent: str | None, model: str, for_s: float | None
) -> Document:
    """Build a new conversation whose lock the turn holds, to be inserted."""
    longer = {} if for_s is None else {"locked_for_ms": round(for_s * 1000) + 1_000}
    return {
        **longer,
        "_id": name_of(tenant, conversation),
        "tenant": tenant,
        "first": turn,
        "model": model,
        "agent": agent,
        "created_at": Timestamp(0, 0),
        "active": turn,
        "active_until": None,
        "active_started": True,
        "waiting": [],
        "turns": 1,
        "promotions": 0,
    }


def absent(tenant: str, conversation: str) -> Document:
    """Match nothing that exists: with `upsert` an insert, or a duplicate key."""
    return {"_id": name_of(tenant, conversation), "tenant": tenant, "turns": {"$exists": False}}


def unlocked(turn: str, agent: str | None) -> Pipeline:
    """Insert what is `absent` as a conversation whose first turn has ended."""
    new = {"agent": {"$literal": agent}, "created_at": "$$NOW", "waiting": [], "turns": 1, "promotions": 0}
    return [{"$set": {**_UNLOCK, **new, "first": {"$literal": turn}}}]


def release(turn: str, days: int) -> Pipeline:
    """Unlock a conversation, matched by `_id` alone, if the turn holds its lock and nobody waits.

    Otherwise, and if it does not exist, the update refuses itself by an error that a group reports for it alone; so it
    is sent with `upsert`.
    """
    holds = {"$and": [_holds({"$literal": turn}), _NONE_WAITS]}
    # It depends on a field, so that no server can work it out, and fail, beforehand.
    refused = {"$toInt": {"$concat": ["refused ", "$_id"]}}
    return [{"$set": {**_UNLOCK, "active": {"$cond": [holds, None, refused]}, KEPT: kept_for(days)}}]


def take(turn: str, start: bytes, max_waiting: int) -> Pipeline:
    """Take the lock if it is the turn's, or free; else a place in the queue while there is one.

    A lock that ran out goes to the first who waits, which may be this turn.
    """
    me = {"$literal": turn}
    first_is_me = {"$eq": [{"$let": {"vars": {"first": _FIRST}, "in": "$$first.turn"}}, me]}
    may_have_it = {"$and": [_FREE, {"$or": [_NONE_WAITS, first_is_me]}]}
    others_turn = {"$and": [_FREE, {"$not": [{"$or": [_NONE_WAITS, first_is_me, _holds(me)]}]}]}
    joins = {"$and": [{"$not": [{"$in": [me, "$waiting.turn"]}]}, {"$lt": [{"$size": "$waiting"}, max_waiting]}]}
    started = {"active_started": True, "active_start": None, "active_tries": 0}
    again = {**started, "active_until": _RENEWED}
    locks = {"active": me, "active_until": _UNTIL, "turns": {"$add": ["$turns", 1]}, "waiting": _REST}
    taken = {**started, **locks, "updated_at": "$$NOW"}
    joined = {"waiting": {"$concatArrays": ["$waiting", [{"turn": me, "start": start}]]}, "updated_at": "$$NOW"}
    return [
        _merge({"$cond": [others_turn, _promote_first(published=False), {}]}),
        _merge(
            {
                "$switch": {
                    "branches": [
                        {"case": _holds(me), "then": again},
                        {"case": may_have_it, "then": taken},
                        {"case": joins, "then": joined},
                    ],
                    "default": {},
                },
            },
        ),
    ]


def untouched_since(turn: str, ordinal: int) -> Document:
    """Match a conversation whose latest turn it is, and in which nobody waits."""
    return {"turns": ordinal, "waiting": [], "active": {"$in": [None, turn]}}


def retake(turn: str) -> Pipeline:
    """Lock a conversation for a turn that had it before, under the number that it had."""
    started = {"active_started": True, "active_start": None, "active_tries": 0}
    return [_merge({**started, "active": {"$literal": turn}, "active_until": _UNTIL, "updated_at": "$$NOW"})]


def hand_over() -> Pipeline:
    """Unlock, or promote the first who waits."""
    return [_merge(_UNLOCK_OR_PROMOTE)]


def renew() -> Pipeline:
    """Put the lock's end ahead, unless it is further."""
    return [{"$set": {"active_until": _RENEWED}}]


def extend(for_s: float | None, until_s: float | None) -> Pipeline:
    """Set the lock's end.

    Raises:
        Bug: Not exactly one of the two is given.

    """
    if until_s is not None and for_s is None:
        return [{"$set": {"active_until": datetime.fromtimestamp(until_s, UTC)}}]
    if for_s is None or until_s is not None:
        raise Bug("a lock's end is set either from now or by the clock")
    return [{"$set": {"active_until": {"$add": ["$$NOW", round(for_s * 1000)]}}}]


def due() -> Document:
    """Match locks that ran out and promotions that were not taken up, as the partial index serves them."""
    dated = {"active_until": {"$type": "date"}}
    repeat_at = {"$add": ["$$NOW", LOCK_MS - PROMOTION_REPEAT_MS]}
    return {
        "active": {"$type": "string"},
        "$or": [
            {"active_started": True, "active_until": None, "$expr": {"$lt": [_INSERTED_UNTIL, "$$NOW"]}},
            {"active_started": True, **dated, "$expr": {"$lt": ["$active_until", "$$NOW"]}},
            {"active_started": False, **dated, "$expr": {"$lt": ["$active_until", repeat_at]}},
        ],
    }


DUE_FIELDS: Final = ("tenant", "active", "active_until", "promotions")
"""With `_id`, what must not have changed between finding a conversation due and changing it."""


def sweep() -> Pipeline:
    """Repeat a promotion, or end it after too many; free a lock that ran out or promote the first who waits."""
    again = {
        "active_until": _UNTIL,
        "active_tries": {"$add": ["$active_tries", 1]},
        "promotions": {"$add": ["$promotions", 1]},
    }
    repeats = {"$and": [{"$not": ["$active_started"]}, {"$lt": ["$active_tries", PROMOTION_TRIES]}]}
    return [_merge({"$cond": [repeats, again, _UNLOCK_OR_PROMOTE]})]


def read_seat(document: Mapping[str, Any] | None, turn: str) -> Seat:
    """Say what `take` achieved by the document it left behind."""
    if document is None:
        return Seat("unknown")
    if document["active"] == turn:
        return Seat("active", document["turns"])
    if any(entry["turn"] == turn for entry in document["waiting"]):
        return Seat("waiting")
    return Seat("full")


def read_promoted(document: Mapping[str, Any] | None) -> Promoted | None:
    """Say which start is to be published after `hand_over` or `sweep`."""
    if document is None or document["active"] is None or document["active_started"]:
        return None
    return Promoted(
        document["tenant"],
        id_of(document["_id"]),
        document["active"],
        document["active_start"],
        document["promotions"],
    )


def read_conversation(document: Mapping[str, Any]) -> Conversation:
    """Turn the document into a conversation."""
    created_at_s = _seconds(document["created_at"])
    updated_at, until = document.get("updated_at"), document["active_until"]
    inserted_until_s = created_at_s + document.get("locked_for_ms", LOCK_MS + 1_000) / 1000
    locked_until_s = inserted_until_s if until is None else _seconds(until)
    metadata = document.get("metadata")
    return Conversation(
        id=id_of(document["_id"]),
        tenant=document["tenant"],
        agent=document["agent"],
        created_at_s=created_at_s,
        updated_at_s=created_at_s if updated_at is None else _seconds(updated_at),
        active=document["active"],
        active_until_s=None if document["active"] is None else locked_until_s,
        active_started=document["active_started"],
        waiting=tuple(Waiting(turn=entry["turn"], start=entry["start"]) for entry in document["waiting"]),
        turns=document["turns"],
        promotions=document["promotions"],
        first=document.get("first", ""),
        model=document.get("model", ""),
        title=document.get("title", ""),
        metadata={} if metadata is None else msgspec.json.decode(metadata),
    )


def _seconds(moment: datetime | Timestamp) -> float:
    return float(moment.time) if isinstance(moment, Timestamp) else moment.timestamp()
