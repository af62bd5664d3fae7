"""A stream without its first events, for a client that counted what it has. Pure.

The same turn gives the same events, so their number says where a client is, as long as its answer was told once.
"""

from collections.abc import Sequence
from typing import Final

from kitemesh_contracts.deltas import Delta, TurnEnded
from kitemesh_contracts.errors import ErrorInfo
from kitemesh_gateway.dialects.base import Encoder, Place, Rest
from kitemesh_gateway.positions import Position

_EVENT_END: Final = b"\n\n"


class RestOnly:
    """An encoder whose first events are dropped; an error is always told.

    Args:
        encoder: Of the whole stream.
        count: How many events its client has; at least the one that opens the stream.

    """

    __slots__ = ("_encoder", "_left")

    def __init__(self, encoder: Encoder, count: int) -> None:
        self._encoder: Final = encoder
        # The first is not counted down: it may be encoded behind others, whose place is after it.
        self._left = count - 1

    def start(self) -> bytes:
        """Return nothing: the client has the event that opens a stream."""
        self._encoder.start()
        return b""

    def resume(self, position: Position) -> None:
        """Do nothing: who counts events has no position."""

    def delta(self, place: Place, items: Sequence[Delta]) -> bytes:
        """Return the events of one frame."""
        return self._rest_of(self._encoder.delta(place, items))

    def end(self, ended: TurnEnded, rest: Sequence[Rest]) -> bytes:
        """Return the events that close a stream."""
        return self._rest_of(self._encoder.end(ended, rest))

    def error(self, place: Place, error: ErrorInfo, request_id: str) -> bytes:
        """Return the events that close a stream which could not finish."""
        return self._encoder.error(place, error, request_id)

    def whole(self, ended: TurnEnded) -> bytes:
        """Return the body of an answer that is not streamed."""
        return self._encoder.whole(ended)

    def _rest_of(self, data: bytes) -> bytes:
        while self._left and data:
            data = data[data.index(_EVENT_END) + len(_EVENT_END) :]
            self._left -= 1
        return data
