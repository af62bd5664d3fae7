"""Writes that travel together: what arrives while a group is in flight is the next group.

There is no timer: the first operation goes at once. Each caller waits for its own operation and gets its own error.
It knows neither a collection nor a document; operations should be harmless when repeated.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from kitemesh_contracts.errors import Bug, Busy, ErrorCode, KitemeshError, Unavailable
from kitemesh_runtime.errors_mongo import RETRY_AFTER_S, unavailable
from kitemesh_runtime.metrics import STORE_GROUP_SIZE

GROUP_MAX: Final = 100
GROUP_MAX_BYTES: Final = 8 * 1024 * 1024
QUEUE_MAX: Final = 10_000
QUEUE_MAX_BYTES: Final = 64 * 1024 * 1024

Write = Callable[[Sequence[Any]], Awaitable[Mapping[int, KitemeshError]]]
"""Writes a group; returns errors by index, or raises one for all."""


class _Entry:
    __slots__ = ("done", "operation", "size_bytes")

    def __init__(self, operation: Any, size_bytes: int, done: asyncio.Future[None]) -> None:
        self.operation = operation
        self.size_bytes = size_bytes
        self.done = done


class GroupedWriter:
    """Groups the operations of one collection. Enter it to use it; leaving writes what is queued.

    Args:
        write: Writes one group.
        close_timeout_s: How long leaving may take.

    """

    def __init__(self, write: Write, *, close_timeout_s: float = 3.0) -> None:
        self._write = write
        self._close_timeout_s = close_timeout_s
        self._queue: deque[_Entry] = deque()
        self._queued_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def submit(self, operation: Any, *, size_bytes: int = 0) -> asyncio.Future[None]:
        """Queue an operation and return what completes when it is durable.

        Cancelling the future withdraws an operation that is not yet on its way, and only that.

        Args:
            operation: A driver operation for `bulk_write`.
            size_bytes: Its encoded size where it matters; bounds groups and the queue.

        Raises:
            Busy: The queue is full.
            Unavailable: The writer is closed.

        """
        if self._closed:
            raise Unavailable(ErrorCode.DRAINING, "the store is being closed", retry_after_s=RETRY_AFTER_S)
        if len(self._queue) >= QUEUE_MAX or (self._queued_bytes and self._queued_bytes + size_bytes > QUEUE_MAX_BYTES):
            raise Busy(ErrorCode.STORE_DOWN, "too many writes wait for the store", retry_after_s=RETRY_AFTER_S)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(_Entry(operation, size_bytes, done))
        self._queued_bytes += size_bytes
        if self._task is None:
            self._task = asyncio.create_task(self._drain(), name="store.writer")
        return done

    async def close(self) -> None:
        """Refuse new operations and wait, bounded, for those that are queued."""
        self._closed = True
        if self._task is None:
            return
        await asyncio.wait([self._task], timeout=self._close_timeout_s)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _drain(self) -> None:
        try:
            while group := self._next_group():
                await self._flush(group)
        finally:
            self._task = None
            self._fail_queued(unavailable())

    def _next_group(self) -> list[_Entry]:
        group: list[_Entry] = []
        size_bytes = 0
        while self._queue and len(group) < GROUP_MAX:
            entry = self._queue[0]
            if group and size_bytes + entry.size_bytes > GROUP_MAX_BYTES:
                break
            self._queue.popleft()
            self._queued_bytes -= entry.size_bytes
            if not entry.done.done():
                group.append(entry)
                size_bytes += entry.size_bytes
        return group

    async def _flush(self, group: list[_Entry]) -> None:
        STORE_GROUP_SIZE.observe(len(group))
        try:
            errors = await self._write([entry.operation for entry in group])
        except KitemeshError as exc:
            _settle(group, dict.fromkeys(range(len(group)), exc))
            if isinstance(exc, Unavailable):
                # Those behind would only wait for one more time-out.
                self._fail_queued(exc)
        except asyncio.CancelledError:
            _settle(group, dict.fromkeys(range(len(group)), unavailable()))
            raise
        except Exception as exc:  # noqa: BLE001  whoever waits must hear of it, and the next group must go
            bug = Bug(f"a group of writes raised {type(exc).__name__}")
            bug.__cause__ = exc
            _settle(group, dict.fromkeys(range(len(group)), bug))
        else:
            _settle(group, errors)

    def _fail_queued(self, error: KitemeshError) -> None:
        queued = list(self._queue)
        self._queue.clear()
        self._queued_bytes = 0
        _settle(queued, dict.fromkeys(range(len(queued)), error))


def _settle(group: Sequence[_Entry], errors: Mapping[int, KitemeshError]) -> None:
    for index, entry in enumerate(group):
        if entry.done.done():
            continue
        error = errors.get(index)
        if error is None:
            entry.done.set_result(None)
        else:
            entry.done.set_exception(error)
