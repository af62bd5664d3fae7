"""The use case "accept a turn": claim what is unique, store a durable one whole, publish its start. It knows no HTTP.

What is stored is accepted: whoever sweeps drives it on, whatever fails here afterwards. So a publication whose outcome
is not known changes nothing, and a client that leaves in the middle has the rest done without it.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeVar

import structlog
from msgspec.structs import replace

from kitemesh_contracts.codec import encode
from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.errors import (
    Busy,
    Conflict,
    ErrorCode,
    KitemeshError,
    NotFound,
    Unavailable,
)
from kitemesh_gateway.idempotency import Key, check
from kitemesh_gateway.keeping import Keeping
from kitemesh_gateway.message_ids import MessageIds
from kitemesh_gateway.refused import was_refused
from kitemesh_gateway.relay import Relay
from kitemesh_gateway.turns import RETRY_S, Turns
from kitemesh_gateway.watches import Sink
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.claims import Claims
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.conversations import Conversations
from kitemesh_runtime.failpoints import guard, reach
from kitemesh_runtime.live_turns import Job, LiveTurn, LiveTurns
from kitemesh_runtime.news import News, accepted
from kitemesh_runtime.turns import TurnRecord

STORE_S: Final = 2.6
"""For claiming and inserting together, all tries: a refusal must be out within 3 s."""
AGAIN_S: Final = 0.1
PENDING_S: Final = 10.0
"""How long a key's second request waits for the turn of the first to be stored."""
ASK_AGAIN_S: Final = 1.0
PENDING_FIRST_S: Final = 0.02
PENDING_MOST_S: Final = 0.25
DOUBTS: Final = 10_000
"""How many turns whose insert was not answered are remembered."""

T = TypeVar("T")

log: Final = structlog.get_logger()


def queued(start: StartTurn) -> LiveTurn:
    """Return the whole document of a turn that begins; its first job follows from it without another write. Pure."""
    return LiveTurn(
        id=start.turn,
        tenant=start.tenant,
        version=1,
        status="queued",
        mode=start.mode,
        model=start.route.requested,
        state=encode(start),
        jobs=(Job(kind="model", step=1, pool=start.route.pool),),
        conversation=start.conversation,
        ordinal=1 if start.fresh else 0,
        key=start.key,
        agent=start.route.agent,
        gateway=start.gateway,
        request=start.request,
        accepted_at_ms=start.accepted_at_ms,
        dialect=start.dialect,
        include_usage=start.include_usage,
        message=start.message,
        row=start.row,
        details=start.details,
        input=() if start.conversation is None else start.input,
    )


class Accepting:
    """Accepts turns."""

    def __init__(
        self,
        turns: Turns,
        live_turns: LiveTurns,
        claims: Claims,
        conversations: Conversations,
        *,
        message_ids: MessageIds,
        keeping: Keeping,
        bus: Bus,
        relay: Relay,
        clock: Clock,
    ) -> None:
        self._turns: Final = turns
        self._live_turns: Final = live_turns
        self._claims: Final = claims
        self._conversations: Final = conversations
        self._message_ids: Final = message_ids
        self._keeping: Final = keeping
        self._bus: Final = bus
        self._news: Final = News(bus)
        self._relay: Final = relay
        self._clock: Final = clock
        self._unfinished: set[asyncio.Task[None]] = set()
        self._doubtful: deque[str] = deque(maxlen=DOUBTS)

    async def store(
        self, start: StartTurn, key: Key | None = None, files: Sequence[bytes] = ()
    ) -> StartTurn | LiveTurn | TurnRecord:
        """Store a turn and return its start, under the id that it has now; or return the stored one that the key means.

        Raises:
            NotFound: Its conversation does not exist (`conversation.unknown`); nothing was stored.
            BadRequest: The key came with another body (`idempotency.mismatch`), or the turn is too large to be stored.
            Conflict: The key's turn is not stored yet (`idempotency.pending`), or the id of its message was used before
                (`message.exists`).
            Unavailable: The bus is known to be gone, or the store did not answer in time.

        """
        if not self._bus.connected:
            message = "The message bus cannot be reached; no new turns are taken"
            raise Unavailable(ErrorCode.BUS_DOWN, message, retry_after_s=RETRY_S)
        give_up_at_s = self._clock.monotonic() + PENDING_S
        while True:
            try:
                stored = await self._store(start, key, files)
            except asyncio.CancelledError:
                self._after(self._accept(start, key, files), start)
                raise
            if isinstance(stored, StartTurn):
                return stored
            try:
                found = await self._find(start.tenant, key, stored, give_up_at_s)
            except asyncio.CancelledError:
                self._relay.disown(start.turn)
                raise
            if found is not None:
                return found

    async def reserve(self, start: StartTurn, files: Sequence[bytes]) -> StartTurn:
        """Claim and store what a classic turn needs before it begins; return its start, under the id that it has now.

        Raises:
            Conflict: The id of its message was used before (`message.exists`).
            NotFound: It brings files for a conversation that does not exist (`conversation.unknown`).
            Unavailable: The store did not answer in time.

        """
        if not (start.message or files):
            return start
        async with _in_time():
            if files:
                # Who seats the turn would find it out too late for the files not to be stored.
                await self._check_conversation(start)
            return await _again(partial(self._keeping.keep, await self._claim_message(start, None), files))

    async def free(self, start: StartTurn) -> None:
        """Give up what a classic turn reserved that was refused; where the store does not answer, it runs out."""
        with contextlib.suppress(Unavailable):
            async with _in_time():
                await self._message_ids.give_back(start.tenant, start.message, start.turn)
                await self._keeping.give_back(start)

    @asynccontextmanager
    async def running(self, start: StartTurn, key: Key | None, sink: Sink) -> AsyncIterator[None]:
        """Have a stored turn run and answer to the sink while inside; it goes on behind.

        Raises:
            Busy: The queue is full, and the turn is not stored any more.
            Unavailable: The queue is full, and the store does not answer.

        """
        watch = self._relay.open(self._turns.watched(start), sink)
        try:
            await self.publish(start, key)
            yield
        finally:
            self._relay.close(watch)

    async def publish(self, start: StartTurn, key: Key | None) -> None:
        """Hand a stored turn to the cluster.

        Raises:
            Busy: The queue is full, and the turn is not stored any more.
            Unavailable: The queue is full, and the store does not answer.

        """
        try:
            await self._publish(start, key)
        except asyncio.CancelledError:
            self._after(self._accept(start, key, ()), start)
            raise

    async def _publish(self, start: StartTurn, key: Key | None) -> None:
        try:
            await guard("gw.after_publish", self._turns.publish(start))
            await reach("gw.after_publish")
        except Busy:
            # A document that may yet arrive would bring back what was refused.
            if start.turn not in self._doubtful and await self._take_back(start, key):
                raise
        except Unavailable as exc:
            log.warning("turn.not_published", turn=start.turn, code=exc.code)
            self._after(self._turns.publish_late(start), start)
        self._news.tell(start.tenant, accepted(start))

    async def _take_back(self, start: StartTurn, key: Key | None) -> bool:
        """Remove a turn that was refused, with its claim; tell whether it is gone: somebody may run it already."""
        tenant = start.tenant
        async with _in_time():
            gone = await _again(lambda: self._live_turns.discard(tenant, start.turn))
            if gone and key is not None:
                await _again(lambda: self._claims.drop(tenant, key.kind, key.value, start.turn))
            if gone:
                await _again(lambda: self._message_ids.give_back(tenant, start.message, start.turn))
                await _again(lambda: self._keeping.give_back(start))
        return gone

    async def _free(self, tenant: str, key: Key, turn: str) -> None:
        async with _in_time():
            await _again(lambda: self._claims.drop(tenant, key.kind, key.value, turn, settled=True))

    async def _insert(self, tenant: str, document: LiveTurn) -> bool:
        """Insert a turn, and note it if that may have been done, or may yet be."""
        is_answered = False
        try:
            inserted = await guard("gw.after_insert", self._live_turns.insert(tenant, document))
            is_answered = True
            return inserted
        finally:
            if not is_answered:
                self._doubtful.append(document.id)

    async def _store(self, start: StartTurn, key: Key | None, files: Sequence[bytes]) -> StartTurn | str:
        """Claim and insert; return the start as it is stored, or the id of the turn that stands in its place."""
        tenant = start.tenant
        async with _in_time():
            await self._check_conversation(start)
            if key is not None:
                claim = await _again(
                    lambda: guard(
                        "gw.after_claim",
                        self._claims.claim(tenant, key.kind, key.value, start.turn, fingerprint=key.fingerprint),
                    )
                )
                await reach("gw.after_claim")
                check(claim, key)
                if not claim.won:
                    return claim.turn
                if claim.turn != start.turn:
                    # Taken over from a gateway that never stored it: should it thaw, its turn is this one.
                    start = replace(start, turn=claim.turn)
            start = await self._claim_message(start, key)
            if files:
                start = await _again(partial(self._keeping.keep, start, files))
            document = queued(start)
            inserted = await _again(lambda: self._insert(tenant, document))
            await reach("gw.after_insert")
            if inserted:
                return start
            # By an earlier try of this very insert, or by who had the claim before, or has it now.
            found = await _again(lambda: self._live_turns.get(tenant, start.turn))
            is_mine = isinstance(found, LiveTurn) and found.state == document.state
            return start if is_mine else start.turn

    async def _check_conversation(self, start: StartTurn) -> None:
        """Refuse a turn in a conversation that is neither there nor to be made.

        Raises:
            NotFound: It is one (`conversation.unknown`).

        """
        tenant, conversation = start.tenant, start.conversation
        if conversation is None or start.fresh or start.creates:
            return
        if await _again(lambda: self._conversations.get(tenant, conversation)) is None:
            raise NotFound(ErrorCode.CONVERSATION_UNKNOWN, "The conversation does not exist")

    async def _claim_message(self, start: StartTurn, key: Key | None) -> StartTurn:
        """Claim the id of a turn's message; a claim that came to nothing gives the turn its id.

        Raises:
            Conflict: The id was used before (`message.exists`); the key is free again.

        """
        tenant, turn = start.tenant, start.turn
        try:
            owner = await _again(lambda: self._message_ids.claim(tenant, start.message, turn))
        except Conflict:
            if key is not None:
                await _again(lambda: self._claims.drop(tenant, key.kind, key.value, turn))
            raise
        if owner == turn:
            return start
        if key is None:
            return replace(start, turn=owner)
        # The key has an id of its own already, which whoever comes next is told.
        await _again(lambda: self._message_ids.give_back(tenant, start.message, owner))
        return await self._claim_message(start, key)

    async def _find(self, tenant: str, key: Key | None, turn: str, give_up_at_s: float) -> LiveTurn | TurnRecord | None:
        """Return the turn that stands in the place of a request's own; `None` when it is time to try again.

        Raises:
            NotFound: It was erased.
            Conflict: It is not stored yet, and was waited for long enough.

        """
        found = await self._wait_for(tenant, turn)
        if found is not None and (key is None or not was_refused(found)):
            return found
        if found is not None and key is not None:
            # Nothing was run for it: the key is the client's to try again with.
            await self._free(tenant, key, found.id)
        elif await self._was_erased(tenant, turn):
            raise NotFound(ErrorCode.CONVERSATION_UNKNOWN, "What this request came to was deleted")
        elif self._clock.monotonic() >= give_up_at_s:
            message = "The request that this Idempotency-Key came with first is not accepted yet"
            raise Conflict(ErrorCode.IDEMPOTENCY_PENDING, message, retry_after_s=RETRY_S)
        return None

    async def _wait_for(self, tenant: str, turn: str) -> LiveTurn | TurnRecord | None:
        """Return the turn that a key stands for, once it is stored; `None` when it is time to ask for the key again."""
        ask_again_at_s = self._clock.monotonic() + ASK_AGAIN_S
        pause_s = PENDING_FIRST_S
        while True:
            found = await self._live_turns.get(tenant, turn)
            if found is not None or self._clock.monotonic() >= ask_again_at_s:
                return found
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PENDING_MOST_S)

    async def _was_erased(self, tenant: str, turn: str) -> bool:
        """Tell whether a turn was stored and has been erased within the hour."""
        return await self._live_turns.knows(tenant, turn) and await self._live_turns.get(tenant, turn) is None

    async def _accept(self, start: StartTurn, key: Key | None, files: Sequence[bytes]) -> None:
        """Accept a turn whose client is gone: nobody can tell any more how far it came."""
        is_counted = False
        try:
            stored = await self._store(start, key, files)
            if isinstance(stored, StartTurn):
                await self._publish(stored, key)
                is_counted = stored.turn == start.turn
        finally:
            if not is_counted:
                self._relay.disown(start.turn)

    def _after(self, work: Coroutine[None, None, None], start: StartTurn) -> None:
        """Do what nobody waits for; the sweep makes up for what fails."""

        async def finish() -> None:
            try:
                await work
            except KitemeshError as exc:
                log.warning("turn.not_accepted", turn=start.turn, code=exc.code)

        task = asyncio.create_task(finish(), name="accept")
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(STORE_S):
            yield
    except TimeoutError as exc:
        raise Unavailable(ErrorCode.STORE_DOWN, "The store does not answer", retry_after_s=RETRY_S) from exc


async def _again(call: Callable[[], Awaitable[T]]) -> T:
    """Ask the store until it answers; only for what may be done twice. Whoever calls it sets the time."""
    while True:
        try:
            return await call()
        except Unavailable as exc:
            log.info("store.asked_again", code=exc.code)
        await asyncio.sleep(AGAIN_S)
