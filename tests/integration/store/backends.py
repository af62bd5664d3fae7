"""What the store suite runs on: a clock that is moved by hand, and stores whose time can pass."""

import itertools
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from kitemesh_runtime.stores import Stores


class SteppedClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.ms = 1_750_000_000_000
        self._ids = itertools.count()

    def monotonic(self) -> float:
        return self.ms / 1000

    def now_ms(self) -> int:
        return self.ms

    def new_id(self) -> str:
        return f"id-{next(self._ids)}"


class Backend(NamedTuple):
    """Stores, and a way to let time pass in them.

    Attributes:
        age: Make everything that is dated older by so many seconds.

    """

    stores: Stores
    age: Callable[[float], Awaitable[None]]
