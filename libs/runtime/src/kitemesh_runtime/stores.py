"""All store ports together. Each has a Mongo adapter and a memory twin, and one conformance suite that runs on both.

Every call names the tenant, and what belongs to another tenant behaves as if it did not exist. A store that cannot be
reached raises `Unavailable` (`store.down`). Times are the database's own clock; the twins take a `Clock`.
"""

from typing import NamedTuple

from kitemesh_runtime.audit import Audit
from kitemesh_runtime.blobs import Blobs
from kitemesh_runtime.budgets import Budgets
from kitemesh_runtime.claims import Claims
from kitemesh_runtime.conversations import Conversations
from kitemesh_runtime.holds import Holds
from kitemesh_runtime.keys import Keys
from kitemesh_runtime.knowledge import Knowledge
from kitemesh_runtime.ledger import Ledger
from kitemesh_runtime.live_turns import LiveTurns
from kitemesh_runtime.retention import Retention
from kitemesh_runtime.rows import Rows
from kitemesh_runtime.tenancy import Tenants
from kitemesh_runtime.turns import Turns
from kitemesh_runtime.usage import Usages


class Stores(NamedTuple):
    """All the stores, opened together."""

    conversations: Conversations
    turns: Turns
    claims: Claims
    keys: Keys
    blobs: Blobs
    live_turns: LiveTurns
    holds: Holds
    ledger: Ledger
    audit: Audit
    rows: Rows
    knowledge: Knowledge
    tenants: Tenants
    usage: Usages
    retention: Retention
    budgets: Budgets
