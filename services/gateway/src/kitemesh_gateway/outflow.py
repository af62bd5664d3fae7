"""How long bytes wait in this process for a client that does not read. One timer looks at every connection.

A byte that waits too long costs the client its connection, so that readers who stopped cannot fill the memory.
"""

import asyncio
import socket
import struct
from typing import Final

import structlog

from kitemesh_runtime.metrics import STREAMS_CUT

TICK_S: Final = 0.5
_RESET: Final = struct.pack("ii", 1, 0)
_CUT: Final = {reason: STREAMS_CUT.labels(reason).inc for reason in ("slow_client",)}
"""Linger for no time: closing resets the connection."""

log: Final = structlog.get_logger()


class Outflow:
    """The unsent bytes of one connection.

    Attributes:
        written: Bytes handed to the transport so far.

    """

    __slots__ = ("_due_s", "_mark", "transport", "written")

    def __init__(self, transport: asyncio.Transport, written: int = 0) -> None:
        self.transport: Final = transport
        self.written = written
        self._mark = 0
        self._due_s = 0.0

    def is_overdue(self, now_s: float, patience_s: float) -> bool:
        """Tell whether a byte has waited for `patience_s`; called at every tick."""
        unsent = self.transport.get_write_buffer_size()
        sent = self.written - unsent
        if not unsent:
            self._due_s = 0.0
        elif not self._due_s or sent >= self._mark:
            # Everything written by now must have left within the time, whatever is written later. The byte may have
            # waited since the last tick, and is looked at again at the next one.
            self._mark = self.written
            self._due_s = now_s + patience_s - 2 * TICK_S
        return bool(self._due_s) and now_s >= self._due_s

    def is_empty(self) -> bool:
        """Tell whether nothing waits, or nothing ever will again."""
        return self.transport.is_closing() or not self.transport.get_write_buffer_size()

    def has_room(self, most: int) -> bool:
        """Tell whether at most that many bytes wait, or nothing ever will again."""
        return self.transport.is_closing() or self.transport.get_write_buffer_size() <= most

    def cut(self, reason: str) -> None:
        """End the connection at once; what waits is lost, here and in the kernel."""
        _CUT[reason]()
        log.info("stream.cut", reason=reason, unsent_bytes=self.transport.get_write_buffer_size())
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            # Otherwise the kernel would keep megabytes for a client that does not read, until it gives up by itself.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()


class Stragglers:
    """Answers that are complete but not yet taken by their clients."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s: Final = patience_s
        self._outflows: set[Outflow] = set()

    def add(self, outflow: Outflow) -> None:
        """Look after an answer until its client has it."""
        self._outflows.add(outflow)

    def tick(self, now_s: float) -> None:
        """Cut who has been too slow."""
        for outflow in list(self._outflows):
            if outflow.is_empty():
                self._outflows.discard(outflow)
            elif outflow.is_overdue(now_s, self._patience_s):
                self._outflows.discard(outflow)
                outflow.cut("slow_client")
