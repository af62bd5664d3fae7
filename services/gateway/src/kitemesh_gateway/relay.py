"""From two wildcard subscriptions to the clients of all open turns, synchronously, by turn id.

It knows what a turn's events mean for its watch, and nothing of HTTP or of dialects. One timer serves all turns.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, nullcontext
from typing import Final, Protocol

import structlog

from kitemesh_contracts import subjects
from kitemesh_contracts.codec import RELAYED, decode
from kitemesh_contracts.commands import Parcel
from kitemesh_contracts.deltas import Frame, TurnEnded
from kitemesh_contracts.errors import MEANINGS, ContractViolation, ErrorCode, ErrorInfo, KitemeshError
from kitemesh_gateway.attempts import ANSWERED
from kitemesh_gateway.backlog import Backlog
from kitemesh_gateway.catching_up import CRASHED, CatchingUp, Ends
from kitemesh_gateway.fetching import Fetching
from kitemesh_gateway.finding import Finding
from kitemesh_gateway.following import Followed
from kitemesh_gateway.interest import Interest
from kitemesh_gateway.positions import Position
from kitemesh_gateway.reckoning import used_tokens
from kitemesh_gateway.traces import Traces
from kitemesh_gateway.watches import LOST, TAKEN_BACK, TIMED_OUT, Next, Sink, Watch, Watched, gap
from kitemesh_gateway.withdrawals import Withdrawals
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.conversations import Conversations
from kitemesh_runtime.holds import Holds
from kitemesh_runtime.live_turns import LiveTurns
from kitemesh_runtime.metrics import FRAMES_LOST, FRAMES_RELAYED, HOP
from kitemesh_runtime.parcels import Parcels

TICK_S: Final = 0.5
LOOKS_AT_ONCE: Final = 16

_RELAY: Final = HOP.labels("relay")
_FAILED: Final = ErrorInfo(code=ErrorCode.INTERNAL, message="The turn failed for an internal reason")

log: Final = structlog.get_logger()


class Accounts(Protocol):
    """Who wants to know of turns that began here that they are over, whoever follows them."""

    def __contains__(self, turn: str) -> bool:
        """Tell whether it does."""

    def ended(self, turn: str, used_tokens: int | None = None) -> None:
        """Take it that a turn is over, or held; `None` when what it used is not known."""


class Relay:
    """The open turns of this gateway.

    Args:
        bus: Carries frames and closing events.
        parcels: Fetch what was too large to travel.
        turns: Where turns are stored that have ended, or outlive their messages.
        holds: What they wait for.
        clock: Time.
        conversations: What some wait in.

    Attributes:
        withdrawals: The turns that are to stop.

    """

    def __init__(
        self,
        bus: Bus,
        parcels: Parcels,
        turns: LiveTurns,
        holds: Holds,
        clock: Clock,
        *,
        conversations: Conversations,
    ) -> None:
        self._bus: Final = bus
        self._traces: Final = Traces(bus, conversations)
        self._fetching: Final = Fetching(parcels, clock, self._is_open, self._take, self._give_up)
        self._finding: Final = Finding(turns, holds)
        self._interest: Final = Interest(bus, self._on_message, self._on_captured)
        self._catching_up: Final = CatchingUp(bus, self._finding, Ends(self._settle, self._give_up))
        self._clock: Final = clock
        self._open: dict[str, tuple[Watch, ...]] = {}
        self._readers = 0
        self._replica: str | None = None
        self.withdrawals: Final = Withdrawals(bus, clock)
        self._to_look_up: asyncio.Queue[Watch] = asyncio.Queue()
        self._relayed = 0
        self._accounts: Accounts | None = None

    def __len__(self) -> int:
        return len(self._open)

    @property
    def readers(self) -> int:
        """How many watches are open: a turn counts as often as it is followed."""
        return self._readers

    def hears(self, gateway: str) -> bool:
        """Tell whether what is addressed to a gateway comes here, however that is asked for."""
        return gateway == self._replica

    def tell(self, accounts: Accounts) -> None:
        """Tell of every closing event that is addressed to this gateway."""
        self._accounts = accounts

    def disown(self, turn: str) -> None:
        """Have a turn counted as over whose client is gone, and of which nothing came under that id."""
        if self._accounts is not None:
            self._accounts.ended(turn, 0)

    async def listen(self, replica: str) -> None:
        """Subscribe; returns when the server has taken note."""
        await self._bus.subscribe(subjects.live_of(replica), self._on_message)
        await self._bus.subscribe(subjects.out_of(replica), self._on_captured)
        self._bus.on_reconnect(self._on_reconnect)
        await self._bus.barrier()
        self._replica = replica

    def open(self, turn: Watched, sink: Sink, *, position: Position | None = None) -> Watch:
        """Watch a turn; called before its start is published."""
        watch = Watch(turn, sink, self._clock.monotonic(), position)
        self._open[turn.turn] = (*self._open.get(turn.turn, ()), watch)
        self._readers += 1
        return watch

    @asynccontextmanager
    async def attached(
        self, turn: Watched, sink: Sink, *, position: Position | None = None, is_heard: bool = False
    ) -> AsyncIterator[Watch]:
        """Watch a stored turn, whichever gateway accepted it: from its beginning, or from behind a position.

        What it has said so far is shown, or on its way, once inside, and nothing that follows is missed.

        Args:
            turn: The turn.
            sink: Where its answer goes.
            position: What the client has.
            is_heard: Whatever it says from now on comes to this gateway anyway.

        Raises:
            KitemeshError: The answer does not go on where the client is, or that is not kept any more (`stream.gap`).
            Unavailable: The bus does not answer.

        """
        if position is not None:
            sink.go_on(position)
        watch = self.open(turn, sink, position=position)
        if isinstance(watch.shown, Followed):
            watch.backlog = Backlog()
        try:
            async with nullcontext() if is_heard else self._interest.in_turn(turn.turn):
                if watch.backlog is None:
                    self.look(watch)
                else:
                    await self._catching_up.replay(watch)
                yield watch
        finally:
            self.close(watch)

    def look(self, watch: Watch) -> None:
        """Look for the turn in the store now: what it said may have been said before anybody listened."""
        watch.looking = True
        self._to_look_up.put_nowait(watch)

    def find(self, tenant: str, turn: str) -> Watch | None:
        """Return the open watch of a tenant's turn that lives for its client here, else any, if there is one."""
        watches = [watch for watch in self._open.get(turn, ()) if watch.turn.tenant == tenant]
        return next((watch for watch in watches if not watch.turn.durable), watches[0] if watches else None)

    def close(self, watch: Watch) -> bool:
        """Stop watching; tell whether it was open. A closed watch may be closed again."""
        turn = watch.turn.turn
        watches = self._open.get(turn, ())
        if watch not in watches:
            return False
        self._readers -= 1
        left = tuple(each for each in watches if each is not watch)
        if left:
            self._open[turn] = left
        else:
            del self._open[turn]
        self._catching_up.stop(watch)
        return True

    def withdraw(self, watch: Watch, reason: str) -> None:
        """Stop watching a turn whose answer nobody wants, and stop the turn if it lives for its client."""
        if self.close(watch) and not watch.turn.durable:
            self.withdrawals.add(watch.turn, reason, disconnect=True)

    def withdraw_all(self, error: ErrorInfo) -> None:
        """End every open turn from here with an explicit error; a durable one goes on, and its stream elsewhere."""
        for watch in self.watches():
            if watch.turn.durable and watch.turn.stream:
                self.send_away(watch, error, retry_ms=round((error.retry_after_s or 0) * 1000))
            else:
                self.withdraw(watch, error.message)
                watch.sink.fail(watch.place_after(), error, has_acted=watch.has_acted())

    def send_away(self, watch: Watch, error: ErrorInfo, *, retry_ms: int) -> None:
        """Stop watching a durable turn whose client is to come back elsewhere."""
        if self.close(watch):
            watch.sink.send_away(watch.place_after(), error, retry_ms=retry_ms)

    def cancel(self, watch: Watch, reason: str) -> None:
        """Have a turn stopped, whatever its client wants; its closing event tells the client."""
        self.withdrawals.add(watch.turn, reason, disconnect=False)

    def watches(self) -> Iterable[Watch]:
        """Return the open watches."""
        return tuple(watch for watches in self._open.values() for watch in watches)

    async def run(self) -> None:
        """Do what time demands, for ever."""
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()

    def tick(self) -> None:
        """Do what is due now."""
        now_s = self._clock.monotonic()
        self.withdrawals.tick(now_s)
        if self._relayed:
            # Counted here rather than frame by frame: the counter's lock costs more than the frame.
            FRAMES_RELAYED.inc(self._relayed)
            self._relayed = 0
        for watch in self.watches():
            match watch.due(now_s):
                case None:
                    pass
                case "settle":
                    self._settle(watch)
                case "look":
                    self.look(watch)
                case "timed_out":
                    self._give_up(watch, TIMED_OUT)
                case "lost":
                    self._give_up(watch, LOST)

    async def look_up(self) -> None:
        """Look for stored turns whose closing event may have been missed, for ever."""
        while True:
            await self.look_up_next()

    async def look_up_next(self) -> None:
        """Wait until a turn is to be looked for, and look for it and those behind it."""
        batch = [await self._to_look_up.get()]
        while len(batch) < LOOKS_AT_ONCE and not self._to_look_up.empty():
            batch.append(self._to_look_up.get_nowait())
        await asyncio.gather(*(self._look(watch) for watch in batch))

    async def _look(self, watch: Watch) -> None:
        try:
            await self._look_once(watch)
        except KitemeshError as exc:
            log.warning("turn.not_looked_up", turn=watch.turn.turn, code=exc.code)
        finally:
            watch.looking = False

    async def _look_once(self, watch: Watch) -> None:
        turn = watch.turn
        found = await self._finding.find(turn.tenant, turn.turn, after_step=watch.after_step, decided=turn.decided)
        if found is None:
            if watch.is_gone() and self._is_open(watch):
                self._give_up(watch, LOST if watch.was_begun() else TAKEN_BACK)
            elif watch.may_be_nowhere() and watch.on_traced(found=not await self._traces.has_none(turn)):
                self._give_up(watch, LOST)
        elif found.ended is None:
            watch.on_found_live()
        elif watch.ended is None and self._is_open(watch):
            log.info("turn.found", turn=turn.turn)
            watch.on_found(found.ended)
            if watch.backlog is None:
                self._settle(watch)

    def _is_open(self, watch: Watch) -> bool:
        return watch in self._open.get(watch.turn.turn, ())

    def _on_reconnect(self) -> None:
        for watch in self.watches():
            watch.on_reconnect()

    def _on_message(self, subject: str, payload: bytes) -> None:
        try:
            _, turn, step, attempt = subjects.parse_live(subject)
            watches = self._open.get(turn, ())
            if not (watches or turn in self.withdrawals or self._is_counted(turn)):
                return
            message = decode(RELAYED, payload)
        except ContractViolation as exc:
            log.warning("frame.refused", reason=exc.message)
            return
        if not isinstance(message, Frame):
            if not watches:
                self.withdrawals.settle(message, turn)
            self._settle_account(turn, message, payload)
        for watch in watches:
            if isinstance(message, Parcel):
                self._fetching.fetch(watch, step, attempt, payload)
            else:
                self._take(watch, step, attempt, message)

    def _settle_account(self, turn: str, ended: TurnEnded | Parcel, payload: bytes) -> None:
        accounts = self._accounts
        if accounts is None or turn not in accounts:
            return
        if isinstance(ended, TurnEnded):
            accounts.ended(turn, used_tokens(ended))
        else:
            # What is too large to travel is what used the most.
            self._fetching.read(payload, lambda read: accounts.ended(turn, None if read is None else used_tokens(read)))

    def _is_counted(self, turn: str) -> bool:
        return self._accounts is not None and turn in self._accounts

    def _on_captured(self, subject: str, payload: bytes) -> None:
        """Take a frame of a durable turn: those are captured, and nothing else is."""
        try:
            _, turn, step, attempt = subjects.parse_out(subject)
            watches = self._open.get(turn)
            if watches is None:
                return
            message = decode(RELAYED, payload)
        except ContractViolation as exc:
            log.warning("frame.refused", reason=exc.message)
            return
        if isinstance(message, Frame):
            for watch in watches:
                self._take(watch, step, attempt, message)

    def _take(self, watch: Watch, step: int, attempt: int, message: Frame | TurnEnded) -> None:
        try:
            if isinstance(message, Frame):
                self._relayed += 1
                following: Next | None = watch.on_frame(step, attempt, message)
            else:
                following = watch.on_ended(message, self._clock.monotonic())
            if following == "settle":
                self._settle(watch)
            elif following == "catch_up":
                log.info("stream.repairing", turn=watch.turn.turn, step=step, attempt=attempt)
                self._catching_up.repair(watch)
        except Exception:
            # The read loop serves everybody: one broken turn must not end it.
            log.exception("turn.crashed", turn=watch.turn.turn)
            self._give_up(watch, CRASHED)

    def _settle(self, watch: Watch) -> None:
        """End a watch with its turn's closing event."""
        ended = watch.ended
        assert ended is not None  # noqa: S101  only ended turns are settled
        if not self.close(watch):
            return
        self.withdrawals.settle(ended, watch.turn.turn)
        if self._accounts is not None:
            # Found in the store, or too large to travel: then nothing else has told.
            self._accounts.ended(watch.turn.turn, used_tokens(ended))
        if ended.outcome not in ANSWERED:
            error = ended.error
            if error is None or MEANINGS[error.code].status == MEANINGS[ErrorCode.INTERNAL].status:
                # Internal texts stay inside.
                error = _FAILED
            watch.sink.fail(watch.place_after(), error, has_acted=watch.has_acted())
            return
        if watch.shown.broken:
            FRAMES_LOST.inc()
        if not watch.finish(ended):
            log.warning("turn.diverged", turn=watch.turn.turn, attempt=ended.attempt)
            error = gap(watch.turn.turn) if isinstance(watch.shown, Followed) else LOST
            watch.sink.fail(watch.place_after(), error, has_acted=watch.has_acted())
        elif watch.turn.stream and watch.ended_s:
            _RELAY.observe(self._clock.monotonic() - watch.ended_s)

    def _give_up(self, watch: Watch, error: ErrorInfo) -> None:
        if not self._is_open(watch):
            return
        log.warning("turn.given_up", turn=watch.turn.turn, code=error.code)
        self.withdraw(watch, error.message)
        watch.sink.fail(watch.place_after(), error, has_acted=error is not TAKEN_BACK and watch.has_acted())
