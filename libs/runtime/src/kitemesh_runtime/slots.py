"""The slots of a worker, for all the queues it pulls from: who gets one, and the credit that stands for the rest.

A slot is used by a delivery, or reserved for one that is known to wait in its queue. A delivery that comes where there
is no slot waits here for its turn. It knows neither handlers nor outcomes.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from kitemesh_contracts.topology import Lane
from kitemesh_runtime.bus import Pull
from kitemesh_runtime.fair_shares import FairShares, credits_of

WAITING_PER_SLOT: Final = 4
"""Deliveries that may wait for their retry beside the work, for each slot; a further one keeps its own."""
STALE_S: Final = 0.1
"""How long a slot is kept for a message that others may have taken meanwhile."""

_NONE: Final = -1

Begin = Callable[[], bool]
"""Takes the slot; `False` when it is not wanted any more."""


class Timer(Protocol):
    """What can be stopped."""

    def cancel(self) -> None:
        """Stop it."""


class Loop(Protocol):
    """The part of an event loop that is needed."""

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """Call at the end of this turn."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Call in some seconds."""


class Slots:
    """The slots."""

    def __init__(self, size: int, lanes: Sequence[Lane], loop: Loop) -> None:
        """Take how many there are, and the queues, which are named by their places."""
        self.size: Final = size
        self._fair: Final = FairShares(lanes)
        # One queue has nobody to share with: its credit alone is enough.
        self._is_shared: Final = len(lanes) > 1
        self._loop: Final = loop
        self._pulls: Sequence[Pull] = ()
        self._held: Final = [0] * len(lanes)
        self._pending: Final = [0] * len(lanes)
        self._reserved: Final = [0] * len(lanes)
        self._ready: Final[list[deque[Begin]]] = [deque() for _ in lanes]
        self._wanting: Final[set[int]] = set()
        self._used = 0
        self._kept = 0
        self._lent = 0
        self._fresh: Final[set[int]] = set()
        self._expiry: Timer | None = None
        # The only queue that wants a slot, while all others may send what they have: what happens to it is its own
        # affair. No queue has this place when there is none such.
        self._only = _NONE
        self._is_due = False
        self._is_passed = False
        self._is_closed = False

    @property
    def free(self) -> int:
        """Slots that are neither used nor reserved."""
        return self.size - self._used - self._kept

    @property
    def pending(self) -> Sequence[int]:
        """What waits in each queue, as far as it is known."""
        return self._pending

    def is_deaf(self, place: int) -> bool:
        """Whether nothing of a queue can be heard, because nothing may come from it."""
        is_asked = self._is_shared and not self._held[place] and place not in self._wanting
        return self.free <= 0 and not self._reserved[place] and not is_asked

    def fill(self, pulls: Sequence[Pull]) -> None:
        """Give the pulls their credit."""
        self._pulls = pulls
        self._settle(0)

    def close(self) -> None:
        """Give no slot away any more."""
        self._is_closed = True
        self._only = _NONE
        if self._expiry is not None:
            self._expiry.cancel()

    def take(self, place: int, pending: int) -> bool:
        """Take in a delivery, and tell whether it has a slot; else it is to `wait`.

        Args:
            place: Its queue.
            pending: What was left in the queue behind it.

        """
        self._held[place] += 1
        reserved = self._reserved[place]
        if self._used + self._kept < self.size or not 0 < reserved <= pending + 1:
            return self._take(place, pending)
        # Its slot was kept for it, and its pull has counted it: nothing changes for anybody else.
        self._pending[place] = pending
        self._reserved[place] = reserved - 1
        self._kept -= 1
        self._used += 1
        self._fresh.add(place)
        if pending >= reserved:
            self._wanting.add(place)
        elif not self._ready[place]:
            self._wanting.discard(place)
        if place != self._only:
            self._only = _NONE
        return True

    def _take(self, place: int, pending: int) -> bool:
        has_slot = self._use_reserved(place, pending) or self.free > 0
        if has_slot:
            self._used += 1
        if self._is_shared:
            self._settle(place)
        return has_slot

    def wait(self, place: int, begin: Begin) -> None:
        """Let what was taken in without a slot begin when it is its queue's turn.

        Args:
            place: Its queue.
            begin: Called with a slot.

        """
        self._ready[place].append(begin)
        self._settle(place)

    def forget(self, place: int) -> None:
        """Let go of a delivery that waits and will not begin."""
        self._held[place] -= 1

    def pass_over(self, place: int, pending: int) -> None:
        """Take note of a delivery that is not taken in."""
        self._use_reserved(place, pending)
        self._settle(place)

    def learn(self, place: int, pending: int) -> None:
        """Take note of what waits in a queue."""
        self._pending[place] = pending
        self._settle(place)

    def leave(self, place: int) -> None:
        """Give a slot back, with its delivery."""
        self._held[place] -= 1
        self._used -= 1
        only = self._only
        if only == _NONE or self._pending[only] <= self._reserved[only]:
            self._settle(place)
        else:
            self._reserve(only)
            self._pulls[only].set_credit(self._reserved[only])

    def lend(self, place: int) -> bool:
        """Give the slot of a delivery that waits to others; `False` when too many do."""
        if self._lent >= WAITING_PER_SLOT * self.size:
            return False
        self._lent += 1
        self._used -= 1
        self._settle(place)
        return True

    async def reclaim(self, place: int) -> None:
        """Return with a slot again, when it is the queue's turn; what waits for that is still lent."""
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.wait(place, partial(self._give_back, slot))
        await slot

    def _give_back(self, slot: "asyncio.Future[None]") -> bool:
        self._lent -= 1
        if slot.done():
            return False
        slot.set_result(None)
        return True

    def _use_reserved(self, place: int, pending: int) -> bool:
        """Tell whether a slot was reserved for a delivery, and keep no more than there is in the queue."""
        self._pending[place] = pending
        before = self._reserved[place]
        if not before:
            return False
        self._fresh.add(place)
        left = min(before - 1, pending)
        self._reserved[place] = left
        self._kept -= before - left
        return True

    def _settle(self, place: int) -> None:
        """Give what is free to those whose turn it is, after something has changed for a queue."""
        if self._is_closed:
            return
        self._only = _NONE
        self._judge(place)
        while self._wanting and self.free > 0:
            chosen = self._fair.pick(self._wanting)
            if chosen is None:
                break
            self._is_passed = True
            if self._ready[chosen]:
                if self._ready[chosen].popleft()():
                    self._used += 1
            else:
                self._reserve(chosen)
            self._judge(chosen)
        if not self._is_shared:
            for pull in self._pulls:
                pull.set_credit(max(0, self.free))
        elif not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._spread)

    def _judge(self, place: int) -> None:
        """Decide whether a queue wants a slot."""
        if self._ready[place] or (self._is_shared and self._pending[place] > self._reserved[place]):
            self._wanting.add(place)
        else:
            self._wanting.discard(place)

    def _spread(self) -> None:
        passed, self._is_passed, self._is_due = self._is_passed, False, False
        if self._pulls and not self._is_closed:
            if passed and self.free <= 0 and len(self._wanting) == 1:
                (only,) = self._wanting
                self._only = _NONE if self._ready[only] else only
            credit = credits_of(self.free, self._reserved, self._held, self._wanting, passed=passed)
            for pull, allowed in zip(self._pulls, credit, strict=True):
                pull.set_credit(allowed)

    def _reserve(self, place: int) -> None:
        self._reserved[place] += 1
        self._kept += 1
        self._fresh.add(place)
        if self._expiry is None:
            self._expiry = self._loop.call_later(STALE_S, self._expire)

    def _expire(self) -> None:
        """Keep nothing for queues from which nothing came: it is gone, or cannot come now."""
        for place, reserved in enumerate(self._reserved):
            if reserved and place not in self._fresh:
                self._kept -= reserved
                self._reserved[place] = self._pending[place] = 0
                self._settle(place)
        self._fresh.clear()
        self._expiry = self._loop.call_later(STALE_S, self._expire) if self._kept else None
