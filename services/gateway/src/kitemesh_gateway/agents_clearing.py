"""The use case "clear an agent's history": what has not ended is cancelled, then its turns are gone. It knows no HTTP.

What was cancelled is waited for: its conversation is free then, and nobody writes to the turn any more. What is begun
meanwhile is left alone.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from typing import Final

import structlog

from kitemesh_contracts.errors import ErrorCode, NotFound, Unavailable
from kitemesh_gateway.auth import Principal
from kitemesh_gateway.cancelling import Cancelling
from kitemesh_runtime.clearing import Clearing
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.rows import Rows
from kitemesh_runtime.turns import Turns

END_S: Final = 5.0
"""How long what was cancelled may take to end."""
LOOK_FIRST_S: Final = 0.01
LOOK_MOST_S: Final = 0.2

log: Final = structlog.get_logger()


class AgentsClearing:
    """Clears histories."""

    def __init__(self, rows: Rows, turns: Turns, *, cancelling: Cancelling, clearing: Clearing, clock: Clock) -> None:
        self._rows: Final = rows
        self._turns: Final = turns
        self._cancelling: Final = cancelling
        self._clearing: Final = clearing
        self._clock: Final = clock
        self._under_way: set[asyncio.Task[int]] = set()

    async def clear(self, principal: Principal, agent: str, conversation: str | None, *, origin: str) -> int:
        """Remove the history, or that of one conversation, and return how many rows that were.

        It goes on when nobody waits for it: a client that is gone meant it all the same.

        Raises:
            Unavailable: The store or the bus does not answer, or nobody ends what was cancelled; again it does what is
                left.

        """
        task = asyncio.create_task(self._clear(principal, agent, conversation, origin), name="clear-history")
        self._under_way.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[int]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            # Seen here, so that a failure nobody waits for any more is not reported as lost.
            task.exception()

    async def _clear(self, principal: Principal, agent: str, conversation: str | None, origin: str) -> int:
        tenant = principal.tenant
        turns = await self._rows.unended(tenant, agent, conversation=conversation)
        for turn in turns:
            # Somebody else may have removed it.
            with suppress(NotFound):
                await self._cancelling.cancel(principal, turn, origin=origin)
        await self._wait_for(tenant, agent, conversation, turns)
        deleted = 0
        while erased := await self._turns.erase(tenant, conversation=conversation, agent=agent):
            deleted += sum(each.rows for each in erased)
            # Nothing is about a turn by itself: what these leave is named by them.
            await self._clearing.sweep_up(tenant, erased[0].turn, erased)
        log.info("history.cleared", tenant=tenant, agent=agent, rows=deleted, cancelled=len(turns))
        return deleted

    async def _wait_for(self, tenant: str, agent: str, conversation: str | None, turns: Collection[str]) -> None:
        """Return when the turns have ended."""
        give_up_at_s, pause_s = self._clock.monotonic() + END_S, LOOK_FIRST_S
        while turns and not set(turns).isdisjoint(await self._rows.unended(tenant, agent, conversation=conversation)):
            if self._clock.monotonic() >= give_up_at_s:
                message = "A turn that was cancelled has not ended yet; try again"
                raise Unavailable(ErrorCode.STORE_DOWN, message, retry_after_s=1)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LOOK_MOST_S)
