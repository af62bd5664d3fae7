"""The one date by which retention removes a document, and how the server works it out.

`kept_until` is what every kept document is removed by: one TTL index in each collection, and nothing else depends on
it. What waits or runs has none and stays.
"""

from typing import Any, Final

from kitemesh_runtime.documents_mongo import Document, Pipeline
from kitemesh_runtime.retention import DAY_MS, TOMBSTONE_MS

KEPT: Final = "kept_until"


def keep_ms(days: int) -> int:
    """Return days as milliseconds, which the server adds to dates."""
    return days * DAY_MS


def kept_for(days: int, since: Any = "$$NOW") -> Document:
    """Say the date on which a document goes that is kept for so many days since a date of its own."""
    return {"$add": [since, keep_ms(days)]}


def dated(pipeline: Pipeline, days: int, since: str, *, unless: Document | None = None) -> Pipeline:
    """Have an update keep the document for so many days since the date that it leaves in a field, if there is one.

    Args:
        pipeline: The update.
        days: How many.
        since: The field.
        unless: Where this holds of what the update leaves, the document stays.

    """
    field = f"${since}"
    goes: Document = {"$eq": [{"$type": field}, "date"]}
    if unless is not None:
        goes = {"$and": [goes, {"$not": [unless]}]}
    return [*pipeline, {"$set": {KEPT: {"$cond": [goes, kept_for(days, field), "$$REMOVE"]}}}]


TOMBSTONE: Final[Document] = {KEPT: {"$add": ["$$NOW", TOMBSTONE_MS]}}
"""What is left of what was erased."""
