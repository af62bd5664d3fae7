"""Frames that arrive while what came before them is still being read. Pure.

They are kept in order, and no more than a bounded number of them: what is dropped here is kept by the bus.
"""

from bisect import insort
from typing import Final, NamedTuple

from kitemesh_contracts.deltas import Frame

MAX_FRAMES: Final = 512
MAX_ITEMS: Final = 2048


class Arrived(NamedTuple):
    """A frame and where it belongs."""

    step: int
    attempt: int
    n: int
    frame: Frame


def _order(arrived: Arrived) -> tuple[int, int, int]:
    return arrived[:3]


class Backlog:
    """Frames that wait.

    Attributes:
        newest: The latest step and attempt that was heard of.

    """

    __slots__ = ("_frames", "_items", "newest")

    def __init__(self) -> None:
        self.newest = (0, 0)
        self._frames: list[Arrived] = []
        self._items = 0

    def add(self, step: int, attempt: int, frame: Frame) -> None:
        """Keep a frame; what is in the way of a newer one goes first."""
        if not frame.items:
            return
        if len(self._frames) >= MAX_FRAMES or self._items >= MAX_ITEMS:
            self.clear()
        self.newest = max(self.newest, (step, attempt))
        self._items += len(frame.items)
        arrived = Arrived(step, attempt, frame.n, frame)
        if not self._frames or _order(self._frames[-1]) < _order(arrived):
            self._frames.append(arrived)
        else:
            insort(self._frames, arrived, key=_order)

    def clear(self) -> None:
        """Drop what waits."""
        self._frames = []
        self._items = 0

    def take(self) -> list[Arrived]:
        """Return what waits, in order, and keep it no more."""
        frames = self._frames
        self.clear()
        return frames

    def put_back(self, frames: list[Arrived]) -> None:
        """Keep again what was taken and could not be used."""
        for each in frames:
            self.add(each.step, each.attempt, each.frame)
