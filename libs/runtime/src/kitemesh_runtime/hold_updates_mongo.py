"""Holds as documents, and their changes as single writes that the server computes.

Filters and pipelines over the server's clock; it does not talk to a server. `due_at` is when a sweeper should look: an
open hold's end, or 5 s after a change that the turn has not taken note of; a hold that needs nobody has none. So what
is due is a range of an index, however many are open.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, get_args

import msgspec

from kitemesh_runtime.documents_mongo import (
    ABSENT,
    Document,
    Pipeline,
    from_document,
    literal,
    take_time,
    to_document,
)
from kitemesh_runtime.holds import Hold, HoldStatus, Verdict
from kitemesh_runtime.retention_mongo import TOMBSTONE

UNAPPLIED_MS: Final = 5_000
DELETED: Final = "deleted"
"""Marks what is left of a hold that was erased: its `_id` and its tenant, for an hour."""

AGED: Final[Document] = {"status": "open", "created_at": {"$type": "date"}}
"""Match the open holds; one that nobody can read keeps nobody from seeing the others."""
AGE: Final[Document] = {"_id": 0, "age_s": {"$divide": [{"$subtract": ["$$NOW", "$created_at"]}, 1000]}}
"""Tell nothing of a hold but how old it is, in seconds."""

_NOW_S: Final[Document] = {"$divide": [{"$toLong": "$$NOW"}, 1000]}
_NEXT_VERSION: Final[Document] = {"$add": ["$version", 1]}
_IS_OPEN: Final[Document] = {"$eq": ["$status", "open"]}
_HAS_RUN_OUT: Final[Document] = {"$lte": ["$expires_at", "$$NOW"]}
_IS_UNAPPLIED: Final[Document] = {"$lt": ["$applied", "$version"]}


def _due_at(unapplied: object) -> Document:
    """Say when to look again, if a change not applied is to be looked at then."""
    applied = {"$cond": [_IS_OPEN, "$expires_at", "$$REMOVE"]}
    return {
        "$cond": [_IS_UNAPPLIED, {"$cond": [_IS_OPEN, {"$min": ["$expires_at", unapplied]}, unapplied]}, applied],
    }


_DATED: Final[Document] = {
    "$set": {
        "ended_at": {"$cond": [_IS_OPEN, "$$REMOVE", "$$NOW"]},
        "due_at": _due_at({"$add": ["$$NOW", UNAPPLIED_MS]}),
    },
}


def opened(hold: Hold, expires_after_s: float) -> Pipeline:
    """Insert a hold, matched by `_id` alone, where there is none."""
    document = to_document(hold)
    for field in ("created_at_s", "expires_at_s"):
        document.pop(field, None)
    # What filters look at is never left out.
    explicit = {name: getattr(hold, name) for name in ("status", "version", "applied")}
    expires_at = {"$add": ["$$NOW", round(expires_after_s * 1000)]}
    dates = {"created_at": "$$NOW", "expires_at": expires_at, "due_at": expires_at}
    new = {"$mergeObjects": [literal({"texts": [], **document, **explicit}), dates]}
    return [{"$replaceWith": {"$cond": [ABSENT, new, "$$ROOT"]}}]


def decidable(tenant: str, hold: str, calls: Sequence[str]) -> Document:
    """Match the hold while it is open, has not run out, and has each of these calls, undecided."""
    undecided = [{"$elemMatch": {"id": call, "verdict": None}} for call in calls]
    return {**running(tenant, hold), "calls": {"$all": undecided}, "$expr": {"$not": [_HAS_RUN_OUT]}}


def decide(verdicts: Mapping[str, Verdict], texts: Sequence[str]) -> Pipeline:
    """Write verdicts; the last call decided decides the hold."""
    branches = [
        {
            "case": {"$eq": ["$$call.id", literal(call)]},
            "then": {"$mergeObjects": [literal(msgspec.to_builtins(verdict)), {"at_s": _NOW_S}]},
        }
        for call, verdict in verdicts.items()
    ]
    verdict = {"$switch": {"branches": branches, "default": "$$call.verdict"}}
    decided = {"$mergeObjects": ["$$call", {"verdict": verdict}]}
    kinds = {"$map": {"input": "$calls", "as": "call", "in": {"$type": "$$call.verdict"}}}
    return [
        {
            "$set": {
                "calls": {"$map": {"input": "$calls", "as": "call", "in": decided}},
                "texts": {"$concatArrays": ["$texts", literal(list(texts))]},
                "version": _NEXT_VERSION,
            },
        },
        {"$set": {"status": {"$cond": [{"$in": ["missing", kinds]}, "open", "decided"]}}},
        _DATED,
    ]


def running(tenant: str, hold: str) -> Document:
    """Match the hold while it is open."""
    return {"_id": hold, "tenant": tenant, "status": "open"}


def run_out(tenant: str, hold: str) -> Document:
    """Match the hold when it is open past its end."""
    return {**running(tenant, hold), "$expr": _HAS_RUN_OUT}


def expire() -> Pipeline:
    """End a hold that has run out."""
    return [{"$set": {"status": "expired", "version": _NEXT_VERSION}}, _DATED]


def cancellable(tenant: str, hold: str) -> Document:
    """Match the hold while nothing that was decided has been taken note of as the whole of it."""
    unapplied = {"status": "decided", "$expr": _IS_UNAPPLIED}
    return {"_id": hold, "tenant": tenant, "$or": [{"status": "open"}, unapplied]}


def cancel(reason: str) -> Pipeline:
    """End a hold for a reason."""
    return [{"$set": {"status": "cancelled", "reason": literal(reason), "version": _NEXT_VERSION}}, _DATED]


def applied(version: int) -> Pipeline:
    """Note that the turn has taken note of a version; a later change stays due when it was."""
    return [
        {"$set": {"applied": {"$max": ["$applied", version]}}},
        {"$set": {"due_at": _due_at("$due_at")}},
    ]


def due() -> Document:
    """Match holds that a sweeper should look at, as the partial index serves them."""
    return {"due_at": {"$type": "date"}, "$expr": {"$lte": ["$due_at", "$$NOW"]}}


def page(tenant: str, status: HoldStatus | None, before: tuple[datetime, str] | None) -> Document:
    """Match a tenant's holds older than one, as its index orders them: by creation, then by id."""
    wanted: Document = {"tenant": tenant, "status": {"$in": list(get_args(HoldStatus))} if status is None else status}
    if before is not None:
        created_at, hold = before
        wanted["created_at"] = {"$lte": created_at}
        wanted["$or"] = [{"created_at": {"$lt": created_at}}, {"_id": {"$lt": hold}}]
    return wanted


def kept(tenant: str, hold: str) -> Document:
    """Match a hold that was not erased."""
    return {"_id": hold, "tenant": tenant, DELETED: None}


def belonging(tenant: str, conversation: str | None, turns: Sequence[str]) -> Document:
    """Match the holds of a conversation, and of turns, as their indexes have them."""
    either: list[Document] = [{"tenant": tenant, "turn": {"$in": list(turns)}}]
    if conversation is not None:
        either.append({"tenant": tenant, "conversation": conversation})
    return {"$or": either}


def erase(tenant: str) -> Pipeline:
    """Leave what keeps a hold from being opened again."""
    return [{"$replaceWith": {"_id": "$_id", "tenant": literal(tenant), DELETED: True, **TOMBSTONE}}]


def read_hold(document: dict[str, Any]) -> Hold:
    """Turn the document into a hold."""
    take_time(document, "created_at", "created_at_s")
    take_time(document, "expires_at", "expires_at_s")
    return from_document(document, Hold)
