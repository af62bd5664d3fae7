"""Structs as documents, and the one kind of write that replaces a document only if it is as expected.

A document is the struct with `id` as `_id`, its times as dates of the server's clock. It knows no collection.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, TypeVar

import bson
import msgspec
import structlog
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne

from kitemesh_contracts.errors import BadRequest, Bug, ErrorCode
from kitemesh_runtime.errors_mongo import UNENCODABLE, translate

T = TypeVar("T")

Document = dict[str, Any]
Pipeline = list[Document]

DOCUMENT_MAX_BYTES: Final = 15 * 1024 * 1024
"""MongoDB's own bound is 16 MiB and would fail the whole group."""

ABSENT: Final[Document] = {"$eq": [{"$type": "$tenant"}, "missing"]}
"""Holds where an upsert found no document: whatever is stored has a tenant."""

log: Final = structlog.get_logger()

# It depends on a field, so that no server can work it out, and fail, beforehand.
_REFUSED: Final[Document] = {"$toInt": {"$concat": ["refused ", "$_id"]}}


def literal(value: object) -> Document:
    """Keep a pipeline from reading a value as an expression."""
    return {"$literal": value}


def to_document(value: msgspec.Struct) -> Document:
    """Turn a struct into a document."""
    document: Document = msgspec.to_builtins(value, builtin_types=(bytes,))
    document["_id"] = document.pop("id")
    return document


def from_document(document: Document, kind: type[T]) -> T:
    """Turn a document back into a struct; fields that it does not have are left out.

    Raises:
        Bug: It is none.

    """
    document["id"] = document.pop("_id")
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as exc:
        raise Bug(f"a stored document is not readable as {kind.__name__}: {exc}") from exc


def read(collection: str, document: Document, decode: Callable[[Document], T]) -> T | None:
    """Decode one document of several; `None` for one that cannot be read, which is logged, so that the others count.

    It is of another version, or was changed by hand.
    """
    name = document["_id"]
    try:
        return decode(document)
    except Bug as exc:
        log.warning("store.unreadable", collection=collection, id=name, reason=exc.message)
        return None


def encode(document: Mapping[str, Any]) -> RawBSONDocument:
    """Encode here, not in the group, so that one that cannot be stored fails alone.

    Raises:
        BadRequest: It is too large, or holds text that cannot be stored.

    """
    try:
        encoded = bson.encode(document)
    except UNENCODABLE as exc:
        raise translate(exc) from exc
    if len(encoded) > DOCUMENT_MAX_BYTES:
        raise BadRequest(ErrorCode.REQUEST_TOO_LARGE, "it is too large to store")
    return RawBSONDocument(encoded)


def write(
    name: str,
    document: RawBSONDocument,
    *,
    when: Document,
    dated: Sequence[str],
    not_before: Mapping[str, datetime] = MappingProxyType({}),
    also: Mapping[str, Document] = MappingProxyType({}),
) -> UpdateOne:
    """Build the write that puts a document where `when` holds, and else refuses itself (`store.stale`).

    Matching by `_id` alone costs the server half of a filter that is planned, and a refusal is an error that a group
    reports for it alone. As it refuses where there is no document too, nothing that was removed comes back.

    Args:
        name: Its `_id`.
        document: All of it.
        when: An expression over what is stored; `ABSENT` to insert.
        dated: Fields that get the server's time.
        not_before: Fields that get it too, or the time given where that is later.
        also: Fields that get what an expression says.

    """
    dates: Document = {**dict.fromkeys(dated, "$$NOW"), **also}
    for field, moment in not_before.items():
        dates[field] = {"$max": ["$$NOW", moment]}
    new = {"$mergeObjects": [literal(document), dates]}
    return UpdateOne({"_id": name}, [{"$replaceWith": {"$cond": [when, new, _REFUSED]}}], upsert=True)


def take_time(document: Document, date: str, field: str) -> None:
    """Replace a date, if there is one, by epoch seconds.

    Raises:
        Bug: It is none.

    """
    moment = document.pop(date, None)
    if moment is None:
        return
    if not isinstance(moment, datetime):
        raise Bug(f"a stored document's {date} is no date")
    document[field] = moment.timestamp()
