"""From one wildcard subscription to the clients of all open turns, synchronously, by turn id.

It knows what a turn's events mean for its watch, and nothing of HTTP or of dialects. One timer serves all turns.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog

from kitemesh_contracts import subjects
from kitemesh_contracts.codec import RELAYED, decode
from kitemesh_contracts.commands import Parcel, StartTurn
from kitemesh_contracts.deltas import Frame, TurnEnded
from kitemesh_contracts.errors import MEANINGS, ContractViolation, ErrorCode, ErrorInfo, KitemeshError, Unavailable
from kitemesh_gateway.watches import LOST, TIMED_OUT, Sink, Watch, ended_from
from kitemesh_gateway.withdrawals import Withdrawals
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.metrics import FRAMES_LOST, FRAMES_RELAYED
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.stores import Turns

TICK_S: Final = 0.5
LOOKS_AT_ONCE: Final = 16
FETCH_S: Final = 15.0
"""How long an answer too large to travel is asked for while the store does not answer."""
FETCH_AGAIN_S: Final = 1.0

_FAILED: Final = ErrorInfo(code=ErrorCode.INTERNAL, message="The turn failed for an internal reason")
_CRASHED: Final = ErrorInfo(code=ErrorCode.INTERNAL, message="The answer could not be relayed")

log: Final = structlog.get_logger()


class Relay:
    """The open turns of this gateway.

    Args:
        bus: Carries frames and closing events.
        parcels: Fetch what was too large to travel.
        turns: Where ended turns are stored.
        clock: Time.

    """

    def __init__(self, bus: Bus, parcels: Parcels, turns: Turns, clock: Clock) -> None:
        self._bus: Final = bus
        self._parcels: Final = parcels
        self._turns: Final = turns
        self._clock: Final = clock
        self._open: dict[str, Watch] = {}
        self._withdrawals: Final = Withdrawals(bus, clock)
        self._to_look_up: asyncio.Queue[Watch] = asyncio.Queue()
        self._fetches: set[asyncio.Task[None]] = set()
        self._relayed = 0

    def __len__(self) -> int:
        return len(self._open)

    async def listen(self, replica: str) -> None:
        """Subscribe; returns when the server has taken note."""
        await self._bus.subscribe(subjects.live_of(replica), self._on_message)
        self._bus.on_reconnect(self._on_reconnect)
        await self._bus.barrier()

    def open(self, start: StartTurn, sink: Sink) -> Watch:
        """Watch a turn; called before its start is published."""
        watch = Watch(start, sink, self._clock.monotonic())
        self._open[start.turn] = watch
        return watch

    def close(self, watch: Watch) -> None:
        """Stop watching; a closed turn may be closed again."""
        self._open.pop(watch.start.turn, None)

    def withdraw(self, watch: Watch, reason: str) -> None:
        """Stop watching a turn whose answer nobody wants, and stop the turn."""
        if self._open.pop(watch.start.turn, None) is not None:
            self._withdrawals.add(watch.start, reason)

    def withdraw_all(self, error: ErrorInfo) -> None:
        """End every open turn from here with an explicit error."""
        for watch in list(self._open.values()):
            self.withdraw(watch, error.message)
            watch.sink.fail(watch.place_after(), error)

    def watches(self) -> Iterable[Watch]:
        """Return the open turns."""
        return tuple(self._open.values())

    async def run(self) -> None:
        """Do what time demands, for ever."""
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()

    def tick(self) -> None:
        """Do what is due now."""
        now_s = self._clock.monotonic()
        self._withdrawals.tick(now_s)
        if self._relayed:
            # Counted here rather than frame by frame: the counter's lock costs more than the frame.
            FRAMES_RELAYED.inc(self._relayed)
            self._relayed = 0
        for watch in list(self._open.values()):
            match watch.due(now_s):
                case None:
                    pass
                case "settle":
                    self._settle(watch)
                case "look":
                    watch.looking = True
                    self._to_look_up.put_nowait(watch)
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
        start = watch.start
        try:
            record = await self._turns.get(start.tenant, start.turn)
        except KitemeshError as exc:
            log.warning("turn.not_looked_up", turn=start.turn, code=exc.code)
        else:
            if record is not None and watch.ended is None and start.turn in self._open:
                log.info("turn.found", turn=start.turn)
                watch.ended = ended_from(record)
                self._settle(watch)
        finally:
            watch.looking = False

    def _on_reconnect(self) -> None:
        for watch in self._open.values():
            watch.on_reconnect()

    def _on_message(self, subject: str, payload: bytes) -> None:
        try:
            _, turn, step, attempt = subjects.parse_live(subject)
            watch = self._open.get(turn)
            if watch is None:
                if turn in self._withdrawals and not isinstance(decode(RELAYED, payload), Frame):
                    self._withdrawals.settle(turn)
                return
            message = decode(RELAYED, payload)
        except ContractViolation as exc:
            log.warning("frame.refused", reason=exc.message)
            return
        if isinstance(message, Parcel):
            self._fetch(watch, step, attempt, payload)
        else:
            self._take(watch, step, attempt, message)

    def _take(self, watch: Watch, step: int, attempt: int, message: Frame | TurnEnded) -> None:
        try:
            if isinstance(message, Frame):
                self._relayed += 1
                settled = watch.on_frame(step, attempt, message)
            else:
                settled = watch.on_ended(message, self._clock.monotonic())
            if settled:
                self._settle(watch)
        except Exception:
            # The read loop serves everybody: one broken turn must not end it.
            log.exception("turn.crashed", turn=watch.start.turn)
            self._give_up(watch, _CRASHED)

    def _fetch(self, watch: Watch, step: int, attempt: int, payload: bytes) -> None:
        async def fetch() -> None:
            give_up_at_s = self._clock.monotonic() + FETCH_S
            while watch.start.turn in self._open:
                try:
                    message: Frame | TurnEnded = await self._parcels.unpack(RELAYED, payload)
                except Unavailable as exc:
                    log.warning("parcel.delayed", turn=watch.start.turn, code=exc.code)
                    if self._clock.monotonic() >= give_up_at_s:
                        self._give_up(watch, LOST)
                    else:
                        await asyncio.sleep(FETCH_AGAIN_S)
                except KitemeshError as exc:
                    log.warning("parcel.lost", turn=watch.start.turn, code=exc.code)
                    self._give_up(watch, LOST)
                else:
                    if watch.start.turn in self._open:
                        self._take(watch, step, attempt, message)
                    return

        task = asyncio.create_task(fetch(), name="parcel")
        self._fetches.add(task)
        task.add_done_callback(self._fetches.discard)

    def _settle(self, watch: Watch) -> None:
        """End a turn with its closing event."""
        ended = watch.ended
        assert ended is not None  # noqa: S101  only ended turns are settled
        self.close(watch)
        if ended.outcome != "completed":
            error = ended.error
            if error is None or MEANINGS[error.code].status == MEANINGS[ErrorCode.INTERNAL].status:
                # Internal texts stay inside.
                error = _FAILED
            watch.sink.fail(watch.place_after(), error)
            return
        if watch.shown.broken:
            FRAMES_LOST.inc()
        rest = watch.shown.rest(ended)
        if rest is None:
            log.warning("turn.diverged", turn=watch.start.turn, attempt=ended.attempt)
            watch.sink.fail(watch.place_after(), LOST)
        else:
            watch.sink.end(ended, rest)

    def _give_up(self, watch: Watch, error: ErrorInfo) -> None:
        log.warning("turn.given_up", turn=watch.start.turn, code=error.code)
        self.withdraw(watch, error.message)
        watch.sink.fail(watch.place_after(), error)
