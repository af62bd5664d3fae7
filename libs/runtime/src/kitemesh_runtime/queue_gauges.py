"""The gauges of queues and dead letters, asked of the leaders every few seconds by every replica that has them.

What could not be asked for a while is shown as unknown, which is neither much nor nothing. It does not know how a
leader is asked.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NoReturn

import structlog

from kitemesh_contracts.errors import KitemeshError
from kitemesh_contracts.topology import CONTROL, DEAD, EVENT, MODEL, TIMER, TOOL, TURN
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.metrics import (
    DEAD_LETTERS_WAITING,
    QUEUE_DEPTH,
    QUEUE_IN_FLIGHT,
    QUEUE_OLDEST,
    QUEUE_REDELIVERED,
)
from kitemesh_runtime.queue_levels_nats import Level, dead_letters, levels, oldest_s

EVERY_S: Final = 5.0
SILENCE_S: Final = 15.0
"""Unanswered for this long, a queue's state is not known any more."""

AGED: Final = (TURN, CONTROL, EVENT, MODEL, TOOL)
"""Streams that keep nothing but what is to be done; of others the oldest says nothing."""
QUEUES: Final = (*AGED, TIMER, DEAD)

log: Final = structlog.get_logger()


_Ask = Callable[[], Awaitable[None]]


class _Look:
    """One question that is asked again and again.

    Args:
        what: Named in the log.
        ask: Asks, and shows the answer.
        forget: Shows that nothing is known.
        began_s: When it was begun, monotonic.

    """

    def __init__(self, what: str, ask: _Ask, forget: Callable[[], None], began_s: float) -> None:
        self._what: Final = what
        self._ask: Final = ask
        self._forget: Final = forget
        self._answered_s = began_s
        self._answers = True

    async def look(self, clock: Clock) -> None:
        """Ask once; what is not answered is logged when it begins and when it ends."""
        try:
            await self._ask()
        except KitemeshError as exc:
            if self._answers:
                log.warning("queue.not_seen", queue=self._what, code=exc.code, reason=exc.message)
            self._answers = False
            if clock.monotonic() - self._answered_s >= SILENCE_S:
                self._forget()
            return
        if not self._answers:
            log.info("queue.seen", queue=self._what)
        self._answers, self._answered_s = True, clock.monotonic()


class QueueGauges:
    """Shows what the queues hold."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus: Final = bus
        self._clock: Final = clock
        self._pools: Final[dict[str, set[str]]] = {stream: set() for stream in QUEUES}
        now_s = clock.monotonic()
        self._looks: Final = (
            *(_Look(stream, self._levels(stream), self._lose(stream), now_s) for stream in QUEUES),
            *(_Look(f"{stream} oldest", self._oldest(stream), _unknown(stream), now_s) for stream in AGED),
            _Look("dead letters", self._dead_letters, lambda: DEAD_LETTERS_WAITING.set(math.nan), now_s),
        )

    async def look(self) -> None:
        """Ask for everything once; no answer is no failure."""
        await asyncio.gather(*(each.look(self._clock) for each in self._looks))

    async def run(self) -> NoReturn:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    def _levels(self, stream: str) -> _Ask:
        async def ask() -> None:
            self._show(stream, await levels(self._bus, stream))

        return ask

    def _oldest(self, stream: str) -> _Ask:
        async def ask() -> None:
            QUEUE_OLDEST.labels(stream).set(await oldest_s(self._bus, stream))

        return ask

    async def _dead_letters(self) -> None:
        DEAD_LETTERS_WAITING.set(await dead_letters(self._bus))

    def _show(self, stream: str, found: Mapping[str, Level]) -> None:
        for pool in self._pools[stream] - found.keys():
            for gauge in (QUEUE_DEPTH, QUEUE_IN_FLIGHT, QUEUE_REDELIVERED):
                gauge.remove(stream, pool)
        self._pools[stream] = set(found)
        for pool, level in found.items():
            _set(stream, pool, *level)

    def _lose(self, stream: str) -> Callable[[], None]:
        def lose() -> None:
            for pool in self._pools[stream]:
                _set(stream, pool, math.nan, math.nan, math.nan)

        return lose


def _set(stream: str, pool: str, depth: float, in_flight: float, redelivered: float) -> None:
    QUEUE_DEPTH.labels(stream, pool).set(depth)
    QUEUE_IN_FLIGHT.labels(stream, pool).set(in_flight)
    QUEUE_REDELIVERED.labels(stream, pool).set(redelivered)


def _unknown(stream: str) -> Callable[[], None]:
    return lambda: QUEUE_OLDEST.labels(stream).set(math.nan)
