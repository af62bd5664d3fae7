"""Who was cancelled: a minute's memory, so that work which arrives after its cancel is refused as well.

A cancel is a broadcast and is repeated; the listener hears of each turn once, and again when it says more than that the
client is gone. What ended by itself is stopped, each time, and not remembered.
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
        listener: Called in the read loop with each turn's first cancel, and with the first that is no disconnect.

    """

    def __init__(self, clock: Clock, listener: Callable[[CancelTurn], None] | None = None) -> None:
        self._clock: Final = clock
        self._listener: Final = listener
        self._heard: dict[str, tuple[float, CancelTurn]] = {}

    async def listen(self, bus: Bus) -> None:
        """Follow the broadcast."""
        await bus.subscribe(subjects.CANCEL_ALL, self._on_cancel)

    def reason(self, turn: str, *, durable: bool = False) -> str | None:
        """Return why a turn was cancelled, or `None` when it was not.

        Args:
            turn: Its id.
            durable: The work is not of mode `classic`, and goes on when the client is gone.

        """
        heard = self._heard.get(turn)
        if heard is None or (durable and heard[1].disconnect):
            return None
        return heard[1].reason

    def _on_cancel(self, _: str, payload: bytes) -> None:
        try:
            cancel = codec.decode(codec.CANCEL, payload)
        except ContractViolation as exc:
            log.warning("cancel.refused", reason=exc.message)
            return
        if cancel.ended:
            if self._listener is not None:
                self._listener(cancel)
            return
        now = self._clock.monotonic()
        known = self._heard.pop(cancel.turn, None)
        stronger = known is None or (known[1].disconnect and not cancel.disconnect)
        self._heard[cancel.turn] = (now, cancel if known is None or stronger else known[1])
        while self._heard:
            turn, (at, _heard) = next(iter(self._heard.items()))
            if now - at < MEMORY_S:
                break
            del self._heard[turn]
        if stronger and self._listener is not None:
            self._listener(cancel)
