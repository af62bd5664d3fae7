"""How a turn ends: its record is stored, its stream is closed, its conversation is given up, in that order.

A store that fails delays a classic answer by `STORE_WAIT_S` at the most: the answer then says that it is not stored,
and the record, or the conversation to be given up, waits here, bounded, until the store is back. The end of a turn that
is in the store waits for it. What a turn's record and closing event hold is `closings`' business.
"""

import asyncio
from typing import Final, get_args

import msgspec
import structlog

from kitemesh_contracts import subjects
from kitemesh_contracts.codec import encode
from kitemesh_contracts.commands import Mode, StartTurn
from kitemesh_contracts.deltas import TurnEnded, TurnOutcome
from kitemesh_contracts.errors import MEANINGS, Busy, Conflict, ErrorCode, ErrorInfo, KitemeshError, Unavailable
from kitemesh_contracts.headers import start_msg_id
from kitemesh_orchestrator.closings import closing_of, held_closing_of, record_of, record_of_live
from kitemesh_orchestrator.happenings import Finish
from kitemesh_orchestrator.notices import Notices
from kitemesh_orchestrator.request import blobs_of
from kitemesh_orchestrator.salvage import Waiter
from kitemesh_orchestrator.states import Calling, State
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.conversations import Promoted
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.metrics import HOP, TURNS_ENDED, TURNS_UNSTORED, TURNS_WAITING
from kitemesh_runtime.parcels import Parcels, pack_small
from kitemesh_runtime.stored_endings import ended_from
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.turns import TurnRecord

log: Final = structlog.get_logger()

STORE_WAIT_S: Final = 2.0
MAX_UNSTORED: Final = 1_000
_MS: Final = 1000
_START_QUEUE, _ORCHESTRATOR, _STORE = (HOP.labels(hop) for hop in ("start_queue", "orchestrator", "store"))
# Made beforehand, here as elsewhere: a series that begins with its first count has no rise that an alert could see.
_ENDED: Final = {
    (mode, outcome): TURNS_ENDED.labels(mode, outcome).inc
    for mode in get_args(Mode)
    for outcome in get_args(TurnOutcome)
}

UNDELIVERED: Final = ErrorInfo(
    code=ErrorCode.STORE_DOWN, message="The answer is too large to be delivered while the store does not answer"
)
_NEVER_SEATED: Final = frozenset(
    {ErrorCode.CONVERSATION_UNKNOWN, ErrorCode.CONVERSATION_FULL, ErrorCode.CONVERSATION_BUSY}
)


def refused(error: ErrorInfo | None) -> bool:
    """Tell whether nothing was run: a refusal leaves no trace in the store."""
    return error is not None and MEANINGS[error.code].outcome == "refused"


class Endings:
    """Ends turns; idempotent, so that a redelivered event may end its turn again."""

    def __init__(
        self,
        *,
        bus: Bus,
        stores: Stores,
        parcels: Parcels,
        clock: Clock,
        store_state: Dependency,
        notices: Notices,
    ) -> None:
        self._bus: Final = bus
        self._stores: Final = stores
        self._parcels: Final = parcels
        self._clock: Final = clock
        self._store_state: Final = store_state
        self._notices: Final = notices
        self._unstored: dict[str, TurnRecord] = {}
        self._unreleased: dict[str, TurnRecord] = {}

    async def end(self, state: State, finish: Finish, *, version: int = 0, before: LiveTurn | None = None) -> None:
        """Store, close, give up the conversation.

        Args:
            state: What the turn was before it ended.
            finish: How it ends.
            version: Of its document, when it has one.
            before: Its document, to be kept with its end so that it can go on from there.

        Raises:
            Conflict: The document has another version (`store.stale`).
            Unavailable: A document cannot be written now.

        """
        record = record_of(state, finish, self._clock.now_ms())
        began_s = self._clock.monotonic()
        if version:
            await self._stores.live_turns.finish(record.tenant, record, version=version, before=before)
            stored = True
        else:
            stored = await self._store(record)
        store_ms = round((self._clock.monotonic() - began_s) * 1000, 3)
        start = state.start
        closing = closing_of(state, finish, stored=stored, store_ms=store_ms, ended_at_ms=record.ended_at_ms)
        subject = subjects.live(start.gateway, start.turn, finish.step, finish.attempt)
        await self._close(subject, closing, is_in_store=bool(version))
        _ENDED[record.mode, finish.outcome]()
        _START_QUEUE.observe(finish.timings.start_queued_ms / _MS)
        _ORCHESTRATOR.observe(finish.timings.orchestrator_ms / _MS)
        if version or record.conversation is not None:
            _STORE.observe(store_ms / _MS)
        log.info(
            "turn.ended",
            turn=start.turn,
            outcome=finish.outcome,
            code=finish.error.code if finish.error else None,
            stored=stored,
            attempt=finish.attempt,
        )
        if stored:
            await self._release(record, patient=not version)
        await self._tell(record)

    async def end_document(self, live: LiveTurn) -> None:
        """End a turn as cancelled of which nothing but the document can be read."""
        record = record_of_live(live, self._clock.now_ms())
        await self._stores.live_turns.finish(record.tenant, record, version=live.version)
        await self.repeat(record)

    async def pause(self, state: Calling) -> None:
        """Close the stream of a turn that waits for a person; what is shown of its calls has no secrets.

        Raises:
            Unavailable: A long result cannot be read now.

        """
        start, said = state.start, state.said
        subject = subjects.live(start.gateway, start.turn, said.step, said.attempt)
        texts: dict[str, str] = {}
        for blob in blobs_of((said,)):
            data = await self._stores.blobs.get(start.tenant, blob)
            if data is not None:
                texts[blob] = data.decode()
        await self._close(subject, held_closing_of(state, texts), is_in_store=True)
        log.info("turn.held", turn=start.turn, hold=state.hold, calls=len(state.undecided))

    async def repeat(self, record: TurnRecord) -> None:
        """Do once more what follows the stored end of a turn: an event of it has come again."""
        if record.gateway:
            await self._close(subjects.live(record.gateway, record.id, 0, 0), ended_from(record), is_in_store=True)
        await self._release(record, patient=False)
        await self._tell(record)

    def abandon(self, waiter: Waiter, error: ErrorInfo) -> None:
        """Close the stream of a turn of which nothing else is known; its lock runs out by itself."""
        ended = TurnEnded(turn=waiter.turn, tenant=waiter.tenant, outcome="failed", step=0, attempt=0, error=error)
        self._bus.publish(subjects.live(waiter.gateway, waiter.turn, 0, 0), encode(ended))

    async def was_stored(self, start: StartTurn) -> bool:
        """Tell whether a turn that is started once more is in the store; one that has ended gives up the lock again."""
        try:
            found = await self._stores.live_turns.get(start.tenant, start.turn)
        except KitemeshError as exc:
            # The bus still remembers the ids of its jobs.
            log.warning("turn.not_looked_up", turn=start.turn, code=exc.code)
            return False
        if isinstance(found, TurnRecord):
            await self._release(found)
        return found is not None

    async def _tell(self, record: TurnRecord) -> None:
        if refused(record.error):
            if record.mode == "durable":
                # It was accepted, and the feed said so.
                self._notices.tell_refused(record)
        else:
            await self._notices.tell("turn.finished" if record.status == "completed" else "turn.failed", record)

    async def _close(self, subject: str, closing: TurnEnded, *, is_in_store: bool) -> None:
        """Close a turn's stream; one that is in the store is found there when it cannot be told."""
        payload = pack_small(closing)
        if payload is None:
            try:
                payload = await self._parcels.pack(closing.tenant, closing)
            except KitemeshError as exc:
                # Waiting for the store would keep every other turn's end waiting too.
                log.warning("turn.undelivered", turn=closing.turn, code=exc.code)
                if is_in_store:
                    return
                payload = encode(_undelivered(closing))
        self._bus.publish(subject, payload)

    async def _store(self, record: TurnRecord) -> bool:
        if record.conversation is None or refused(record.error):
            return True
        if not self._store_state.is_up:
            self._keep(record)
            return False
        try:
            async with asyncio.timeout(STORE_WAIT_S):
                await self._stores.turns.put(record.tenant, record)
        except Conflict:
            # It is in the store, live: whoever ends it from a message must look there first.
            raise
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

    async def _release(self, record: TurnRecord, *, patient: bool = True) -> None:
        """Give up the lock, or the place in the queue.

        Args:
            record: The turn.
            patient: Do it when the store is back if it cannot be done now; else whoever asks comes again.

        """
        if record.conversation is None or (record.error is not None and record.error.code in _NEVER_SEATED):
            return
        try:
            promoted = await self._give_up_seat(record, record.conversation)
        except KitemeshError as exc:
            if not patient:
                raise
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
            except Conflict:
                # It is in the store, live: it is not this record's to end.
                log.warning("turn.superseded", turn=record.id)
                self._unstored.pop(record.id, None)
                TURNS_WAITING.set(len(self._unstored))
                continue
            except KitemeshError as exc:
                log.error("turn.dropped", turn=record.id, reason=exc.message)  # noqa: TRY400  the reason is the message
            self._unstored.pop(record.id, None)
            TURNS_WAITING.set(len(self._unstored))
            await self._release(record)
        for record in list(self._unreleased.values()):
            await self._release(record)


def _undelivered(closing: TurnEnded) -> TurnEnded:
    return msgspec.structs.replace(
        closing,
        outcome="failed",
        text="",
        reasoning="",
        calls=(),
        finish=None,
        error=UNDELIVERED,
        earlier=(),
        hold=None,
        step_calls=(),
        results=(),
        alternatives=(),
        logprobs=(),
    )


def _put_bounded(waiting: dict[str, TurnRecord], record: TurnRecord) -> TurnRecord | None:
    """Add a record; return the oldest one if there was no room for it."""
    waiting[record.id] = record
    return waiting.pop(next(iter(waiting))) if len(waiting) > MAX_UNSTORED else None
