"""Searches in MongoDB: reads whose cost grows with what a tenant has stored, so that they are few at once.

One that is too slow says nothing of the server, and never makes it count as lost. It knows no collection.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_runtime.driver_mongo import Database

AT_ONCE: Final = 2
WAIT_S: Final = 1.0
RETRY_S: Final = 1.0

T = TypeVar("T")


class Searching:
    """Runs searches, a few at once; the others wait for a moment."""

    def __init__(self, database: Database) -> None:
        self._database: Final = database
        self._slots: Final = asyncio.Semaphore(AT_ONCE)

    async def run(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask once there is a slot, and return the answer.

        Raises:
            Unavailable: There was none, or no answer in time.

        """
        try:
            async with asyncio.timeout(WAIT_S):
                await self._slots.acquire()
        except TimeoutError as exc:
            raise Unavailable(ErrorCode.STORE_DOWN, "Too many searches run; try again", retry_after_s=RETRY_S) from exc
        search = asyncio.ensure_future(self._database.run_slow(ask()))
        # The server works on it as long as that, whether or not anybody waits.
        search.add_done_callback(self._free)
        return await asyncio.shield(search)

    def _free(self, search: "asyncio.Future[T]") -> None:
        self._slots.release()
        if not search.cancelled():
            # Seen here, so that a failure nobody waits for any more is not reported as lost.
            search.exception()
