"""What follows once a conversation is deleted: its turns stop, and they, their holds and their files are removed.

The deleted conversation is noted before, so nothing new begins in it. All of this may be done again, and is: whoever
deletes does it at once, the sweep whenever something may have come late. What a turn is told is not known here.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, get_args

import structlog

from kitemesh_contracts import subjects
from kitemesh_contracts.codec import encode
from kitemesh_contracts.commands import CancelTurn
from kitemesh_contracts.deltas import TurnEnded
from kitemesh_contracts.errors import ErrorCode, ErrorInfo, Unavailable
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.call_stops import stop_calls
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.claims import MESSAGE_CLAIMS
from kitemesh_runtime.live_turns import LiveStatus, LiveTurn
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.turns import Erased

REASON: Final = "Its conversation was deleted"
LIVE: Final[tuple[LiveStatus, ...]] = get_args(LiveStatus)
PAGE: Final = 100

log: Final = structlog.get_logger()


class Clearing:
    """Clears deleted conversations."""

    def __init__(self, stores: Stores, bus: Bus, catalog: CatalogHandle) -> None:
        self._stores: Final = stores
        self._bus: Final = bus
        self._catalog: Final = catalog

    async def clear(self, tenant: str, conversation: str, seated: Sequence[str] = ()) -> None:
        """Remove what is there of a deleted conversation.

        Args:
            tenant: Whose it was.
            conversation: Its id.
            seated: Turns that ran or waited in it and may not be stored yet.

        Raises:
            Unavailable: The store does not answer; again it does what is left.

        """
        stores = self._stores
        while live := await stores.live_turns.page(tenant, statuses=LIVE, conversation=conversation, limit=PAGE):
            await asyncio.gather(*(self._stop(turn) for turn in live if isinstance(turn, LiveTurn)))
            await self._erase(tenant, conversation)
        await asyncio.gather(*(stores.turns.bury(tenant, turn) for turn in seated))
        await self._erase(tenant, conversation)
        await stores.holds.erase(tenant, conversation=conversation)
        await stores.blobs.forget(tenant, conversation)
        await stores.conversations.cleared(tenant, conversation)

    def close(self, tenant: str, turn: str, gateway: str) -> None:
        """Tell whoever waits for a turn that it is over."""
        error = ErrorInfo(code=ErrorCode.TURN_CANCELLED, message=f"The turn was cancelled: {REASON}")
        ended = TurnEnded(turn=turn, tenant=tenant, outcome="cancelled", step=0, attempt=0, error=error)
        with suppress(Unavailable):
            # Whoever does not hear it finds that there is no such turn.
            self._bus.publish(subjects.live(gateway, turn, 0, 0), encode(ended))

    async def sweep_up(self, tenant: str, about: str, erased: Sequence[Erased]) -> None:
        """Remove what erased turns leave behind, and keep the ids of their messages taken."""
        stores = self._stores
        await stores.holds.erase(tenant, turns=[each.turn for each in erased])
        await stores.blobs.forget(tenant, about, [blob for each in erased for blob in each.blobs])
        await asyncio.gather(
            *(stores.claims.settle(tenant, MESSAGE_CLAIMS, each.message, each.turn) for each in erased if each.message),
        )

    async def _stop(self, turn: LiveTurn) -> None:
        """See to it that no call of a turn begins any more, and that whatever works on it stops."""
        marked = await self._stores.live_turns.cancel(turn.tenant, turn.id, REASON)
        if not isinstance(marked, LiveTurn):
            return
        await stop_calls(self._stores.ledger, marked, self._catalog.current.tools)
        cancel = CancelTurn(turn=turn.id, tenant=turn.tenant, reason=REASON, conversation=turn.conversation)
        with suppress(Unavailable):
            self._bus.publish(subjects.cancel(turn.id), encode(cancel))
        self.close(turn.tenant, turn.id, turn.gateway)

    async def _erase(self, tenant: str, conversation: str) -> None:
        while erased := await self._stores.turns.erase(tenant, conversation=conversation):
            log.info("conversation.cleared", conversation=conversation, turns=len(erased))
            await self.sweep_up(tenant, conversation, erased)
