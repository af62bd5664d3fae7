"""Calls for the caller in a stream: what of them was told, so that each is told once and to its end. Pure.

Where nothing runs here a call is told as it comes; anywhere else it is known only at the end whose it is.
"""

from collections.abc import Iterable
from typing import Final

from kitemesh_contracts.content import ToolCall
from kitemesh_contracts.deltas import CallDelta
from kitemesh_gateway.dialects.base import Facts
from kitemesh_gateway.dialects.completions_answers import CallDeltaOut, DeltaOut, FunctionDeltaOut


class _Told:
    """A call that was begun.

    Attributes:
        index: Its place among those of the stream.
        arguments: What was told of them.
        now: How many characters of them the attempt that is followed has told.

    """

    __slots__ = ("arguments", "index", "now")

    def __init__(self, index: int) -> None:
        self.index: Final = index
        self.arguments = ""
        self.now = 0

    def tell(self, piece: str) -> str | None:
        """Take the next piece and return what of it is new; `None` when it is not what was told."""
        known = self.arguments[self.now : self.now + len(piece)]
        if not piece.startswith(known):
            return None
        self.now += len(piece)
        fresh = piece[len(known) :]
        self.arguments += fresh
        return fresh


class LiveCalls:
    """The calls of one stream."""

    __slots__ = ("_by_id", "_by_place", "_one", "_own", "diverged")

    def __init__(self, facts: Facts) -> None:
        self._own: Final = frozenset[str]() if facts.resumable else facts.own_tools
        self._one: Final = facts.one_call
        self._by_id: dict[str, _Told] = {}
        self._by_place: dict[tuple[int, int], _Told] = {}
        self.diverged = False

    def tell(self, step: int, delta: CallDelta) -> DeltaOut | None:
        """Return what a piece of a call adds to the stream; `None` when that is nothing yet."""
        if not self._own:
            return None
        place = (step, delta.index)
        told = self._by_id.get(delta.id) if delta.id else self._by_place.get(place)
        if told is None:
            if delta.name not in self._own or (self._one and delta.index):
                return None
            told = self._begin(delta.id)
            self._by_place[place] = told
            told.tell(delta.arguments)
            return _first(told.index, delta.id, delta.name, delta.arguments)
        if delta.id:
            # Another attempt tells it from its beginning.
            told.now = 0
            self._by_place[place] = told
        return self._more(told, delta.arguments)

    def rest(self, calls: Iterable[ToolCall]) -> list[DeltaOut]:
        """Return what completes the calls that are the caller's."""
        deltas: list[DeltaOut] = []
        wanted = {call.id for call in calls}
        self.diverged = self.diverged or any(id_ not in wanted for id_ in self._by_id)
        for call in calls:
            told = self._by_id.get(call.id)
            if told is None:
                deltas.append(_first(self._begin(call.id).index, call.id, call.name, call.arguments))
                continue
            told.now = 0
            more = self._more(told, call.arguments)
            if len(told.arguments) != len(call.arguments):
                self.diverged = True
            elif more is not None:
                deltas.append(more)
        return deltas

    def _begin(self, id_: str) -> _Told:
        told = self._by_id[id_] = _Told(len(self._by_id))
        return told

    def _more(self, told: _Told, piece: str) -> DeltaOut | None:
        fresh = None if self.diverged else told.tell(piece)
        if fresh is None:
            self.diverged = True
            return None
        if not fresh:
            return None
        return DeltaOut(tool_calls=(CallDeltaOut(index=told.index, function=FunctionDeltaOut(arguments=fresh)),))


def _first(index: int, id_: str, name: str, arguments: str) -> DeltaOut:
    """Return a call's first piece."""
    function = FunctionDeltaOut(name=name, arguments=arguments)
    return DeltaOut(tool_calls=(CallDeltaOut(type="function", index=index, id=id_, function=function),))
