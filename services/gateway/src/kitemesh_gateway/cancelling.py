"""The use case "cancel a turn", wherever it waits, runs or is held. It knows no HTTP.

A stored turn is marked first, after which no call can join it; then each call that is on its way loses its race to
the ledger or has begun. A classic turn is known to the gateway of its client alone, which is asked; should the turn be
stored all the same, that gateway cancels it there.
"""

import asyncio
from typing import Final

import structlog
from msgspec.structs import replace

from kitemesh_contracts import subjects
from kitemesh_contracts.codec import CANCEL, decode, encode
from kitemesh_contracts.commands import CancelTurn
from kitemesh_contracts.errors import ContractViolation, ErrorCode, KitemeshError, NotFound, Unavailable
from kitemesh_contracts.headers import cancel_msg_id
from kitemesh_gateway.auth import Principal, may_name
from kitemesh_gateway.dialects.native_answers import CancelOut, DispatchedCall
from kitemesh_gateway.dialects.native_rendering import execution_status
from kitemesh_gateway.relay import Relay
from kitemesh_runtime.audit import Audit
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.call_stops import stop_calls
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.hold_audit import audit_rows
from kitemesh_runtime.holds import Holds
from kitemesh_runtime.ledger import Ledger
from kitemesh_runtime.live_turns import LiveTurn, LiveTurns
from kitemesh_runtime.turns import TurnRecord

REASON: Final = "Cancelled on request"
ASK_S: Final = 0.5
PUBLISH_S: Final = 2.0
_MINE: Final = b"true"

log: Final = structlog.get_logger()


def execution_unknown() -> NotFound:
    """Return the one refusal of an execution that does not exist, is another tenant's, or not for this key."""
    return NotFound(ErrorCode.EXECUTION_UNKNOWN, "There is no such execution")


class Cancelling:
    """Cancels turns, and answers the other gateways' questions for those whose clients are here.

    Args:
        live_turns: The stored turns.
        holds: What they may wait for.
        ledger: Where a cancel and a dispatch meet.
        audit: Where the end of a hold is noted.
        relay: The turns whose clients are here.
        bus: Reaches whoever works on a turn.
        catalog: Says what effect a tool has.

    """

    def __init__(
        self,
        live_turns: LiveTurns,
        holds: Holds,
        ledger: Ledger,
        audit: Audit,
        *,
        relay: Relay,
        bus: Bus,
        catalog: CatalogHandle,
    ) -> None:
        self._live_turns: Final = live_turns
        self._holds: Final = holds
        self._ledger: Final = ledger
        self._audit: Final = audit
        self._relay: Final = relay
        self._bus: Final = bus
        self._catalog: Final = catalog

    async def listen(self) -> None:
        """Answer the other gateways' questions."""
        await self._bus.answer(subjects.ASK_CANCEL_ALL, self._on_question)

    async def cancel(self, principal: Principal, turn: str, *, origin: str) -> CancelOut:
        """Cancel a turn and say how it stands. Again is the same; a turn that has ended stays as it is.

        Once it returns, no call with an effect begins that had not begun before.

        Raises:
            NotFound: There is no such turn of the tenant (`execution.unknown`).
            Unavailable: The store or the bus does not answer.

        """
        found = await self._mark(principal, turn)
        if found is None:
            if await self._cancel_classic(principal, turn):
                return CancelOut(id=turn, status="cancelled")
            # It may have been stored since: because it ended, or because it holds.
            found = await self._mark(principal, turn)
        if found is None:
            raise execution_unknown()
        if not isinstance(found, LiveTurn):
            return CancelOut(id=turn, status=execution_status(found))
        begun = await self._end(found, by=principal.key, origin=origin)
        return CancelOut(id=turn, status="cancelled", calls=begun)

    async def run(self) -> None:
        """Cancel in the store what was cancelled here as a classic turn and stored all the same, for ever."""
        while True:
            await self.run_next()

    async def run_next(self) -> None:
        """Wait until such turns may be stored, and cancel them there."""
        orders = await self._relay.withdrawals.unmarked()
        await asyncio.gather(*(self._follow(order) for order in orders))

    async def _follow(self, order: CancelTurn) -> None:
        try:
            found = await self._live_turns.cancel(order.tenant, order.turn, order.reason)
            live = isinstance(found, LiveTurn)
            if isinstance(found, LiveTurn):
                # Who asked may have asked another gateway: nobody is named here.
                await self._end(found, by="", origin="")
        except KitemeshError as exc:
            # The withdrawal comes again until the store has answered.
            log.warning("cancel.not_stored", turn=order.turn, code=exc.code)
        else:
            self._relay.withdrawals.note(order.turn, live=live, ended=found is not None and not live)

    async def _mark(self, principal: Principal, turn: str) -> LiveTurn | TurnRecord | None:
        """Mark a stored turn as being cancelled and return it; `None` when it is not stored.

        Raises:
            NotFound: Its model is not for this principal (`execution.unknown`).

        """
        if principal.models is not None:
            found = await self._live_turns.get(principal.tenant, turn)
            if found is None:
                return None
            if not principal.allows(found.model):
                raise execution_unknown()
        return await self._live_turns.cancel(principal.tenant, turn, REASON)

    async def _end(self, turn: LiveTurn, *, by: str, origin: str) -> tuple[DispatchedCall, ...]:
        """End what a marked turn waits for; return the calls that have begun."""
        begun = await self._stop(turn)
        if turn.hold is not None:
            await self._end_hold(turn.tenant, turn.hold, by=by, origin=origin)
        await self._announce(turn)
        return begun

    async def _stop(self, turn: LiveTurn) -> tuple[DispatchedCall, ...]:
        """Win the calls that have not begun; return those that have."""
        rows = await stop_calls(self._ledger, turn, self._catalog.current.tools)
        return tuple(
            DispatchedCall(tool_execution_id=row.id, name=row.tool, state=row.state)
            for row in rows
            if row.state != "cancelled"
        )

    async def _end_hold(self, tenant: str, hold_id: str, *, by: str, origin: str) -> None:
        hold = await self._holds.cancel(tenant, hold_id, REASON)
        if hold is None or hold.status != "cancelled" or hold.reason != REASON:
            return
        for row in audit_rows(hold):
            if row.what == "approval.cancelled":
                await self._audit.append(tenant, replace(row, by=by, origin=origin))

    async def _announce(self, turn: LiveTurn) -> None:
        """Have the turn ended, and whatever works on it stopped; the sweeper does it if this is lost."""
        cancel = CancelTurn(turn=turn.id, tenant=turn.tenant, reason=REASON, conversation=turn.conversation)
        payload = encode(cancel)
        try:
            self._bus.publish(subjects.cancel(turn.id), payload)
            await self._bus.send(
                subjects.control_cancel(turn.id), payload, msg_id=cancel_msg_id(turn.id), timeout_s=PUBLISH_S
            )
        except KitemeshError as exc:
            log.warning("cancel.not_published", turn=turn.id, code=exc.code)

    async def _cancel_classic(self, principal: Principal, turn: str) -> bool:
        """Have the gateway cancel a turn that lives for its client; tell whether there is one."""
        models = None if principal.models is None else tuple(sorted(principal.models))
        asked = CancelTurn(turn=turn, tenant=principal.tenant, reason=REASON, models=models)
        if self._cancel_here(asked):
            return True
        question = encode(asked)
        try:
            await self._bus.request(subjects.ask_cancel(turn), question, timeout_s=ASK_S)
        except Unavailable:
            # Silence means that nobody has it, if it was not the bus that was silent.
            await self._bus.barrier(timeout_s=ASK_S)
            return False
        return True

    def _cancel_here(self, asked: CancelTurn) -> bool:
        watch = self._relay.find(asked.tenant, asked.turn)
        if watch is None or watch.turn.durable or not may_name(asked.models, watch.turn.model):
            return False
        self._relay.cancel(watch, REASON)
        return True

    def _on_question(self, _: str, payload: bytes) -> bytes | None:
        try:
            asked = decode(CANCEL, payload)
        except ContractViolation as exc:
            log.warning("cancel.refused", reason=exc.message)
            return None
        return _MINE if self._cancel_here(asked) else None
