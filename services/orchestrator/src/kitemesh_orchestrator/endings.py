"""How a turn ends: its record is stored, its stream is closed, its conversation is given up, in that order.

A store that fails delays an answer by `STORE_WAIT_S` at the most: the answer then says that it is not stored, and the
record waits here, bounded, until the store is back.
"""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

import structlog

from kitemesh_contracts import subjects
from kitemesh_contracts.content import AssistantMessage
from kitemesh_contracts.deltas import TurnEnded
from kitemesh_contracts.errors import MEANINGS, ErrorInfo, KitemeshError, Unavailable
from kitemesh_contracts.headers import start_msg_id
from kitemesh_orchestrator.turn import Accepted, Finish, Generating
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.metrics import TURNS_ENDED, TURNS_UNSTORED, TURNS_WAITING
from kitemesh_runtime.parcels import Parcels, pack_small
from kitemesh_runtime.stores import Promoted, Stores, TurnRecord

log: Final = structlog.get_logger()

STORE_WAIT_S: Final = 2.0
MAX_UNSTORED: Final = 1_000


def record_of(state: Accepted | Generating, finish: Finish, ended_at_ms: int) -> TurnRecord:
    """Return the document that is stored of an ended turn."""
    start = state.start
    said = finish.text or finish.reasoning
    return TurnRecord(
        id=start.turn,
        tenant=start.tenant,
        status=finish.outcome,
        mode=start.mode,
        model=start.route.requested,
        conversation=start.conversation,
        ordinal=state.ordinal if isinstance(state, Generating) else 0,
        key=start.key,
        agent=start.route.agent,
        served_by=finish.model,
        request=start.request,
        input=start.input,
        answer=AssistantMessage(text=finish.text, reasoning=finish.reasoning) if said else None,
        usage=finish.usage,
        error=finish.error,
        finish=finish.finish,
        timings=finish.timings,
        accepted_at_ms=start.accepted_at_ms,
        ended_at_ms=ended_at_ms,
    )


def closing_of(state: Accepted | Generating, finish: Finish, *, stored: bool) -> TurnEnded:
    """Return the event that closes a turn's stream."""
    return TurnEnded(
        turn=state.start.turn,
        tenant=state.start.tenant,
        outcome=finish.outcome,
        step=finish.step,
        attempt=finish.attempt,
        last=finish.last,
        model=finish.model,
        text=finish.text,
        reasoning=finish.reasoning,
        finish=finish.finish,
        usage=finish.usage,
        error=finish.error,
        stored=stored,
        timings=finish.timings,
    )


def refused(error: ErrorInfo | None) -> bool:
    """Tell whether nothing was run: a refusal leaves no trace in the store."""
    return error is not None and MEANINGS[error.code].outcome == "refused"


class Endings:
    """Ends turns; idempotent, so that a redelivered event may end its turn again."""

    def __init__(self, *, bus: Bus, stores: Stores, parcels: Parcels, clock: Clock, store_state: Dependency) -> None:
        self._bus: Final = bus
        self._stores: Final = stores
        self._parcels: Final = parcels
        self._clock: Final = clock
        self._store_state: Final = store_state
        self._unstored: deque[TurnRecord] = deque()

    async def end(self, state: Accepted | Generating, finish: Finish) -> None:
        """Store, close, give up the conversation."""
        record = record_of(state, finish, self._clock.now_ms())
        stored = await self._store(record)
        start = state.start
        closing = closing_of(state, finish, stored=stored)
        payload = pack_small(closing) or await self._parcels.pack(start.tenant, closing)
        self._bus.publish(subjects.live(start.gateway, start.turn, finish.step, finish.attempt), payload)
        TURNS_ENDED.labels(start.mode, finish.outcome).inc()
        log.info(
            "turn.ended",
            turn=start.turn,
            outcome=finish.outcome,
            code=finish.error.code if finish.error else None,
            stored=stored,
            attempt=finish.attempt,
        )
        if stored:
            await self._release(record)

    async def _store(self, record: TurnRecord) -> bool:
        if record.conversation is None or refused(record.error):
            return True
        if not self._store_state.is_up:
            self._keep(record)
            return False
        try:
            async with asyncio.timeout(STORE_WAIT_S):
                await self._stores.turns.put(record.tenant, record)
        except (KitemeshError, TimeoutError) as exc:
            log.warning("turn.unstored", turn=record.id, reason=str(exc))
            self._keep(record)
            return False
        return True

    def _keep(self, record: TurnRecord) -> None:
        TURNS_UNSTORED.inc()
        if len(self._unstored) >= MAX_UNSTORED:
            dropped = self._unstored.popleft()
            log.error("turn.dropped", turn=dropped.id, reason="too many turns wait for the store")
        self._unstored.append(record)
        TURNS_WAITING.set(len(self._unstored))

    async def _release(self, record: TurnRecord) -> None:
        """Give up the lock; a failure is repaired by the sweep when the lock runs out."""
        if record.conversation is None or record.ordinal == 0:
            return
        try:
            promoted = await self._stores.conversations.release(
                record.tenant, record.conversation, record.id, agent=record.agent
            )
        except Unavailable as exc:
            log.warning("conversation.kept", turn=record.id, reason=exc.message)
            return
        if promoted is not None:
            await self.promote(promoted)

    async def promote(self, promoted: Promoted) -> None:
        """Publish the start of a turn that waited; a failure is repaired by the sweep."""
        subject = subjects.control_start(promoted.turn)
        try:
            await self._bus.send(subject, promoted.start, msg_id=start_msg_id(promoted.turn, promoted.n))
        except Unavailable as exc:
            log.warning("turn.not_promoted", turn=promoted.turn, reason=exc.message)

    async def retry_unstored(self) -> None:
        """Write what could not be written, for ever, whenever the store is up."""
        while True:
            await self._store_state.wait_up()
            if self._unstored:
                await self.flush()
            await asyncio.sleep(1.0)

    async def flush(self) -> None:
        """Write what waits; what fails goes on waiting."""
        while self._unstored:
            record = self._unstored[0]
            try:
                await self._stores.turns.put(record.tenant, record)
            except Unavailable:
                return
            except KitemeshError as exc:
                log.error("turn.dropped", turn=record.id, reason=exc.message)  # noqa: TRY400  the reason is the message
            with suppress(ValueError):
                self._unstored.remove(record)
            TURNS_WAITING.set(len(self._unstored))
            await self._release(record)
