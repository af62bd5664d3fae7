"""What a new message does to the turn that has its conversation: nothing, end it, or give up itself.

A turn that runs is in the way by the agent's `on_busy`, one that is held by its `on_held`.
"""

from typing import Final, Literal

import structlog

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import CancelTurn, StartTurn
from kitemesh_contracts.errors import ErrorCode, ErrorInfo, Unavailable
from kitemesh_orchestrator.driving import Drive, Loaded
from kitemesh_orchestrator.happenings import TurnCancelled
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.call_stops import stop_calls
from kitemesh_runtime.catalog import Agent
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.holds import Hold
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.stores import Stores

ASK_S: Final = 0.5
SUPERSEDED: Final = "a new message took its place"

log: Final = structlog.get_logger()


class MakingWay:
    """Deals with the turn in the way."""

    def __init__(self, bus: Bus, stores: Stores, drive: Drive, catalog: CatalogHandle) -> None:
        self._bus: Final = bus
        self._stores: Final = stores
        self._drive: Final = drive
        self._catalog: Final = catalog

    async def ask(
        self, start: StartTurn, agent: Agent | None, *, has_place: bool
    ) -> Literal["wait", "again"] | ErrorInfo:
        """Return what the new turn is to do: wait or be refused as usual, ask for its seat again, or end.

        Args:
            start: The new turn.
            agent: Its rules.
            has_place: It waits already; nobody is stopped for one that will be refused.

        Raises:
            Unavailable: The store or the bus does not answer.

        """
        assert start.conversation is not None  # noqa: S101  only a conversation has somebody in the way
        found = await self._stores.conversations.get(start.tenant, start.conversation)
        if found is None or found.active is None or found.active == start.turn:
            return "again"
        live = await self._stores.live_turns.get(start.tenant, found.active)
        if isinstance(live, LiveTurn) and live.hold is not None:
            return await self._past_hold(live, live.hold, agent)
        if live is not None and not isinstance(live, LiveTurn):
            # It has ended, and whoever ended it died before the conversation was given up.
            await self._drive.apply(live, TurnCancelled(reason=SUPERSEDED))
            return "again"
        if has_place and agent is not None and agent.on_busy == "cancel_previous":
            await self._stop(start, found.active, live)
        return "wait"

    async def _past_hold(
        self, live: LiveTurn, hold_id: str, agent: Agent | None
    ) -> Literal["wait", "again"] | ErrorInfo:
        rule = agent.on_held if agent is not None else "supersede"
        if rule == "queue":
            return "wait"
        if rule == "reject":
            hold = await self._stores.holds.get(live.tenant, hold_id)
            return _refusal(hold) if hold is not None and hold.status == "open" else "wait"
        # Once it is decided the turn runs, and is waited for: what a person has approved is not taken back.
        hold = await self._stores.holds.cancel(live.tenant, hold_id, SUPERSEDED, only_open=True)
        if hold is None or hold.status != "cancelled":
            return "wait"
        await self._stop_stored(live.tenant, live.id)
        return "again"

    async def _stop(self, start: StartTurn, active: str, live: LiveTurn | None) -> None:
        if live is not None:
            await self._stop_stored(start.tenant, active)
            return
        try:
            # Its gateway repeats the cancel until the turn has ended.
            await self._bus.request(subjects.ask_cancel(active), _cancel(start.tenant, active), timeout_s=ASK_S)
        except Unavailable as exc:
            # Its gateway is gone or the turn has just ended: the queue goes on with its lock.
            log.info("turn.not_stopped", turn=active, reason=exc.message)

    async def _stop_stored(self, tenant: str, turn: str) -> None:
        """End a stored turn; a call of it that has not begun never will."""
        marked = await self._stores.live_turns.cancel(tenant, turn, SUPERSEDED)
        if isinstance(marked, LiveTurn):
            await stop_calls(self._stores.ledger, marked, self._catalog.current.tools)
        found = await self._drive.load(tenant, turn)
        if isinstance(found, Loaded):
            await self._drive.apply(found, TurnCancelled(reason=found.cancelled or SUPERSEDED))
        self._bus.publish(subjects.cancel(turn), _cancel(tenant, turn))


def _cancel(tenant: str, turn: str) -> bytes:
    return codec.encode(CancelTurn(turn=turn, tenant=tenant, reason=SUPERSEDED))


def _refusal(hold: Hold) -> ErrorInfo:
    return ErrorInfo(
        code=ErrorCode.CONVERSATION_HELD,
        message=f"The conversation waits for a decision on approval {hold.id}",
        approval=hold.id,
        expires_at_ms=int(hold.expires_at_s * 1000),
    )
