"""Who was cancelled: a minute's memory, so that work which arrives after its cancel is refused as well.

A cancel is a broadcast and is repeated; the listener hears of each turn once.
"""

from collections.abc import Callable
from typing import Final

import structlog

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import CancelTurn
from kitemesh_contracts.errors import ContractViolation
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.clock import Clock

log: Final = structlog.get_logger()

MEMORY_S: Final = 60.0


class Cancels:
    """The cancels heard in the last minute, oldest first.

    Args:
        listener: Called in the read loop with each turn's first cancel.

    """

    def __init__(self, clock: Clock, listener: Callable[[CancelTurn], None] | None = None) -> None:
        self._clock: Final = clock
        self._listener: Final = listener
        self._heard: dict[str, tuple[float, str]] = {}

    async def listen(self, bus: Bus) -> None:
        """Follow the broadcast."""
        await bus.subscribe(subjects.CANCEL_ALL, self._on_cancel)

    def reason(self, turn: str) -> str | None:
        """Return why a turn was cancelled, or `None` when it was not."""
        heard = self._heard.get(turn)
        return heard[1] if heard else None

    def _on_cancel(self, _: str, payload: bytes) -> None:
        try:
            cancel = codec.decode(codec.CANCEL, payload)
        except ContractViolation as exc:
            log.warning("cancel.refused", reason=exc.message)
            return
        now = self._clock.monotonic()
        known = self._heard.pop(cancel.turn, None)
        self._heard[cancel.turn] = (now, cancel.reason)
        while self._heard:
            turn, (at, _reason) = next(iter(self._heard.items()))
            if now - at < MEMORY_S:
                break
            del self._heard[turn]
        if known is None and self._listener is not None:
            self._listener(cancel)
