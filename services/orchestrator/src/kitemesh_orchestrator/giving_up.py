"""What becomes of a turn whose message was given up: it fails with words, as far as it can be told which turn it is."""

from typing import Any, Final

import structlog

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import ApplyHold, CancelTurn, Generate, RunCalls, StartTurn
from kitemesh_contracts.errors import ContractViolation, ErrorCode, ErrorInfo, Unavailable
from kitemesh_contracts.events import CallsReturned, Event, StepReleased
from kitemesh_contracts.topology import CONTROL, EVENT, MODEL, TOOL, TURN
from kitemesh_orchestrator import carried
from kitemesh_orchestrator.driving import Drive, Loaded
from kitemesh_orchestrator.endings import Endings
from kitemesh_orchestrator.happenings import WorkLost
from kitemesh_orchestrator.salvage import waiter_of
from kitemesh_orchestrator.states import Accepted, Calling, Generating, State
from kitemesh_orchestrator.whereabouts import Whereabouts
from kitemesh_runtime.bus import Bus, Delivery
from kitemesh_runtime.live_turns import Job
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.turns import TurnRecord
from kitemesh_runtime.worker import GiveUp

EXHAUSTED: Final = ErrorInfo(code=ErrorCode.TURN_EXHAUSTED, message="The turn was given up after repeated failures")

Message = StartTurn | ApplyHold | CancelTurn | Generate | RunCalls | Event

log: Final = structlog.get_logger()


class GivingUp:
    """Fails turns."""

    def __init__(self, bus: Bus, parcels: Parcels, drive: Drive, endings: Endings, whereabouts: Whereabouts) -> None:
        self._bus: Final = bus
        self._parcels: Final = parcels
        self._drive: Final = drive
        self._endings: Final = endings
        self._whereabouts: Final = whereabouts

    async def on_dead(self, stream: str, subject: str, data: bytes, reason: str) -> None:
        """Fail the turn whose message was given up, and stop what is still done for it."""
        if not data:
            return  # who rejected it has told
        turn = subjects.last_token(subject)
        try:
            found = await self._turn_of(stream, data)
        except ContractViolation as exc:
            waiter = waiter_of(data, turn)
            log.error("turn.unknown", turn=turn, stream=stream, told=waiter is not None, reason=exc.message)  # noqa: TRY400  the reason says it
            if waiter is not None:
                self._endings.abandon(waiter, EXHAUSTED)
            return
        if not isinstance(found, Loaded):
            log.warning("message.dropped", turn=turn, stream=stream, reason=reason)
            return
        log.warning("turn.exhausted", turn=turn, stream=stream, reason=reason)
        await self._drive.apply(found, WorkLost(error=EXHAUSTED))
        cancel = CancelTurn(
            turn=turn, tenant=found.state.start.tenant, reason="it was given up", ended=bool(found.version)
        )
        self._bus.publish(subjects.cancel(turn), codec.encode(cancel))

    def on_reject(self, stream: str) -> GiveUp:
        """Return what fails the turn of a stream's message that no attempt can handle."""

        async def reject(delivery: Delivery, reason: str) -> None:
            try:
                await self.on_dead(stream, delivery.subject, delivery.data, reason)
            except Unavailable as exc:
                if exc.code != ErrorCode.STORE_DOWN:
                    raise
                # Waiting would keep every other message waiting; a stored turn is driven on by the sweep.
                log.warning("reject.untold", subject=delivery.subject, reason=reason)

        return reject

    async def _turn_of(self, stream: str, data: bytes) -> Loaded | TurnRecord | None:
        """Find the turn that a message is about; what the store knows of it counts more than what it carries."""
        if stream not in {TURN, CONTROL, MODEL, TOOL, EVENT}:
            raise ContractViolation(f"no turn is known by a message of {stream}")
        decoder: Any = {TURN: codec.START, CONTROL: codec.CONTROL, EVENT: codec.EVENT}.get(stream, codec.JOB)
        message: Any = await self._parcels.unpack(decoder, data)
        if isinstance(message, StepReleased):
            message = await job_of(message, self._parcels)
        if isinstance(message, StartTurn) and message.mode == "classic":
            return Loaded(Accepted(start=message))
        found = await self._drive.load(message.tenant, message.turn)
        if isinstance(found, Loaded) and _is_from_before(stream, message, found.state):
            # It was given up with the turn, and whoever did so has not lived to remove it. The turn was requeued.
            return None
        if isinstance(message, StartTurn) and isinstance(found, Loaded) and not await self._has_no_job(message):
            # It runs; whoever took up its start was killed by something else.
            return None
        carry = getattr(message, "carry", None)
        if found is not None or carry is None or carried.is_empty(carry):
            return found
        return Loaded(carried.load(carry))

    async def _has_no_job(self, start: StartTurn) -> bool:
        return await self._whereabouts.is_lost(start.turn, Job(kind="model", step=1, pool=start.route.pool))


def _is_from_before(stream: str, message: Message, state: State) -> bool:
    """Tell whether a message is of a time before its turn was requeued."""
    past = state.past if isinstance(state, Generating | Calling) else None
    if past is None or isinstance(message, ApplyHold | CancelTurn):
        return False
    if isinstance(message, StartTurn):
        # What is begun anew is published as a follow-up.
        return stream == TURN or past.calling or past.step > 1
    if message.step != past.step:
        return message.step < past.step
    if isinstance(message, RunCalls | CallsReturned):
        return past.calling and message.attempt <= past.attempt
    return past.calling or message.attempt <= past.attempt


async def job_of(event: StepReleased, parcels: Parcels) -> Generate | RunCalls:
    """Return the job that an event hands back.

    Raises:
        ContractViolation: It is another turn's.
        Unavailable: It is a parcel, and the store does not answer.

    """
    job: Generate | RunCalls = await parcels.unpack(codec.JOB, bytes(event.job))
    if job.tenant != event.tenant or job.turn != event.turn:
        raise ContractViolation("an event hands back another turn's job")
    return job
