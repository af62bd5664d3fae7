"""A deadline that moves with every sign of life, for the price of an assignment instead of a timer."""

import asyncio
from types import TracebackType
from typing import Final, Self


class MovingDeadline:
    """Limits what runs inside it, as `asyncio.timeout` does.

    Its timer is set again only when it fires, or when the deadline comes nearer.

    Args:
        end: Loop time that no move goes beyond.

    """

    def __init__(self, *, end: float) -> None:
        self._loop: Final = asyncio.get_running_loop()
        self._end: Final = end
        self._scope: Final = asyncio.timeout_at(None)
        self._due = end
        self._timer: asyncio.TimerHandle | None = None

    def allow(self, seconds: float) -> None:
        """Move the deadline to so many seconds from now."""
        self._due = min(self._loop.time() + seconds, self._end)
        if self._timer is not None and self._due < self._timer.when():
            self._set_timer()

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        self._set_timer()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._scope.__aexit__(exc_type, exc, traceback)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        if self._due <= self._loop.time():
            self._scope.reschedule(self._loop.time())
        else:
            self._set_timer()
