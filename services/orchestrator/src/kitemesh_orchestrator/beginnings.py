"""How a turn begins: seated in its conversation, and its first job published straight from its start.

A turn that was accepted as durable is in the store before its start is published; nothing is written there before the
first job is out, and a start that comes again is held against what the store says. What a turn does then is not known.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from kitemesh_contracts import subjects
from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.errors import ErrorCode, ErrorInfo, Unavailable
from kitemesh_contracts.events import StepTimings
from kitemesh_orchestrator import stored
from kitemesh_orchestrator.driving import Drive, Loaded
from kitemesh_orchestrator.endings import Endings
from kitemesh_orchestrator.happenings import JobReleased, TurnCancelled, TurnRefused, TurnSeated
from kitemesh_orchestrator.noting import Noting
from kitemesh_orchestrator.seating import Seating
from kitemesh_orchestrator.states import Accepted, Calling, Generating
from kitemesh_orchestrator.turn import TOO_LONG
from kitemesh_orchestrator.whereabouts import Whereabouts
from kitemesh_runtime.bus import Delivery
from kitemesh_runtime.cancels import Cancels
from kitemesh_runtime.catalog import Agent
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.live_turns import Job, LiveTurns
from kitemesh_runtime.queueing import queued_s, waited_too_long
from kitemesh_runtime.turns import TurnRecord
from kitemesh_runtime.worker import Done, Outcome

UNKNOWN_AGENT: Final = ErrorInfo(code=ErrorCode.MODEL_UNKNOWN, message="The requested agent is no longer offered")
STALE_S: Final = 5.0
HALFWAY_MAX: Final = 10_000
_MS: Final = 1000.0

log: Final = structlog.get_logger()


class Beginnings:
    """Begins turns; a start may be delivered any number of times."""

    def __init__(
        self,
        *,
        live_turns: LiveTurns,
        noting: Noting,
        whereabouts: Whereabouts,
        catalog: CatalogHandle,
        seating: Seating,
        endings: Endings,
        cancels: Cancels,
        drive: Drive,
        clock: Clock,
    ) -> None:
        self._live_turns: Final = live_turns
        self._noting: Final = noting
        self._whereabouts: Final = whereabouts
        self._catalog: Final = catalog
        self._seating: Final = seating
        self._endings: Final = endings
        self._cancels: Final = cancels
        self._drive: Final = drive
        self._clock: Final = clock
        self._halfway: Final[set[str]] = set()

    async def begin(self, start: StartTurn, delivery: Delivery) -> Outcome:
        """Take up a turn that was accepted, promoted, or driven on by a sweep.

        Raises:
            Unavailable: The store or the bus does not answer; again it does what is left.

        """
        # A promotion is published again when it was not taken up in time, so it too may come twice.
        follows = delivery.subject == subjects.control_start(start.turn)
        if (
            follows
            and start.mode == "durable"
            and _opens(start)
            and await self._whereabouts.has_first_start(start.turn)
        ):
            # Its gateway was not told that it is there. Two that begin one turn would not agree on an attempt.
            log.info("start.outdated", turn=start.turn)
            return Done()
        repeated = follows or delivery.deliveries > 1
        waited_s = queued_s(delivery.published_at_s, now_ms=self._clock.now_ms())
        timed = self._timer(waited_s)
        halfway = delivery.subject in self._halfway
        # What may have been begun is not refused, and what was promoted has waited for its conversation only.
        late = None if repeated or halfway else _too_late(start, waited_s)
        try:
            if start.mode == "durable":
                # A cancel is broadcast for a while, and remembered for a minute, by who was there to hear it.
                repeated, stale = repeated or halfway, waited_s > STALE_S
                await self._begin_stored(start, delivery.data, timed, repeated=repeated, stale=stale, late=late)
            else:
                await self._begin_carried(start, delivery.data, timed, again=repeated, late=late)
        except Unavailable:
            # It may have come to anything, and the turn to its end before this is tried again.
            if len(self._halfway) >= HALFWAY_MAX:
                self._halfway.clear()
            self._halfway.add(delivery.subject)
            raise
        self._halfway.discard(delivery.subject)
        return Done()

    async def _begin_carried(
        self,
        start: StartTurn,
        payload: bytes,
        timed: Callable[[], StepTimings],
        *,
        again: bool,
        late: ErrorInfo | None,
    ) -> None:
        accepted = Loaded(Accepted(start=start))
        reason = self._cancels.reason(start.turn)
        if reason is not None:
            if not again or not await self._endings.was_stored(start):
                await self._drive.apply(accepted, TurnCancelled(reason=reason))
            return
        agent, offered = self._agent_of(start)
        refused = late if offered else UNKNOWN_AGENT
        if refused is not None:
            await self._drive.apply(accepted, TurnRefused(error=refused))
            return
        seated = await self._seating.seat(start, payload, agent)
        if seated.event is None or (again and await self._endings.was_stored(start)):
            return
        # The insert of a new conversation runs beside the first model call.
        creating = asyncio.create_task(self._seating.create(start)) if start.fresh else None
        try:
            await self._drive.begin(accepted, seated.event, seated.history, timed=timed)
        finally:
            if creating is not None:
                await creating

    async def _begin_stored(
        self,
        start: StartTurn,
        payload: bytes,
        timed: Callable[[], StepTimings],
        *,
        repeated: bool,
        stale: bool,
        late: ErrorInfo | None,
    ) -> None:
        accepted, attempt = Loaded(Accepted(start=start), stored.FIRST), 1
        if repeated or stale:
            first = await self._not_begun(start, repeated=repeated)
            if first is None:
                return
            assert isinstance(first.state, Generating)  # noqa: S101  nothing else has not begun
            accepted, attempt = Loaded(Accepted(start=first.state.start), first.version), first.state.attempt
        elif self._cancels.reason(start.turn, durable=True) is not None:
            # Who cancelled it marked it in the store and has it ended.
            return
        agent, offered = self._agent_of(start)
        refusal = late if offered else UNKNOWN_AGENT
        if refusal is not None:
            await self._drive.apply(accepted, TurnRefused(error=refusal))
            return
        seated = await self._seating.seat(start, payload, agent)
        match seated.event:
            case None:
                return
            case TurnRefused() as refused:
                await self._drive.apply(accepted, refused)
            case TurnSeated(ordinal=ordinal) as event:
                beside = _opens(start)
                if not beside:
                    # Its place in the conversation is to be known before there is an answer.
                    await self._live_turns.begin(start.tenant, start.turn, ordinal=ordinal)
                await self._drive.begin(accepted, event, seated.history, timed=timed, attempt=attempt)
                if beside:
                    self._noting.later(start.tenant, start.turn, ordinal)
                # The model is asked meanwhile.
                await self._seating.keep(start)

    async def _not_begun(self, start: StartTurn, *, repeated: bool) -> Loaded | None:
        """Return a turn whose start came late or again, if its first job was never published; else see to it."""
        job = Job(kind="model", step=1, pool=start.route.pool)
        lost = await self._whereabouts.is_lost(start.turn, job)
        # Read after that question: a job that was done and told in between has changed the turn.
        found = await self._drive.load(start.tenant, start.turn)
        match found:
            case None:
                # Its client was refused, or its document has outlived its days.
                log.warning("turn.gone", turn=start.turn)
            case TurnRecord():
                await self._endings.repeat(found)
            case Loaded(cancelled=str(reason)):
                await self._drive.apply(found, TurnCancelled(reason=reason))
            case Loaded(state=Generating(step=1) as state) if (
                lost and found.queued and (not repeated or self._was_not_published(state))
            ):
                return found
            case Loaded(state=Generating() | Calling() as state):
                if _opens(state.start):
                    # Whoever published its job may have died before that was noted.
                    self._noting.later(start.tenant, start.turn, state.ordinal)
                    await self._seating.keep(state.start)
                if lost and isinstance(state, Generating) and state.step == 1:
                    # It may have been published: what an earlier job said must not be mixed with what this will say.
                    await self._drive.apply(found, JobReleased(kind="model", step=1, index=0, attempt=state.attempt))
                else:
                    log.info("start.outdated", turn=start.turn)
        return None

    def _was_not_published(self, state: Generating) -> bool:
        """Tell whether the first job of a turn that was not noted as running cannot be out: the note comes first.

        Not so where the turn opens its conversation. One whose agent is gone is returned, too, to be refused.
        """
        return not _opens(state.start) or not self._agent_of(state.start)[1]

    def _agent_of(self, start: StartTurn) -> tuple[Agent | None, bool]:
        """Return whose rules a turn follows, and whether it can be begun at all."""
        name = start.route.agent
        agent = self._catalog.current.agents.get(name) if name else None
        return agent, not name or agent is not None

    def _timer(self, waited_s: float) -> Callable[[], StepTimings]:
        waited_ms = round(waited_s * _MS, 3)
        taken_s = self._clock.monotonic()

        def timed() -> StepTimings:
            spent_ms = round((self._clock.monotonic() - taken_s) * _MS, 3)
            return StepTimings(start_queued_ms=waited_ms, orchestrator_ms=spent_ms)

        return timed


def _too_late(start: StartTurn, waited_s: float) -> ErrorInfo | None:
    """Say why a turn is not begun any more whose start has waited for so long."""
    if waited_s >= start.budget_s:
        return TOO_LONG
    if start.max_wait_s is not None and waited_s > start.max_wait_s:
        return waited_too_long(waited_s)
    return None


def _opens(start: StartTurn) -> bool:
    """Tell whether a turn is the first of its conversation, or has none: its place is known without asking."""
    return start.conversation is None or start.fresh
