"""Fetching what was too large to travel: a closing event whose place on the bus a parcel has taken."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from kitemesh_contracts.codec import RELAYED
from kitemesh_contracts.deltas import Frame, TurnEnded
from kitemesh_contracts.errors import ErrorInfo, KitemeshError, Unavailable
from kitemesh_gateway.watches import LOST, Watch
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.parcels import Parcels

FETCH_S: Final = 15.0
"""How long it is asked for while the store does not answer."""
FETCH_AGAIN_S: Final = 1.0

log: Final = structlog.get_logger()


class Fetching:
    """Fetches closing events.

    Args:
        parcels: Know where they are.
        clock: Time.
        is_open: Tells whether anybody still waits.
        deliver: Takes what was fetched.
        fail: Ends a watch whose closing event is gone; what is stored as well is found there.

    """

    def __init__(
        self,
        parcels: Parcels,
        clock: Clock,
        is_open: Callable[[Watch], bool],
        deliver: Callable[[Watch, int, int, Frame | TurnEnded], None],
        fail: Callable[[Watch, ErrorInfo], None],
    ) -> None:
        self._parcels: Final = parcels
        self._clock: Final = clock
        self._is_open: Final = is_open
        self._deliver: Final = deliver
        self._fail: Final = fail
        self._tasks: set[asyncio.Task[None]] = set()

    def fetch(self, watch: Watch, step: int, attempt: int, payload: bytes) -> None:
        """Fetch what a parcel stands for, and deliver it."""
        task = asyncio.create_task(self._fetch(watch, step, attempt, payload), name="parcel")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def read(self, payload: bytes, tell: Callable[[TurnEnded | None], None]) -> None:
        """Tell what a parcel stands for, whoever watches; `None` where that cannot be read now."""
        task = asyncio.create_task(self._read(payload, tell), name="parcel-read")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(self, payload: bytes, tell: Callable[[TurnEnded | None], None]) -> None:
        read: TurnEnded | None = None
        try:
            message: Frame | TurnEnded = await self._parcels.unpack(RELAYED, payload)
            read = message if isinstance(message, TurnEnded) else None
        except KitemeshError as exc:
            log.warning("parcel.not_read", code=exc.code)
        finally:
            tell(read)

    async def _fetch(self, watch: Watch, step: int, attempt: int, payload: bytes) -> None:
        give_up_at_s = self._clock.monotonic() + FETCH_S
        while self._is_open(watch):
            try:
                message: Frame | TurnEnded = await self._parcels.unpack(RELAYED, payload)
            except Unavailable as exc:
                log.warning("parcel.delayed", turn=watch.turn.turn, code=exc.code)
                if self._clock.monotonic() >= give_up_at_s:
                    self._give_up(watch)
                    return
                await asyncio.sleep(FETCH_AGAIN_S)
            except KitemeshError as exc:
                log.warning("parcel.lost", turn=watch.turn.turn, code=exc.code)
                self._give_up(watch)
                return
            else:
                if self._is_open(watch):
                    self._deliver(watch, step, attempt, message)
                return

    def _give_up(self, watch: Watch) -> None:
        # A durable turn's end is stored before it is told, and is looked for as long as nothing is heard.
        if not watch.turn.durable:
            self._fail(watch, LOST)
