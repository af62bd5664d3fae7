"""Durable turns of which it is to be noted that they run, once they have run for a while.

People who look at a turn want to know; nothing else depends on it, so a turn that is over by then costs no write, and a
note that is lost with its process is made up for by the sweep.
"""

import asyncio
from typing import Final

import structlog

from kitemesh_contracts.errors import KitemeshError
from kitemesh_runtime.live_turns import LiveTurns

AFTER_S: Final = 0.3

log: Final = structlog.get_logger()


class Noting:
    """Notes that turns run."""

    def __init__(self, live_turns: LiveTurns, *, after_s: float = AFTER_S) -> None:
        self._live_turns: Final = live_turns
        self._after_s: Final = after_s
        self._due: Final[dict[str, asyncio.TimerHandle]] = {}
        self._writes: Final[set[asyncio.Task[None]]] = set()

    def later(self, tenant: str, turn: str, ordinal: int) -> None:
        """Note in a moment that a turn runs, unless it is heard of before."""
        if turn not in self._due:
            loop = asyncio.get_running_loop()
            self._due[turn] = loop.call_later(self._after_s, self._begin, tenant, turn, ordinal)

    def drop(self, turn: str) -> None:
        """Take note that a turn was heard of: what is saved of it says how it stands."""
        due = self._due.pop(turn, None)
        if due is not None:
            due.cancel()

    def _begin(self, tenant: str, turn: str, ordinal: int) -> None:
        del self._due[turn]
        write = asyncio.create_task(self._write(tenant, turn, ordinal), name="note")
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def _write(self, tenant: str, turn: str, ordinal: int) -> None:
        try:
            await self._live_turns.begin(tenant, turn, ordinal=ordinal)
        except KitemeshError as exc:
            log.warning("turn.not_noted", turn=turn, code=exc.code)
