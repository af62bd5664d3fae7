"""Server-sent events: bytes in, the `data` of each event out, however the bytes were split on their way.

Made for the stream of a model: event names, ids and comments are skipped. It bounds what it holds, and knows nothing
of JSON.
"""

from typing import Final

MAX_EVENT_BYTES: Final = 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"


class EventTooLong(Exception):
    """A line, or the lines of one event, are longer than the parser holds."""


class SseParser:
    """The state between two reads of one stream.

    Args:
        max_event_bytes: Bound of one line, and of the data of one event.

    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max: Final = max_event_bytes
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._ended_by_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of every event that this chunk completes, in order.

        Raises:
            EventTooLong: The stream cannot be read any further.

        """
        if b"\r" in chunk or self._ended_by_cr:
            chunk = self._with_line_feeds(chunk)
        *lines, rest = chunk.split(b"\n")
        if lines and self._rest:
            lines[0] = b"".join((*self._rest, lines[0]))
            self._rest.clear()
            self._rest_bytes = 0
        if rest:
            self._rest.append(rest)
            self._rest_bytes += len(rest)
            self._check(self._rest_bytes)
        events: list[bytes] = []
        for line in lines:
            if line:
                self._take(line)
            elif self._data:
                if self._data_bytes:
                    events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data.clear()
                self._data_bytes = 0
        return events

    def finish(self) -> list[bytes]:
        """Return the last event of a stream that ended without a blank line; half a line counts for nothing."""
        return self.feed(b"\n\n") if self._data and not self._rest else []

    def _take(self, line: bytes) -> None:
        if line.startswith(_BOM):
            line = line.removeprefix(_BOM)
        if line.startswith(b"data: "):
            data = line[6:]
        elif line.startswith(b"data:"):
            data = line[5:]
        elif line == b"data":
            data = b""
        else:
            self._check(len(line))
            return
        # The line feed that joins two lines counts, so an event of empty lines is neither endless nor nothing.
        self._data_bytes += len(data) + (1 if self._data else 0)
        self._data.append(data)
        self._check(self._data_bytes)

    def _with_line_feeds(self, chunk: bytes) -> bytes:
        # CR, LF and CRLF all end a line; a CR is acted on at once, so the LF of a split pair must not count again.
        if self._ended_by_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._ended_by_cr = False
        if chunk:
            self._ended_by_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _check(self, size: int) -> None:
        if size > self._max:
            raise EventTooLong
