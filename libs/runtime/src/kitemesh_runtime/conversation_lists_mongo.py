"""What a list of conversations asks for, what people say of one, and what is left of one that was deleted.

Filters and pipelines over the server's clock; it does not talk to a server. What is left of a deleted conversation is
a document that nothing else matches: it has no `first`, so no list has it, its lock is nobody's, and it is there for an
hour, so that nothing is inserted in its place. `clear_at` is when a sweep should see whether something came late.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from kitemesh_runtime.conversation_updates_mongo import Document, Pipeline, name_of
from kitemesh_runtime.retention_mongo import TOMBSTONE

CLEAR_FIRST_MS: Final = 5_000
CLEAR_AGAIN_MS: Final = 300_000
HITS_MAX: Final = 200
"""So many turns, and so many titles, are looked at for one search."""

DELETED: Final = "deleted"
_WAS_DELETED: Final[Document] = {"$eq": [f"${DELETED}", True]}


def is_kept(tenant: str, conversation: str) -> Document:
    """Match a conversation that was not deleted."""
    return {"_id": name_of(tenant, conversation), DELETED: None}


def page(tenant: str, before: str | None) -> Document:
    """Match a tenant's conversations begun before one, as their index orders them."""
    return {"tenant": tenant, "first": {"$gte": ""} if before is None else {"$lt": before}}


def titles_that_say(tenant: str, words: Sequence[str]) -> Document:
    """Match conversations whose title has every word: as the partial index has them."""
    return {**_say(tenant, words), "title": {"$exists": True}}


def turns_that_say(tenant: str, words: Sequence[str]) -> Document:
    """Match ended turns of conversations that have every word: as the partial index has them."""
    return {**_say(tenant, words), "stored_at": {"$exists": True}, "conversation": {"$exists": True}}


def among(names: Sequence[str], before: str | None) -> Document:
    """Match those of the conversations that were begun before one."""
    return {"_id": {"$in": list(names)}, "first": {"$gte": ""} if before is None else {"$lt": before}}


def change(title: str | None, metadata: dict[str, str] | None) -> Pipeline:
    """Set what is given. Metadata is kept as JSON text: its names are the client's."""
    changed: Document = {"updated_at": "$$NOW"}
    if title is not None:
        changed["title"] = {"$literal": title} if title else "$$REMOVE"
    if metadata is not None:
        changed["metadata"] = {"$literal": msgspec.json.encode(metadata).decode()} if metadata else "$$REMOVE"
    return [{"$set": changed}]


def delete(tenant: str) -> Pipeline:
    """Leave what keeps a conversation from being made again."""
    left = {
        "_id": "$_id",
        "tenant": {"$literal": tenant},
        DELETED: True,
        **TOMBSTONE,
        "clear_at": {"$add": ["$$NOW", CLEAR_FIRST_MS]},
        "created_at": "$$NOW",
        "agent": None,
        "active": None,
        "active_until": None,
        "active_started": False,
        "waiting": [],
        # Without it the document would count as not yet inserted.
        "turns": {"$ifNull": ["$turns", 0]},
        "promotions": {"$ifNull": ["$promotions", 0]},
    }
    return [{"$replaceWith": {"$cond": [_WAS_DELETED, "$$ROOT", left]}}]


def is_deleted(tenant: str, conversation: str) -> Document:
    """Match what is left of a deleted conversation."""
    return {"_id": name_of(tenant, conversation), DELETED: True}


def to_clear() -> Document:
    """Match deleted conversations to be looked at, as the partial index serves them."""
    return {"clear_at": {"$type": "date"}, "$expr": {"$lte": ["$clear_at", "$$NOW"]}}


def clear_in(milliseconds: int) -> Pipeline:
    """Have a deleted conversation looked at by then."""
    return [{"$set": {"clear_at": {"$add": ["$$NOW", milliseconds]}}}]


def _say(tenant: str, words: Sequence[str]) -> Document:
    return {"tenant": tenant, "$text": {"$search": " ".join(f'"{word}"' for word in words)}}
