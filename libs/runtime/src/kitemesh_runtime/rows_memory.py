"""The memory twin of `Rows`."""

from collections.abc import Iterator

from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.rows import BLOCK, RowPage, RowQuery, rows_of, select
from kitemesh_runtime.turns import TurnRecord
from kitemesh_runtime.turns_memory import Kept, Tombstone


class MemoryRows:
    """The `Rows` port in memory.

    Args:
        kept: The turns, by id; shared with `MemoryLiveTurns`.

    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._last: dict[tuple[str, str], int] = {}

    async def reserve(self, tenant: str, agent: str) -> int:
        """Return the first number of a block that nobody else has; one reserved later is higher."""
        last = self._last.get((tenant, agent), 0)
        self._last[tenant, agent] = last + BLOCK
        return last + 1

    async def page(self, tenant: str, agent: str, query: RowQuery) -> RowPage:
        """Return a page."""
        return select(self._of(tenant, agent, query.conversation), query)

    async def count(self, tenant: str, agent: str, *, conversation: str | None = None) -> int:
        """Count all rows, or those of one conversation."""
        return sum(len(rows_of(turn)) for turn in self._of(tenant, agent, conversation))

    async def unended(self, tenant: str, agent: str, *, conversation: str | None = None) -> list[str]:
        """Return the turns that have rows and have not ended, oldest first."""
        return sorted(turn.id for turn in self._of(tenant, agent, conversation) if isinstance(turn, LiveTurn))

    def _of(self, tenant: str, agent: str, conversation: str | None) -> Iterator[LiveTurn | TurnRecord]:
        for turn in self._kept.values():
            if isinstance(turn, Tombstone) or not turn.row or (turn.tenant, turn.agent) != (tenant, agent):
                continue
            if conversation in (None, turn.conversation):
                yield turn
