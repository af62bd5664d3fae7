"""The slots of one pull, and the credit that stands for them.

What is held and does not wait, with the credit, is always as many as there are slots and as is to be taken back. It
knows neither handlers nor outcomes.
"""

import asyncio
from typing import Final

from kitemesh_runtime.bus import Pull

WAITING_PER_SLOT: Final = 4
"""Deliveries that may wait for their retry beside the work, for each slot; a further one keeps its own."""


def split(slots: int, consumers: int) -> list[int]:
    """Share slots out evenly, the first consumers getting the rest; at least one each, or it would starve."""
    each, rest = divmod(slots, consumers)
    return [max(1, each + (place < rest)) for place in range(consumers)]


class Slots:
    """The slots.

    Attributes:
        running: Held while a handler runs. What waited comes back when others may have its slot.

    """

    def __init__(self, share: int) -> None:
        self.running: Final = asyncio.Semaphore(share)
        self._share: Final = share
        self._pull: Pull | None = None
        self._lent = 0
        # How much of what is lent is to be taken back, because its lender waits no more.
        self._due = 0

    def fill(self, pull: Pull) -> None:
        """Give the pull its credit."""
        self._pull = pull
        pull.add_credit(self._share)

    def free(self) -> None:
        """Let another delivery come for one that is done with."""
        if self._due:
            self._due -= 1
            self._lent -= 1
        elif self._pull is not None:
            self._pull.add_credit(1)

    def lend(self) -> bool:
        """Let another delivery come for one that waits; `False` when too many of those wait already."""
        if self._due:
            self._due -= 1
            return True
        if self._pull is None or self._lent >= WAITING_PER_SLOT * self._share:
            return False
        self._lent += 1
        self._pull.add_credit(1)
        return True

    def reclaim(self) -> None:
        """Take back what was lent, with the next delivery that is done with: its lender goes on."""
        self._due += 1
