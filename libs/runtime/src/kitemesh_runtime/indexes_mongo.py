"""Which indexes the stores need, as data, and the one call that makes the server agree; `kitemesh bootstrap` runs it.

Retention is one TTL index in a collection, over the date on which each document goes, and nothing else depends on it.
Indexes that an earlier release had are dropped; any other difference is refused, because rebuilding an index is an
operator's decision.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pymongo import ASCENDING, DESCENDING, TEXT, IndexModel

from kitemesh_contracts.errors import Bug, Conflict, ErrorCode
from kitemesh_runtime import (
    audit_mongo,
    blobs_mongo,
    budgets_mongo,
    claims_mongo,
    conversations_mongo,
    holds_mongo,
    keys_mongo,
    knowledge_mongo,
    ledger_mongo,
    retention_walks_mongo,
    tenants_mongo,
    turns_mongo,
    usage_mongo,
)
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.retention_mongo import KEPT

_TOMBSTONE_S: Final = 3600

_LANGUAGE_FIELD: Final = "language_of_the_index"
"""By default a document's own `language` would choose it, and one that the server does not know would be refused."""


OBSOLETE: Final = (
    (turns_mongo.COLLECTION, "retention_stored_at"),
    (turns_mongo.COLLECTION, "retention_deleted_at"),
    (holds_mongo.COLLECTION, "retention_ended_at"),
    (holds_mongo.COLLECTION, "open"),
    (holds_mongo.COLLECTION, "retention_deleted_at"),
    (ledger_mongo.COLLECTION, "retention_dispatched_at"),
    (audit_mongo.COLLECTION, "retention_at"),
    (conversations_mongo.COLLECTION, "retention_updated_at"),
    (conversations_mongo.COLLECTION, "retention_deleted_at"),
    (claims_mongo.COLLECTION, "retention_claimed_at"),
    (claims_mongo.COLLECTION, "retention_expires_at"),
)
"""Of earlier releases: each kind of document had the same number of days for all tenants, said by its index, and how
long open holds had waited was not asked."""


class IndexSpec(NamedTuple):
    """One index.

    Attributes:
        keys: Each field with its direction, or `TEXT`; a collection has one index over text at the most.
        ttl_s: Seconds after the indexed date at which a document goes; `None` keeps it.
        partial: Only documents that match are indexed.
        language: Of an index over text: whose small words are left out, and whose endings are cut off.

    """

    collection: str
    name: str
    keys: tuple[tuple[str, int | str], ...]
    unique: bool = False
    ttl_s: int | None = None
    partial: Mapping[str, Any] | None = None
    language: str = "none"


def indexes() -> tuple[IndexSpec, ...]:
    """List every index."""
    chunks, files = f"{blobs_mongo.BUCKET}.chunks", f"{blobs_mongo.BUCKET}.files"
    return (
        IndexSpec(
            turns_mongo.COLLECTION,
            "by_conversation",
            (("tenant", ASCENDING), ("conversation", ASCENDING), ("ordinal", DESCENDING)),
        ),
        # Pages of all statuses, too, are merged from it in the order of ids, which is that of time.
        IndexSpec(
            turns_mongo.COLLECTION,
            "by_status",
            (("tenant", ASCENDING), ("status", ASCENDING), ("_id", DESCENDING)),
        ),
        # Ended turns have none; held ones that are to be looked at have one ahead of now.
        IndexSpec(
            turns_mongo.COLLECTION, "due", (("touched_at", ASCENDING),), partial={"touched_at": {"$exists": True}}
        ),
        # Of agents' histories: to count rows, and to find those of a page, without reading a document.
        IndexSpec(
            turns_mongo.COLLECTION,
            "by_row",
            (("tenant", ASCENDING), ("agent", ASCENDING), ("row", ASCENDING), ("rows", ASCENDING)),
            partial={"rows": {"$gte": 0}},
        ),
        IndexSpec(
            turns_mongo.COLLECTION,
            "by_conversation_row",
            (
                ("tenant", ASCENDING),
                ("agent", ASCENDING),
                ("conversation", ASCENDING),
                ("row", ASCENDING),
                ("rows", ASCENDING),
            ),
            partial={"rows": {"$gte": 0}},
        ),
        # What ended is counted in the order of its end.
        IndexSpec(
            turns_mongo.COLLECTION,
            "by_end",
            ((turns_mongo.STORED, ASCENDING),),
            partial={turns_mongo.STORED: {"$exists": True}},
        ),
        _kept(turns_mongo.COLLECTION),
        # Only ended turns: a live one is written with every step, and its words would be indexed each time. Only what
        # was asked: an answer of 200 words would cost the server half as much again as the whole turn.
        IndexSpec(
            turns_mongo.COLLECTION,
            "by_words",
            (("tenant", ASCENDING), ("input.parts.text", TEXT)),
            partial={"stored_at": {"$exists": True}, "conversation": {"$exists": True}},
        ),
        IndexSpec(
            holds_mongo.COLLECTION,
            "by_status",
            (("tenant", ASCENDING), ("status", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)),
        ),
        IndexSpec(holds_mongo.COLLECTION, "due", (("due_at", ASCENDING),), partial={"due_at": {"$exists": True}}),
        # To count them, and to see which is the oldest.
        IndexSpec(
            holds_mongo.COLLECTION,
            "open_since",
            (("status", ASCENDING), ("created_at", ASCENDING)),
            partial={"status": "open"},
        ),
        IndexSpec(holds_mongo.COLLECTION, "by_turn", (("tenant", ASCENDING), ("turn", ASCENDING))),
        IndexSpec(holds_mongo.COLLECTION, "by_conversation", (("tenant", ASCENDING), ("conversation", ASCENDING))),
        _kept(holds_mongo.COLLECTION),
        IndexSpec(
            ledger_mongo.COLLECTION,
            "unknown",
            (("tenant", ASCENDING), ("dispatched_at", DESCENDING), ("_id", DESCENDING)),
            partial={"state": "unknown"},
        ),
        _kept(ledger_mongo.COLLECTION),
        IndexSpec(
            audit_mongo.COLLECTION,
            "by_subject",
            (("tenant", ASCENDING), ("subject", ASCENDING), ("at", ASCENDING), ("_id", ASCENDING)),
        ),
        IndexSpec(audit_mongo.COLLECTION, "by_age", (("tenant", ASCENDING), ("at", DESCENDING), ("_id", DESCENDING))),
        _kept(audit_mongo.COLLECTION),
        IndexSpec(
            conversations_mongo.COLLECTION,
            "locked",
            (("active_started", ASCENDING), ("active_until", ASCENDING)),
            partial={"active": {"$type": "string"}},
        ),
        # One that was deleted has no `first`, and so is in no list.
        IndexSpec(conversations_mongo.COLLECTION, "by_first", (("tenant", ASCENDING), ("first", DESCENDING))),
        IndexSpec(
            conversations_mongo.COLLECTION,
            "by_words",
            (("tenant", ASCENDING), ("title", TEXT)),
            partial={"title": {"$exists": True}},
        ),
        IndexSpec(
            conversations_mongo.COLLECTION,
            "to_clear",
            (("clear_at", ASCENDING),),
            partial={"clear_at": {"$exists": True}},
        ),
        _kept(conversations_mongo.COLLECTION),
        _kept(claims_mongo.COLLECTION),
        IndexSpec(usage_mongo.COLLECTION, "by_hour", (("tenant", ASCENDING), ("hour", ASCENDING))),
        _kept(usage_mongo.COLLECTION),
        # One for each tenant with days of its own, and hardly ever anything to be done.
        IndexSpec(retention_walks_mongo.COLLECTION, "due", (("due", ASCENDING),), partial={"due": {"$exists": True}}),
        IndexSpec(keys_mongo.COLLECTION, "by_digest", (("digest", ASCENDING),), unique=True),
        IndexSpec(keys_mongo.COLLECTION, "by_tenant", (("tenant", ASCENDING), ("created_at_s", DESCENDING))),
        IndexSpec(keys_mongo.COLLECTION, "by_change", (("changed_at", ASCENDING),)),
        IndexSpec(tenants_mongo.COLLECTION, "by_change", (("changed_at", ASCENDING),)),
        _ttl(tenants_mongo.COLLECTION, "deleted_at", _TOMBSTONE_S),
        _ttl(budgets_mongo.COLLECTION, "touched_at", budgets_mongo.KEPT_S),
        IndexSpec(
            knowledge_mongo.COLLECTION,
            "by_name",
            (("tenant", ASCENDING), ("base", ASCENDING), ("name", ASCENDING)),
            unique=True,
        ),
        IndexSpec(knowledge_mongo.COLLECTION, "by_age", (("tenant", ASCENDING), ("_id", DESCENDING))),
        IndexSpec(knowledge_mongo.COLLECTION, "by_edition", (("tenant", ASCENDING), ("edition", ASCENDING))),
        IndexSpec(
            knowledge_mongo.PASSAGES,
            "by_edition",
            (("tenant", ASCENDING), ("edition", ASCENDING), ("n", ASCENDING)),
        ),
        IndexSpec(
            knowledge_mongo.PASSAGES,
            "by_words",
            (("tenant", ASCENDING), ("base", ASCENDING), ("heading", TEXT), ("text", TEXT), ("words", TEXT)),
            language="english",
        ),
        _ttl(blobs_mongo.COLLECTION, "expires_at", 0),
        IndexSpec(
            blobs_mongo.COLLECTION,
            "by_about",
            (("tenant", ASCENDING), ("about", ASCENDING)),
            partial={"about": {"$exists": True}},
        ),
        _ttl(chunks, "expires_at", 0),
        _ttl(files, "expires_at", 0),
        # What GridFS makes itself on its first upload, so that no upload waits for it.
        IndexSpec(chunks, "files_id_1_n_1", (("files_id", ASCENDING), ("n", ASCENDING)), unique=True),
        IndexSpec(files, "filename_1_uploadDate_1", (("filename", ASCENDING), ("uploadDate", ASCENDING))),
    )


async def ensure_indexes(database: Database) -> list[str]:
    """Create what is missing, drop what is obsolete, and return what was done, one line each.

    Raises:
        Conflict: An index of that name indexes something else (`store.stale`).

    """
    done: list[str] = []
    found: dict[str, Mapping[str, Any]] = {}
    for spec in indexes():
        if spec.collection not in found:
            found[spec.collection] = await database.run(database.collection(spec.collection).index_information())
            # First: what takes its place may be over the same field.
            done += await _drop_obsolete(database, spec.collection, found[spec.collection])
        line = await _ensure(database, spec, found[spec.collection].get(spec.name))
        if line:
            done.append(line)
    return done


async def compare_indexes(database: Database) -> tuple[list[str], list[str]]:
    """Return which indexes are missing and which index something else, as `collection.name`; nothing is changed."""
    wanted = indexes()
    collections = list(dict.fromkeys(spec.collection for spec in wanted))
    told = await asyncio.gather(*(database.run(database.collection(each).index_information()) for each in collections))
    found = dict(zip(collections, told, strict=True))
    missing = [spec for spec in wanted if spec.name not in found[spec.collection]]
    differing = [
        spec
        for spec in wanted
        if spec not in missing
        and (
            not _same(spec, found[spec.collection][spec.name])
            or found[spec.collection][spec.name].get("expireAfterSeconds") != spec.ttl_s
        )
    ]
    return [f"{spec.collection}.{spec.name}" for spec in missing], [f"{s.collection}.{s.name}" for s in differing]


async def _drop_obsolete(database: Database, collection: str, found: Collection[str]) -> list[str]:
    dropped: list[str] = []
    for name in (name for of, name in OBSOLETE if of == collection and name in found):
        try:
            await database.run(database.collection(collection).drop_index(name))
        except Bug:
            if name in await database.run(database.collection(collection).index_information()):
                raise
            # Somebody else bootstraps, too, and was first.
            continue
        dropped.append(f"dropped index {collection}.{name}")
    return dropped


async def _ensure(database: Database, spec: IndexSpec, found: Mapping[str, Any] | None) -> str | None:
    label = f"{spec.collection}.{spec.name}"
    if found is None:
        await database.run(database.collection(spec.collection).create_indexes([_model(spec)]))
        return f"created index {label}"
    if not _same(spec, found):
        raise Conflict(ErrorCode.STALE, f"index {label} differs from what is needed; drop it and bootstrap again")
    if found.get("expireAfterSeconds") == spec.ttl_s:
        return None
    change = {"name": spec.name, "expireAfterSeconds": spec.ttl_s}
    await database.command({"collMod": spec.collection, "index": change})
    return f"changed retention of {spec.collection} to {spec.ttl_s} s"


def _kept(collection: str) -> IndexSpec:
    return IndexSpec(collection, f"retention_{KEPT}", ((KEPT, ASCENDING),), ttl_s=0, partial={KEPT: {"$exists": True}})


def _ttl(collection: str, field: str, ttl_s: int) -> IndexSpec:
    return IndexSpec(collection, f"retention_{field}", ((field, ASCENDING),), ttl_s=ttl_s)


def _model(spec: IndexSpec) -> IndexModel:
    options: dict[str, Any] = {"name": spec.name, "unique": spec.unique}
    if spec.ttl_s is not None:
        options["expireAfterSeconds"] = spec.ttl_s
    if spec.partial is not None:
        options["partialFilterExpression"] = spec.partial
    if _texts(spec.keys):
        options |= {"default_language": spec.language, "language_override": _LANGUAGE_FIELD}
    return IndexModel(list(spec.keys), **options)


def _same(spec: IndexSpec, found: Mapping[str, Any]) -> bool:
    return (
        _keys(found) == (tuple(key for key in spec.keys if key[1] != TEXT), _texts(spec.keys))
        and bool(found.get("unique")) == spec.unique
        and found.get("partialFilterExpression") == spec.partial
        and ("expireAfterSeconds" in found) == (spec.ttl_s is not None)
        and (not _texts(spec.keys) or found["default_language"] == spec.language)
    )


def _keys(found: Mapping[str, Any]) -> tuple[tuple[tuple[str, int | str], ...], frozenset[str]]:
    """Return the fields of an index as the server tells them, and the texts: it has its own two names for those."""
    keys: Sequence[tuple[str, Any]] = found["key"]
    plain = tuple((field, int(kind)) for field, kind in keys if field not in ("_fts", "_ftsx"))
    return plain, frozenset(found.get("weights", ()))


def _texts(keys: Sequence[tuple[str, int | str]]) -> frozenset[str]:
    return frozenset(field for field, kind in keys if kind == TEXT)
