"""Finds out which counted turns are over whose closing events a lost connection may have swallowed.

A turn's end is stored before it is told, so that one look after the connection is back suffices. What counts them, and
what being counted means, it does not know.
"""

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol

import structlog

from kitemesh_contracts.deltas import TurnEnded
from kitemesh_contracts.errors import KitemeshError
from kitemesh_gateway.finding import Finding
from kitemesh_runtime.bus import Bus

LOOKS_AT_ONCE: Final = 16
AGAIN_S: Final = 1.0

log: Final = structlog.get_logger()


class Counted(Protocol):
    """Who counts turns."""

    def open_turns(self) -> Iterable[tuple[str, str]]:
        """Return the tenant and the id of each turn that is not over, as far as is known."""

    def ended(self, turn: str, used_tokens: int | None = None) -> None:
        """Take it that a turn is over, or held; again it is nothing."""


class Reckoning:
    """Looks for the ends of counted turns.

    Args:
        counted: Those that are open.
        finding: Knows which have ended.
        bus: Tells when its connection was gone.

    """

    def __init__(self, counted: Counted, finding: Finding, bus: Bus) -> None:
        self._counted: Final = counted
        self._finding: Final = finding
        self._doubted: Final = asyncio.Event()
        bus.on_reconnect(self._doubted.set)

    async def run(self) -> None:
        """Look whenever there is doubt, for ever."""
        while True:
            await self._doubted.wait()
            self._doubted.clear()
            doubtful = list(self._counted.open_turns())
            while doubtful:
                looked, doubtful = doubtful[:LOOKS_AT_ONCE], doubtful[LOOKS_AT_ONCE:]
                found = await asyncio.gather(*(self._look(tenant, turn) for tenant, turn in looked))
                if not all(found):
                    doubtful += [each for each, is_found in zip(looked, found, strict=True) if not is_found]
                    await asyncio.sleep(AGAIN_S)

    async def _look(self, tenant: str, turn: str) -> bool:
        """Look for one; tell whether the store answered."""
        try:
            found = await self._finding.find(tenant, turn, after_step=0)
        except KitemeshError as exc:
            log.info("turn.not_reckoned", turn=turn, code=exc.code)
            return False
        if found is not None and found.ended is not None:
            self._counted.ended(turn, used_tokens(found.ended))
        return True


def used_tokens(ended: TurnEnded) -> int:
    """Return what a turn has used, in and out."""
    return ended.usage.input_tokens + ended.usage.output_tokens
