"""The engine: message, load, decide, save, publish, acknowledge. The message not yet acknowledged is the outbox.

Every step may be repeated: jobs and results have ids that the bus and the store know again.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, assert_never

import msgspec
import structlog

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import CancelTurn, Generate
from kitemesh_contracts.errors import ContractViolation, ErrorCode, ErrorInfo, KitemeshError, Unavailable
from kitemesh_contracts.events import Event as WireEvent
from kitemesh_contracts.events import StepReleased
from kitemesh_contracts.headers import job_msg_id
from kitemesh_contracts.topology import CONTROL, EVENT, MODEL, PRIORITIES, TURN, lane_of
from kitemesh_orchestrator import carried, request
from kitemesh_orchestrator.endings import Endings
from kitemesh_orchestrator.salvage import waiter_of
from kitemesh_orchestrator.seating import Seating
from kitemesh_orchestrator.turn import (
    Accepted,
    CallModel,
    Ended,
    Event,
    Finish,
    State,
    TurnCancelled,
    TurnRefused,
    WorkLost,
    decide,
)
from kitemesh_runtime.bus import Bus, Delivery
from kitemesh_runtime.cancels import Cancels
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.failpoints import reach
from kitemesh_runtime.parcels import Parcels, pack_small
from kitemesh_runtime.stores import TurnRecord
from kitemesh_runtime.worker import Done, GiveUp, Outcome

EXHAUSTED: Final = ErrorInfo(code=ErrorCode.TURN_EXHAUSTED, message="The turn was given up after repeated failures")
UNKNOWN_AGENT: Final = ErrorInfo(code=ErrorCode.MODEL_UNKNOWN, message="The requested agent is no longer offered")

log: Final = structlog.get_logger()


class Engine:
    """Drives turns; stateless, so any replica may take any message."""

    def __init__(
        self,
        *,
        bus: Bus,
        parcels: Parcels,
        catalog: CatalogHandle,
        seating: Seating,
        endings: Endings,
        cancels: Cancels,
    ) -> None:
        self._bus: Final = bus
        self._parcels: Final = parcels
        self._catalog: Final = catalog
        self._seating: Final = seating
        self._endings: Final = endings
        self._cancels: Final = cancels

    async def on_start(self, delivery: Delivery) -> Outcome:
        """Begin a turn that was accepted, or promoted from its conversation's queue."""
        await reach("orch.after_fetch")
        start = await self._parcels.unpack(codec.START, delivery.data)
        state = Accepted(start=start)
        reason = self._cancels.reason(start.turn)
        if reason is not None:
            await self._apply(state, TurnCancelled(reason=reason))
            return Done()
        agent = self._catalog.current.agents.get(start.route.agent) if start.route.agent else None
        if start.route.agent and agent is None:
            await self._apply(state, TurnRefused(error=UNKNOWN_AGENT))
            return Done()
        seated = await self._seating.seat(start, delivery.data, agent)
        # A promotion is published again when it was not taken up in time, so it too may come twice.
        again = delivery.deliveries > 1 or delivery.subject == subjects.control_start(start.turn)
        if seated.event is None or (again and await self._endings.was_ended(start)):
            return Done()
        # The insert of a new conversation runs beside the first model call.
        creating = asyncio.create_task(self._seating.create(start)) if start.fresh else None
        try:
            await self._apply(state, seated.event, history=seated.history)
        finally:
            if creating is not None:
                await creating
        return Done()

    async def on_event(self, delivery: Delivery) -> Outcome:
        """Take what a worker did."""
        await reach("orch.after_fetch")
        event: WireEvent = await self._parcels.unpack(codec.EVENT, delivery.data)
        job: Generate | None = None
        if isinstance(event, StepReleased):
            job = await self._job(event.tenant, bytes(event.job))
            state = carried.load(job.carry)
        else:
            state = carried.load(event.carry)
        if state.start.turn != event.turn or state.start.tenant != event.tenant:
            raise ContractViolation("an event carries another turn's state")
        await self._apply(state, event, job=job)
        return Done()

    async def on_dead(self, stream: str, subject: str, data: bytes, reason: str) -> None:
        """Fail the turn whose message was given up, and stop what is still done for it."""
        if not data:
            return  # who rejected it has told
        turn = subjects.last_token(subject)
        try:
            state = await self._state_of(stream, data)
        except ContractViolation as exc:
            waiter = waiter_of(data, turn)
            log.error("turn.unknown", turn=turn, stream=stream, told=waiter is not None, reason=exc.message)  # noqa: TRY400  the reason says it
            if waiter is not None:
                self._endings.abandon(waiter, EXHAUSTED)
            return
        log.warning("turn.exhausted", turn=turn, stream=stream, reason=reason)
        await self._apply(state, WorkLost(error=EXHAUSTED))
        cancel = CancelTurn(turn=turn, tenant=state.start.tenant, reason="it was given up")
        self._bus.publish(subjects.cancel(turn), codec.encode(cancel))

    def on_reject(self, stream: str) -> GiveUp:
        """Return what fails the turn of a stream's message that no attempt can handle."""

        async def reject(delivery: Delivery, reason: str) -> None:
            await self.on_dead(stream, delivery.subject, delivery.data, reason)

        return reject

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
            await self._apply(Accepted(start=start), TurnCancelled(reason=cancel.reason))
        except Unavailable:
            raise
        except KitemeshError as exc:
            log.warning("cancel.failed", turn=cancel.turn, code=exc.code)

    async def _apply(
        self,
        state: State,
        event: Event,
        *,
        history: Sequence[TurnRecord] = (),
        job: Generate | None = None,
    ) -> None:
        decision = decide(state, event)
        await reach("orch.after_decide")
        for command in decision.commands:
            match command:
                case CallModel():
                    await self._call_model(decision.state, command, history, job)
                case Finish():
                    assert not isinstance(state, Ended)  # noqa: S101  an ended turn decides nothing
                    await self._endings.end(state, command)
                case _:
                    assert_never(command)
        await reach("orch.after_publish")

    async def _call_model(
        self, state: State, command: CallModel, history: Sequence[TurnRecord], job: Generate | None
    ) -> None:
        start = state.start
        catalog = self._catalog.current
        if job is None:
            agent = catalog.agents.get(start.route.agent) if start.route.agent else None
            messages = request.render(start, agent, history)
            job = request.generate(start, messages, step=command.step, attempt=command.attempt)
        sent = msgspec.structs.replace(job, attempt=command.attempt, carry=carried.save(state))
        pool = catalog.pools.model.get(start.route.pool)
        lane = lane_of(start.tenant, pool.lanes) if pool else 0
        payload = pack_small(sent) or await self._parcels.pack(start.tenant, sent)
        await reach("orch.after_save")
        await self._bus.send(
            subjects.model_job(start.route.pool, PRIORITIES[0], lane, start.turn),
            payload,
            msg_id=job_msg_id(start.turn, command.step, "model", 0, command.attempt),
        )

    async def _job(self, tenant: str, data: bytes) -> Generate:
        job = await self._parcels.unpack(codec.GENERATE, data)
        if job.tenant != tenant:
            raise ContractViolation("a released job is no model call of its tenant")
        return job

    async def _state_of(self, stream: str, data: bytes) -> State:
        if stream in {TURN, CONTROL}:
            return Accepted(start=await self._parcels.unpack(codec.START, data))
        if stream == MODEL:
            return carried.load((await self._parcels.unpack(codec.GENERATE, data)).carry)
        if stream == EVENT:
            event: WireEvent = await self._parcels.unpack(codec.EVENT, data)
            if isinstance(event, StepReleased):
                return carried.load((await self._job(event.tenant, bytes(event.job))).carry)
            return carried.load(event.carry)
        raise ContractViolation(f"no turn is known by a message of {stream}")
