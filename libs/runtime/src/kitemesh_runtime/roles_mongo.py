"""What each service may do in the database, as data: one role for each, which names collections and actions.

Whatever a service's adapters do not do is not in its role; who is to have which role is in `access_mongo`.
"""

from collections.abc import Mapping
from typing import Final, Literal

from kitemesh_contracts.permissions import ServiceName
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
    rows_mongo,
    tenants_mongo,
    turns_mongo,
    usage_mongo,
)

Action = Literal["find", "insert", "update", "remove", "listIndexes"]
Actions = tuple[Action, ...]

READ: Final[Actions] = ("find",)
CHANGE: Final[Actions] = ("find", "update")
WRITE: Final[Actions] = ("find", "insert", "update")
"""An upsert needs both: it is not known before which of them it will be."""
OWN: Final[Actions] = (*WRITE, "remove")

_CHUNKS: Final = f"{blobs_mongo.BUCKET}.chunks"
_FILES: Final = f"{blobs_mongo.BUCKET}.files"


def _files(actions: Actions) -> dict[str, Actions]:
    """Name what a blob is kept in; before its first upload GridFS looks whether its indexes are there."""
    return {
        blobs_mongo.COLLECTION: actions,
        _CHUNKS: (*actions, "listIndexes"),
        _FILES: (*actions, "listIndexes"),
    }


ROLES: Final[Mapping[ServiceName, Mapping[str, Actions]]] = {
    "gateway": {
        turns_mongo.COLLECTION: OWN,
        conversations_mongo.COLLECTION: WRITE,
        holds_mongo.COLLECTION: CHANGE,
        claims_mongo.COLLECTION: OWN,
        # To requeue a turn, its calls that were stopped before they began are let begin.
        ledger_mongo.COLLECTION: OWN,
        audit_mongo.COLLECTION: WRITE,
        rows_mongo.COLLECTION: WRITE,
        knowledge_mongo.COLLECTION: OWN,
        knowledge_mongo.PASSAGES: OWN,
        keys_mongo.COLLECTION: WRITE,
        tenants_mongo.COLLECTION: WRITE,
        budgets_mongo.COLLECTION: WRITE,
        usage_mongo.COLLECTION: READ,
        usage_mongo.MARKS: READ,
        **_files(OWN),
    },
    "orchestrator": {
        turns_mongo.COLLECTION: WRITE,
        conversations_mongo.COLLECTION: WRITE,
        holds_mongo.COLLECTION: WRITE,
        claims_mongo.COLLECTION: CHANGE,
        ledger_mongo.COLLECTION: WRITE,
        audit_mongo.COLLECTION: WRITE,
        tenants_mongo.COLLECTION: READ,
        usage_mongo.COLLECTION: WRITE,
        usage_mongo.MARKS: WRITE,
        retention_walks_mongo.COLLECTION: WRITE,
        **_files(OWN),
    },
    "model-runner": {
        turns_mongo.COLLECTION: CHANGE,
        "tenants": READ,
        **_files(WRITE),
    },
    "tool-executor": {
        turns_mongo.COLLECTION: READ,
        ledger_mongo.COLLECTION: WRITE,
        "tenants": READ,
        **_files(WRITE),
    },
}
