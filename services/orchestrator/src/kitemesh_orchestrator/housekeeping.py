"""What is done beside driving turns, with every sweep: their usage is counted, and changed retention brought to them.

Any number of replicas share it; each does a bounded part of what is to be done.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from kitemesh_contracts.errors import KitemeshError
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.metrics import USAGE_LAG
from kitemesh_runtime.retention import Retention
from kitemesh_runtime.usage import Usages

PARTS_MAX: Final = 50
"""Of one kind at once, so that the other kind is not kept waiting."""


class Housekeeping:
    """One replica's part."""

    def __init__(self, usage: Usages, retention: Retention, clock: Clock) -> None:
        self._usage: Final = usage
        self._clock: Final = clock
        self._retention: Final = retention
        # It grows by itself while nothing can be counted, also where nothing ever could since this process began.
        self._counted_s = self._now_s()
        USAGE_LAG.set_function(lambda: self._now_s() - self._counted_s)

    async def keep(self) -> None:
        """Do what is to be done.

        Raises:
            KitemeshError: The store does not answer, or refused; what is left is done the next time.

        """
        try:
            await _repeat(self._usage.roll_up)
            self._counted_s = await self._usage.as_of() or self._now_s()
        except KitemeshError:
            # What cannot be counted must not keep the rest from being tidied.
            await _repeat(self._retention.apply)
            raise
        await _repeat(self._retention.apply)

    def _now_s(self) -> float:
        return self._clock.now_ms() / 1000


async def _repeat(do: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(PARTS_MAX):
        if not await do():
            return
