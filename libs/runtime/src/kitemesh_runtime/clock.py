"""The one place that reads clocks and entropy, so that tests can stand in for it."""

import os
import time
from typing import Protocol

from kitemesh_contracts.ids import uuid7


class Clock(Protocol):
    """Time and ids."""

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean anything."""

    def now_ms(self) -> int:
        """Return milliseconds since the epoch; shown to people, never compared between machines."""

    def new_id(self) -> str:
        """Return a new time-ordered UUID."""


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def now_ms(self) -> int:
        """Return milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def new_id(self) -> str:
        """Return a new time-ordered UUID."""
        return uuid7(time.time_ns() // 1_000_000, os.urandom(10))
