"""All the stores in memory, for tests."""

from kitemesh_runtime.audit_memory import MemoryAudit
from kitemesh_runtime.blobs_memory import MemoryBlobs
from kitemesh_runtime.budgets_memory import MemoryBudgets
from kitemesh_runtime.claims_memory import MemoryClaims
from kitemesh_runtime.clock import Clock, SystemClock
from kitemesh_runtime.conversations_memory import MemoryConversations
from kitemesh_runtime.holds_memory import MemoryHolds
from kitemesh_runtime.keys_memory import MemoryKeys
from kitemesh_runtime.knowledge_memory import MemoryKnowledge
from kitemesh_runtime.ledger_memory import MemoryLedger
from kitemesh_runtime.live_turns_memory import MemoryLiveTurns
from kitemesh_runtime.retention import MemoryRetention
from kitemesh_runtime.rows_memory import MemoryRows
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.tenants_memory import MemoryTenants
from kitemesh_runtime.turns_memory import Kept, MemoryTurns
from kitemesh_runtime.usage_memory import MemoryUsages


def memory_stores(clock: Clock | None = None) -> Stores:
    """Build empty stores on one clock, the machine's by default."""
    clock = clock or SystemClock()
    kept: Kept = {}
    usage = MemoryUsages(clock)
    live_turns = MemoryLiveTurns(clock, kept, usage.note)
    return Stores(
        conversations=MemoryConversations(clock, kept),
        turns=MemoryTurns(kept, usage.note),
        claims=MemoryClaims(clock, live_turns),
        keys=MemoryKeys(clock),
        blobs=MemoryBlobs(clock),
        live_turns=live_turns,
        holds=MemoryHolds(clock),
        ledger=MemoryLedger(clock),
        audit=MemoryAudit(clock),
        rows=MemoryRows(kept),
        knowledge=MemoryKnowledge(clock),
        tenants=MemoryTenants(clock),
        usage=usage,
        retention=MemoryRetention(),
        budgets=MemoryBudgets(clock),
    )
