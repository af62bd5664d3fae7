"""All the stores in memory, for tests."""

from kitemesh_runtime.blobs_memory import MemoryBlobs
from kitemesh_runtime.claims_memory import MemoryClaims
from kitemesh_runtime.clock import Clock, SystemClock
from kitemesh_runtime.conversations_memory import MemoryConversations
from kitemesh_runtime.keys_memory import MemoryKeys
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.turns_memory import MemoryTurns


def memory_stores(clock: Clock | None = None) -> Stores:
    """Build empty stores on one clock, the machine's by default."""
    clock = clock or SystemClock()
    turns = MemoryTurns()
    return Stores(
        conversations=MemoryConversations(clock),
        turns=turns,
        claims=MemoryClaims(clock, turns),
        keys=MemoryKeys(clock),
        blobs=MemoryBlobs(clock),
    )
