"""The use case "delete a conversation": its turns end, then it is gone for good. It knows no HTTP.

Once it is noted as deleted no turn finds a seat in it, and whoever sweeps finishes what is begun here. What has not
ended by then ends without a trace.
"""

import asyncio
from collections.abc import Collection, Coroutine
from contextlib import suppress
from typing import Any, Final

import structlog
from msgspec.structs import replace

from kitemesh_contracts import codec
from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.errors import KitemeshError, NotFound
from kitemesh_gateway.auth import Principal
from kitemesh_gateway.cancelling import Cancelling
from kitemesh_gateway.visibility import conversation_unknown, may_see
from kitemesh_runtime.clearing import LIVE, Clearing
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.conversations import Conversation, Conversations, Waiting
from kitemesh_runtime.live_turns import LiveTurns
from kitemesh_runtime.parcels import Parcels

END_S: Final = 3.0
"""How long turns may take to end in the usual way, with their answer so far told to whoever waits for it."""
LOOK_FIRST_S: Final = 0.02
LOOK_MOST_S: Final = 0.25
TURNS_MAX: Final = 100

log: Final = structlog.get_logger()


class Deleting:
    """Deletes conversations."""

    def __init__(
        self,
        conversations: Conversations,
        live_turns: LiveTurns,
        *,
        cancelling: Cancelling,
        clearing: Clearing,
        parcels: Parcels,
        clock: Clock,
    ) -> None:
        self._conversations: Final = conversations
        self._live_turns: Final = live_turns
        self._cancelling: Final = cancelling
        self._clearing: Final = clearing
        self._parcels: Final = parcels
        self._clock: Final = clock
        self._under_way: set[asyncio.Task[None]] = set()

    async def delete(self, principal: Principal, conversation: str, *, origin: str) -> None:
        """Delete a conversation with all that belongs to it; again, within the hour, is the same.

        Raises:
            NotFound: There is none, or not for this principal (`conversation.unknown`).
            Unavailable: The store or the bus does not answer; again it does what is left.

        """
        tenant = principal.tenant
        found = await self._conversations.get(tenant, conversation)
        # One that is about to be made has turns already.
        live = await self._live_turns.page(tenant, statuses=LIVE, conversation=conversation, limit=TURNS_MAX)
        is_mine = may_see(principal, found) if found is not None else all(principal.allows(turn.model) for turn in live)
        if not is_mine:
            raise conversation_unknown()
        turns = {turn.id for turn in live} | set(_seated(found))
        work = self._delete(replace(principal, models=None), conversation, turns, origin, also_unknown=bool(live))
        await self._to_its_end(work)

    async def _to_its_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Await work that goes on when the client does not wait."""
        task = asyncio.create_task(work, name="deletion")
        self._under_way.add(task)
        task.add_done_callback(self._finished)
        await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            # Seen here, so that a failure nobody waits for any more is not reported as lost.
            task.exception()

    async def _delete(
        self, principal: Principal, conversation: str, turns: Collection[str], origin: str, *, also_unknown: bool
    ) -> None:
        tenant = principal.tenant
        if turns:
            await self._end(principal, conversation, turns, origin)
        was = await self._conversations.delete(tenant, conversation, also_unknown=also_unknown)
        if was is None:
            raise conversation_unknown()
        seated = _seated(was)
        if was.active is not None:
            # It is slow to end, or came in between: it is told, and its record is refused.
            await self._cancel(principal, was.active, origin)
        await self._clearing.clear(tenant, conversation, seated)
        await asyncio.gather(*(self._close(tenant, waiting) for waiting in was.waiting))
        log.info("conversation.deleted", tenant=tenant, conversation=conversation, cut_short=len(seated))

    async def _end(self, principal: Principal, conversation: str, turns: Collection[str], origin: str) -> None:
        """Cancel turns and wait, bounded, until they have ended."""
        ending = {
            turn
            for turn, is_there in zip(
                turns, await asyncio.gather(*(self._cancel(principal, turn, origin) for turn in turns)), strict=True
            )
            if is_there
        }
        give_up_at_s = self._clock.monotonic() + END_S
        pause_s = LOOK_FIRST_S
        while await self._is_any_left(principal.tenant, conversation, ending):
            if self._clock.monotonic() >= give_up_at_s:
                log.warning("conversation.turns_slow", conversation=conversation, turns=len(ending))
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LOOK_MOST_S)

    async def _cancel(self, principal: Principal, turn: str, origin: str) -> bool:
        """Cancel a turn; tell whether anybody has it."""
        with suppress(NotFound):
            await self._cancelling.cancel(principal, turn, origin=origin)
            return True
        return False

    async def _is_any_left(self, tenant: str, conversation: str, turns: Collection[str]) -> bool:
        found = await self._conversations.get(tenant, conversation)
        if any(turn in turns for turn in _seated(found)):
            return True
        live = await self._live_turns.page(tenant, statuses=LIVE, conversation=conversation, limit=TURNS_MAX)
        return any(turn.id in turns for turn in live)

    async def _close(self, tenant: str, waiting: Waiting) -> None:
        """Tell who waits for a turn that waited that it will not run."""
        try:
            start: StartTurn = await self._parcels.unpack(codec.START, waiting.start)
        except KitemeshError as exc:
            log.warning("turn.unreadable", turn=waiting.turn, code=exc.code)
            return
        self._clearing.close(tenant, waiting.turn, start.gateway)


def _seated(conversation: Conversation | None) -> list[str]:
    """Return the turns that wait, and the one that has the lock."""
    if conversation is None:
        return []
    active = [] if conversation.active is None else [conversation.active]
    return [*(waiting.turn for waiting in conversation.waiting), *active]
