"""The engine: from each message to what happened to which turn. The message not yet acknowledged is the outbox.

What follows from it is `driving`'s business. A classic event needs no store; one of a stored turn waits for it.
"""

from collections.abc import Awaitable
from typing import Final

import msgspec
import structlog

from kitemesh_contracts import codec
from kitemesh_contracts.commands import ApplyHold, CancelTurn, Generate, RunCalls, StartTurn
from kitemesh_contracts.errors import ContractViolation, ErrorCode, KitemeshError, Unavailable
from kitemesh_contracts.events import CallsReturned, StepCancelled, StepGenerated, StepReleased
from kitemesh_contracts.events import Event as WireEvent
from kitemesh_contracts.ids import hold_id
from kitemesh_orchestrator import carried, judging
from kitemesh_orchestrator.beginnings import Beginnings
from kitemesh_orchestrator.driving import Drive, Loaded
from kitemesh_orchestrator.endings import Endings
from kitemesh_orchestrator.giving_up import job_of
from kitemesh_orchestrator.happenings import (
    Event,
    JobReleased,
    StepAnswered,
    TurnCancelled,
)
from kitemesh_orchestrator.holding import Holding, answers_of
from kitemesh_orchestrator.jobs import Jobs
from kitemesh_orchestrator.notices import STEP as NOTICE_STEP
from kitemesh_orchestrator.notices import Notices
from kitemesh_orchestrator.noting import Noting
from kitemesh_orchestrator.seating import Seating
from kitemesh_orchestrator.states import Accepted, Calling, Generating, State
from kitemesh_runtime import schemas
from kitemesh_runtime.bus import Delivery
from kitemesh_runtime.cancels import Cancels
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.failpoints import reach
from kitemesh_runtime.holds import Hold
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.turns import TurnRecord
from kitemesh_runtime.worker import Done, Outcome, Retry

STORE_AGAIN_S: Final = 0.5
_NONE: Final = msgspec.Raw(b"null")
NOT_YET_S: Final = 1.0

log: Final = structlog.get_logger()


class Engine:
    """Drives turns; stateless, so any replica may take any message."""

    def __init__(
        self,
        *,
        parcels: Parcels,
        catalog: CatalogHandle,
        beginnings: Beginnings,
        noting: Noting,
        seating: Seating,
        endings: Endings,
        cancels: Cancels,
        drive: Drive,
        jobs: Jobs,
        holding: Holding,
        notices: Notices,
    ) -> None:
        self._parcels: Final = parcels
        self._catalog: Final = catalog
        self._beginnings: Final = beginnings
        self._noting: Final = noting
        self._seating: Final = seating
        self._endings: Final = endings
        self._cancels: Final = cancels
        self._drive: Final = drive
        self._jobs: Final = jobs
        self._holding: Final = holding
        self._notices: Final = notices

    async def on_start(self, delivery: Delivery) -> Outcome:
        """Begin a turn that was accepted, or promoted from its conversation's queue."""
        await reach("orch.after_fetch")
        return await _patiently(self._on_start(delivery))

    async def on_control(self, delivery: Delivery) -> Outcome:
        """Take a promoted turn, an answered hold, or the cancel of a stored turn."""
        await reach("orch.after_fetch")
        return await _patiently(self._on_control(delivery))

    async def on_event(self, delivery: Delivery) -> Outcome:
        """Take what a worker did."""
        await reach("orch.after_fetch")
        return await _patiently(self._on_event(delivery))

    async def on_due(self, delivery: Delivery) -> Outcome:
        """Take a timer: a hold that runs out, or a webhook to be tried again."""
        message = codec.decode(codec.DUE, delivery.data)
        if isinstance(message, RunCalls):
            await self._notices.on_due(message)
            return Done()
        return await _patiently(self.apply_hold(message))

    async def apply_hold(self, message: ApplyHold) -> Outcome:
        """Do what a hold's document says.

        Raises:
            Unavailable: The store or the bus does not answer; again it does what is left.

        """
        hold = await self._holding.read(message)
        if hold is None:
            return Done()
        if hold.status == "open" and hold.version == hold.applied and not message.gateway:
            # A timer that came before the store's clock says so; the sweep is there as well.
            return Retry(NOT_YET_S, "the hold has not run out yet") if self._holding.is_due(hold) else Done()
        found = await self._drive.load(hold.tenant, hold.turn)
        if found is None or (isinstance(found, Loaded) and _is_before(found.state, hold)):
            # The hold is stored and its turn is about to be; whoever saves that looks at the hold again.
            if found is None and self._holding.is_due(hold):
                await self._holding.note(hold)
            return Done()
        if isinstance(found, Loaded):
            cancelled = hold.status == "cancelled" and _waits_for(found.state, hold)
            event: Event = TurnCancelled(reason=hold.reason) if cancelled else answers_of(hold, message)
            await self._drive.apply(found, event)
        elif hold.status == "open":
            await self._holding.cancel(hold, "its turn has ended")
        else:
            await self._drive.apply(found, answers_of(hold, message))
        await self._holding.note(hold)
        return Done()

    async def end_cancelled(self, cancel: CancelTurn) -> Outcome:
        """End a stored turn that was marked as being cancelled.

        Raises:
            Unavailable: The store or the bus does not answer; again it does what is left.

        """
        try:
            found = await self._drive.load(cancel.tenant, cancel.turn)
        except ContractViolation as exc:
            # A version that has gone wrote its state; what everybody can read of it is enough to end it.
            log.warning("turn.unreadable", turn=cancel.turn, reason=exc.message)
            await self._drive.discard(cancel.tenant, cancel.turn)
            return Done()
        if isinstance(found, Loaded) and found.cancelled is not None:
            await self._drive.apply(found, TurnCancelled(reason=found.cancelled))
        return Done()

    async def on_cancel(self, cancel: CancelTurn) -> None:
        """End a turn that still waits in its conversation; a running one is stopped by its worker.

        Raises:
            Unavailable: The store, or the bus, does not answer; asked again it does what is left.

        """
        if cancel.conversation is None:
            return
        try:
            payload = await self._seating.leave(cancel.tenant, cancel.conversation, cancel.turn)
            if payload is None:
                return
            start = await self._parcels.unpack(codec.START, payload)
            await self._drive.apply(Loaded(Accepted(start=start)), TurnCancelled(reason=cancel.reason))
        except Unavailable:
            raise
        except KitemeshError as exc:
            log.warning("cancel.failed", turn=cancel.turn, code=exc.code)

    async def redrive(self, tenant: str, turn: str, lost: JobReleased) -> None:
        """Publish a stored turn's job again whose message is gone."""
        found = await self._drive.load(tenant, turn)
        if isinstance(found, Loaded):
            await self._drive.apply(found, lost)

    async def _on_start(self, delivery: Delivery) -> Outcome:
        return await self._beginnings.begin(await self._parcels.unpack(codec.START, delivery.data), delivery)

    async def _on_control(self, delivery: Delivery) -> Outcome:
        message: StartTurn | ApplyHold | CancelTurn = await self._parcels.unpack(codec.CONTROL, delivery.data)
        match message:
            case StartTurn():
                return await self._beginnings.begin(message, delivery)
            case ApplyHold():
                return await self.apply_hold(message)
            case CancelTurn():
                return await self.end_cancelled(message)

    async def _on_event(self, delivery: Delivery) -> Outcome:
        event: WireEvent = await self._parcels.unpack(codec.EVENT, delivery.data)
        job = await job_of(event, self._parcels) if isinstance(event, StepReleased) else None
        if event.step == NOTICE_STEP:
            if isinstance(job, RunCalls):
                await self._notices.on_handed_back(job)
            elif isinstance(event, CallsReturned):
                await self._notices.on_returned(event)
            return Done()
        carry = event.carry if not isinstance(event, StepReleased) else job.carry if job is not None else _NONE
        if carried.is_empty(carry):
            return await self._on_stored_event(event, job)
        state = carried.load(carry)
        if state.start.turn != event.turn or state.start.tenant != event.tenant:
            raise ContractViolation("an event carries another turn's state")
        return await self._apply(Loaded(state), self._heard(event), job)

    def _heard(self, event: WireEvent) -> WireEvent:
        """Return a classic turn's event, or that it was cancelled: nothing of it may begin any more."""
        reason = self._cancels.reason(event.turn)
        if reason is None or not isinstance(event, StepGenerated) or not event.calls:
            return event
        return StepCancelled(
            turn=event.turn,
            tenant=event.tenant,
            step=event.step,
            attempt=event.attempt,
            reason=reason,
            model=event.model,
            text=event.text,
            usage=event.usage,
            last=event.last,
            timings=event.timings,
            carry=event.carry,
        )

    async def _on_stored_event(self, event: WireEvent, job: Generate | RunCalls | None) -> Outcome:
        self._noting.drop(event.turn)
        found = await self._drive.load(event.tenant, event.turn)
        if found is None:
            log.warning("turn.gone", turn=event.turn)
            return Done()
        if isinstance(found, TurnRecord):
            await self._endings.repeat(found)
            return Done()
        return await self._apply(found, event, job)

    async def _apply(self, loaded: Loaded, event: WireEvent, job: Generate | RunCalls | None) -> Outcome:
        match event:
            case StepGenerated():
                answered, terms = self._judge(loaded, event)
                await self._drive.apply(loaded, answered, terms=terms)
            case StepReleased():
                assert job is not None  # noqa: S101  it was unpacked with the event
                released = (
                    JobReleased(kind="tool", step=event.step, index=job.job, attempt=event.attempt)
                    if isinstance(job, RunCalls)
                    else JobReleased(kind="model", step=event.step, index=0, attempt=event.attempt)
                )
                await self._drive.apply(loaded, released, handed_back=job)
            case _:
                await self._drive.apply(loaded, event)
        return Done()

    def _judge(self, loaded: Loaded, event: StepGenerated) -> tuple[StepAnswered, judging.Terms | None]:
        state = loaded.state
        if not event.calls or not isinstance(state, Generating):
            return StepAnswered(generated=event), None
        agent, catalog = self._jobs.agent_of(state), self._catalog.current
        judged = judging.judge(
            event.calls,
            state.start,
            agent,
            catalog,
            made=state.calls_made,
            check=schemas.problems,
        )
        answered = StepAnswered(
            generated=msgspec.structs.replace(event, calls=judging.shortened(event.calls)),
            rulings=judged.rulings,
            limits=judging.limits_of(agent),
            hold=hold_id(event.turn, event.step) if judged.terms is not None else "",
            offered=bool(judging.offer(state.start, agent, catalog)),
        )
        return answered, judged.terms


def _is_before(state: State, hold: Hold) -> bool:
    """Tell whether a turn has yet to take the step that a hold is of, or to name it."""
    return isinstance(state, Generating) and state.step <= hold.step


def _waits_for(state: State, hold: Hold) -> bool:
    return isinstance(state, Calling) and state.hold == hold.id


async def _patiently(work: Awaitable[Outcome]) -> Outcome:
    """Keep an event of a stored turn while the store is away, without keeping others from being taken."""
    try:
        return await work
    except Unavailable as exc:
        if exc.code == ErrorCode.STORE_DOWN:
            return Retry(STORE_AGAIN_S, exc.message)
        raise
