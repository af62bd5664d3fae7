"""How a turn ends: its record is stored, its stream is closed, its conversation is given up, in that order.

A store that fails delays an answer by `STORE_WAIT_S` at the most: the answer then says that it is not stored, and the
record, or the conversation to be given up, waits here, bounded, until the store is back.
"""

import asyncio
from typing import Final

import msgspec
import structlog

from kitemesh_contracts import subjects
from kitemesh_contracts.codec import encode
from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.content import AssistantMessage
from kitemesh_contracts.deltas import TurnEnded
from kitemesh_contracts.errors import MEANINGS, Busy, ErrorCode, ErrorInfo, KitemeshError, Unavailable
from kitemesh_contracts.headers import start_msg_id
from kitemesh_orchestrator.salvage import Waiter
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

UNDELIVERED: Final = ErrorInfo(
    code=ErrorCode.STORE_DOWN, message="The answer is too large to be delivered while the store does not answer"
)
_NEVER_SEATED: Final = frozenset(
    {ErrorCode.CONVERSATION_UNKNOWN, ErrorCode.CONVERSATION_FULL, ErrorCode.CONVERSATION_BUSY}
)


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


def closing_of(state: Accepted | Generating, finish: Finish, *, stored: bool, store_ms: float) -> TurnEnded:
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
        store_ms=store_ms,
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
        self._unstored: dict[str, TurnRecord] = {}
        self._unreleased: dict[str, TurnRecord] = {}

    async def end(self, state: Accepted | Generating, finish: Finish) -> None:
        """Store, close, give up the conversation."""
        record = record_of(state, finish, self._clock.now_ms())
        began_s = self._clock.monotonic()
        stored = await self._store(record)
        store_ms = round((self._clock.monotonic() - began_s) * 1000, 3)
        start = state.start
        payload = await self._pack(closing_of(state, finish, stored=stored, store_ms=store_ms))
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

    def abandon(self, waiter: Waiter, error: ErrorInfo) -> None:
        """Close the stream of a turn of which nothing else is known; its lock runs out by itself."""
        ended = TurnEnded(turn=waiter.turn, tenant=waiter.tenant, outcome="failed", step=0, attempt=0, error=error)
        self._bus.publish(subjects.live(waiter.gateway, waiter.turn, 0, 0), encode(ended))

    async def was_ended(self, start: StartTurn) -> bool:
        """Tell whether a turn that is started once more has ended before, and then give up the lock that it took."""
        if start.conversation is None:
            return False
        try:
            record = await self._stores.turns.get(start.tenant, start.turn)
        except KitemeshError as exc:
            # The bus still remembers the ids of its jobs.
            log.warning("turn.not_looked_up", turn=start.turn, code=exc.code)
            return False
        if record is None:
            return False
        await self._release(record)
        return True

    async def _pack(self, closing: TurnEnded) -> bytes:
        small = pack_small(closing)
        if small is not None:
            return small
        try:
            return await self._parcels.pack(closing.tenant, closing)
        except KitemeshError as exc:
            # Waiting for the store would keep every other turn's end waiting too.
            log.warning("turn.undelivered", turn=closing.turn, code=exc.code)
            return encode(
                msgspec.structs.replace(
                    closing, outcome="failed", text="", reasoning="", finish=None, error=UNDELIVERED
                )
            )

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
        if record.id in self._unstored:
            return
        TURNS_UNSTORED.inc()
        dropped = _put_bounded(self._unstored, record)
        if dropped is not None:
            log.error("turn.dropped", turn=dropped.id, reason="too many turns wait for the store")
        TURNS_WAITING.set(len(self._unstored))

    async def _release(self, record: TurnRecord) -> None:
        """Give up the lock, or the place in the queue, now or when the store is back."""
        if record.conversation is None or (record.error is not None and record.error.code in _NEVER_SEATED):
            return
        try:
            promoted = await self._give_up_seat(record, record.conversation)
        except KitemeshError as exc:
            log.warning("conversation.kept", turn=record.id, code=exc.code)
            # One that is dropped is freed by the sweep when its lock runs out.
            _put_bounded(self._unreleased, record)
            return
        self._unreleased.pop(record.id, None)
        if promoted is not None:
            await self.promote(promoted)

    async def _give_up_seat(self, record: TurnRecord, conversation: str) -> Promoted | None:
        conversations = self._stores.conversations
        if not record.ordinal:
            # It ended before it ran; an earlier delivery, or a write reported as failed, may have seated it all the
            # same.
            found = await conversations.get(record.tenant, conversation)
            if found is None:
                return None
            if found.active != record.id:
                await conversations.leave(record.tenant, conversation, record.id)
                return None
        return await conversations.release(record.tenant, conversation, record.id, agent=record.agent)

    async def promote(self, promoted: Promoted) -> None:
        """Publish the start of a turn that waited; a failure is repaired by the sweep."""
        subject = subjects.control_start(promoted.turn)
        try:
            await self._bus.send(subject, promoted.start, msg_id=start_msg_id(promoted.turn, promoted.n))
        except KitemeshError as exc:
            log.warning("turn.not_promoted", turn=promoted.turn, reason=exc.message)

    async def retry_unstored(self) -> None:
        """Write what could not be written, for ever, whenever the store is up."""
        while True:
            await self._store_state.wait_up()
            await self.flush()
            await asyncio.sleep(1.0)

    async def flush(self) -> None:
        """Write what waits; what fails goes on waiting."""
        for record in list(self._unstored.values()):
            try:
                await self._stores.turns.put(record.tenant, record)
            except (Unavailable, Busy):
                return
            except KitemeshError as exc:
                log.error("turn.dropped", turn=record.id, reason=exc.message)  # noqa: TRY400  the reason is the message
            self._unstored.pop(record.id, None)
            TURNS_WAITING.set(len(self._unstored))
            await self._release(record)
        for record in list(self._unreleased.values()):
            await self._release(record)


def _put_bounded(waiting: dict[str, TurnRecord], record: TurnRecord) -> TurnRecord | None:
    """Add a record; return the oldest one if there was no room for it."""
    waiting[record.id] = record
    return waiting.pop(next(iter(waiting))) if len(waiting) > MAX_UNSTORED else None
