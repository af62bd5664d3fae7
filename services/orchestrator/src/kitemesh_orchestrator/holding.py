"""Holds on the orchestrator's side: opened before the turn that names them is saved, announced, and applied to it.

Only a hold's own conditional writes change it; here is what follows from them, as often as need be.
"""

import asyncio
import math
from contextlib import suppress
from typing import Final, get_args

import msgspec
import structlog

from kitemesh_contracts import canonical, codec, subjects
from kitemesh_contracts.commands import ApplyHold
from kitemesh_contracts.errors import Busy, ErrorInfo
from kitemesh_contracts.headers import hold_msg_id
from kitemesh_contracts.ids import hold_id
from kitemesh_orchestrator.happenings import Answered, HoldAnswered
from kitemesh_orchestrator.judging import Terms
from kitemesh_orchestrator.notices import Notices
from kitemesh_orchestrator.states import Calling, Running
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.hold_audit import audit_rows
from kitemesh_runtime.holds import HeldCall, Hold, HoldStatus
from kitemesh_runtime.metrics import HOLD_WAIT, HOLDS_ENDED, HOLDS_OPENED
from kitemesh_runtime.stores import Stores

LOCK_MARGIN_S: Final = 60.0
NEAR_S: Final = 5.0
REPEATED: Final = "the model was asked again"
_MS: Final = 1000
_ENDED: Final = {
    status: (HOLDS_ENDED.labels(status).inc, HOLD_WAIT.labels(status).observe)
    for status in get_args(HoldStatus)
    if status != "open"
}

log: Final = structlog.get_logger()


class Holding:
    """Opens, announces and reads holds."""

    def __init__(self, bus: Bus, stores: Stores, notices: Notices, clock: Clock) -> None:
        self._bus: Final = bus
        self._stores: Final = stores
        self._notices: Final = notices
        self._clock: Final = clock

    async def open(self, state: Calling, terms: Terms) -> Calling:
        """Store the hold of a state and return the state with its end; again finds it stored."""
        start = state.start
        assert state.hold is not None  # noqa: S101  it was decided to open it
        hold = Hold(
            id=state.hold,
            tenant=start.tenant,
            turn=start.turn,
            step=state.said.step,
            model=start.route.requested,
            calls=tuple(
                HeldCall(
                    id=call.id,
                    name=call.name,
                    version=call.version,
                    effect=call.effect,
                    arguments=call.arguments,
                    sha256=call.sha256,
                    sentence=call.sentence,
                    shown=call.shown,
                )
                for call in state.undecided
            ),
            scope=terms.scope,
            together=terms.together,
            conversation=start.conversation,
            agent=start.route.agent,
        )
        kept = await self._stores.holds.open(start.tenant, hold, expires_after_s=terms.expires_after_s)
        if _calls_of(kept) != _calls_of(hold) or kept.status == "cancelled":
            # Another answer of the model to the same step was held, and perhaps seen, before the turn took this one.
            await self._cancel(start.tenant, kept.id, REPEATED)
            hold = msgspec.structs.replace(hold, id=hold_id(start.turn, state.said.step, state.said.attempt))
            kept = await self._stores.holds.open(start.tenant, hold, expires_after_s=terms.expires_after_s)
        HOLDS_OPENED.inc()
        log.info("hold.opened", turn=start.turn, hold=kept.id, calls=len(kept.calls))
        return msgspec.structs.replace(state, hold=kept.id, expires_at_ms=math.ceil(kept.expires_at_s * _MS))

    async def close(self, state: Running, error: ErrorInfo | None) -> None:
        """End the hold of a turn that ends, also one that was stored and that the turn does not know of."""
        turn = state.start.turn
        if isinstance(state, Calling):
            open_holds = [state.hold] if state.hold is not None and state.undecided else []
        elif state.durable or state.shown:
            open_holds = [hold_id(turn, state.step, attempt) for attempt in range(state.attempt + 1)]
        else:
            open_holds = []
        why = error.message if error is not None else "The turn ended"
        await asyncio.gather(*(self._cancel(state.start.tenant, hold, why) for hold in open_holds))

    async def follow(self, state: Running) -> None:
        """Do what a stored state leads to beside its jobs; all of it may be done again.

        Raises:
            Unavailable: The store or the bus does not answer.

        """
        if not state.durable:
            return
        if isinstance(state, Calling) and state.undecided:
            await asyncio.gather(self._keep_seat(state), self._announce(state))
        elif not state.held:
            # One that was held is locked until its hold would have run out, and longer by the sweep.
            await self._keep_seat(state)

    async def _keep_seat(self, state: Running) -> None:
        """Keep the conversation locked for as long as the turn may take."""
        start, conversations = state.start, self._stores.conversations
        if start.conversation is None:
            return
        if isinstance(state, Calling) and state.undecided:
            until_s = state.expires_at_ms / _MS + LOCK_MARGIN_S
            await conversations.extend(start.tenant, start.conversation, start.turn, until_s=until_s)
        else:
            for_s = max(0.0, start.budget_s - state.spent_s) + LOCK_MARGIN_S
            await conversations.extend(start.tenant, start.conversation, start.turn, for_s=for_s)

    async def _announce(self, state: Calling) -> None:
        """Make an open hold known, and have it end in time."""
        start = state.start
        assert state.hold is not None  # noqa: S101  only held states are announced
        hold = await self._stores.holds.get(start.tenant, state.hold)
        if hold is None:
            return
        apply = codec.encode(ApplyHold(turn=start.turn, tenant=start.tenant, hold=hold.id))
        if hold.status != "open" or hold.version > hold.applied:
            # It was answered, or ran out, between the hold's write and the turn's, and the turn was not told.
            again = f"{hold_msg_id(hold.id, hold.version)}:saved"
            await self._bus.send(subjects.control_decide(start.turn), apply, msg_id=again)
        else:
            at, due = subjects.timer("hold", hold.id), subjects.timer_due("hold", hold.id)
            # Only a hint: without room for it, the sweep ends the hold.
            with suppress(Busy):
                await self._bus.schedule(at, due, apply, at_s=hold.expires_at_s, msg_id=hold_msg_id(hold.id, 0))
        await self._write_audit(hold)
        await self._notices.tell("approval.requested", hold)

    async def read(self, message: ApplyHold) -> Hold | None:
        """Return a hold as it is, ended first if its time has come."""
        hold = await self._stores.holds.get(message.tenant, message.hold)
        if hold is None or hold.status != "open" or hold.version > hold.applied:
            return hold
        return await self._stores.holds.expire(message.tenant, message.hold)

    def is_due(self, hold: Hold) -> bool:
        """Tell whether an open hold's time has come, or is about to, by this machine's clock."""
        return hold.expires_at_s <= self._clock.now_ms() / _MS + NEAR_S

    async def cancel(self, hold: Hold, reason: str) -> None:
        """End an open hold that nothing will ever answer to."""
        await self._cancel(hold.tenant, hold.id, reason)

    async def note(self, hold: Hold) -> None:
        """Note that the turn has taken note of a hold, and tell who asked to be told."""
        if hold.applied >= hold.version:
            return
        await self._write_audit(hold, requested=False)
        if hold.status == "expired":
            await self._notices.tell("approval.expired", hold)
        elif hold.status != "cancelled":
            await self._notices.tell("approval.decided", hold)
        if hold.status != "open":
            count, observe = _ENDED[hold.status]
            count()
            observe(waited_s(hold, now_ms=self._clock.now_ms()))
        await self._stores.holds.applied(hold.tenant, hold.id, version=hold.version)

    async def _cancel(self, tenant: str, hold: str, reason: str) -> None:
        cancelled = await self._stores.holds.cancel(tenant, hold, reason)
        if cancelled is not None and cancelled.status == "cancelled":
            self._notices.tell_cancelled(cancelled)

    async def _write_audit(self, hold: Hold, *, requested: bool = True) -> None:
        rows = audit_rows(hold) if requested else audit_rows(hold)[1:]
        await asyncio.gather(*(self._stores.audit.append(hold.tenant, row) for row in rows))


def waited_s(hold: Hold, *, now_ms: int) -> float:
    """Return how long a hold was open, by the database's clock; one that was cancelled does not say when. Pure.

    Args:
        hold: One that has ended.
        now_ms: What counts as the end of a cancelled one, by this machine's clock.

    """
    decided_s = [call.verdict.at_s for call in hold.calls if call.verdict is not None]
    if hold.status == "decided" and decided_s:
        ended_s = max(decided_s)
    else:
        ended_s = hold.expires_at_s if hold.status == "expired" else now_ms / _MS
    return max(0.0, ended_s - hold.created_at_s)


def _calls_of(hold: Hold) -> list[tuple[str, str]]:
    return [(call.id, call.sha256) for call in hold.calls]


def answers_of(hold: Hold, message: ApplyHold) -> HoldAnswered:
    """Say what a hold's document means for its turn."""
    return HoldAnswered(
        hold=hold.id,
        answers=tuple(
            Answered(
                call=call.id,
                approved=call.verdict.approved,
                # What the person saw, not what the document says that its hash was.
                sha256=canonical.sha256(call.arguments),
                name=call.name,
                version=call.version,
                reason=call.verdict.reason,
                arguments=call.verdict.arguments,
                edited_sha256=call.verdict.sha256,
            )
            for call in hold.calls
            if call.verdict is not None
        ),
        expired=hold.status == "expired",
        texts=hold.texts,
        gateway=message.gateway,
        stream=message.stream,
    )
