"""One gateway's part of one rate: what it has in hand, what it may owe, how much it should have. Pure.

Amounts are requests or tokens. What is in hand was taken from the level that all gateways share, so spending it needs
nobody; below 0 it is owed, and paid with the next question.
"""

import math
from typing import Final

from kitemesh_runtime.budgets import RateAsk, RateGrant

CREDIT: Final = 0.05
"""Part of the capacity that all gateways together may spend before they ask."""

AHEAD_S: Final = 0.5
"""What is spent in so many seconds is kept in hand: two questions' time."""

SHORT_S: Final = 0.1
"""After getting less than was needed, nobody asks again for so long: a client that retries waits a second anyway."""

BOOKED_S: Final = 5.0
"""What is owed, or left over, and small may wait for so long: its bound is the amount, not the time."""

NEVER_S: Final = 60.0
"""When to ask again for what a limit of 0 never gives."""

NOTED_S: Final = 0.1

_SMOOTHING: Final = 0.25
_SLOWEST: Final = 0.5
"""Amounts a second below which a rate counts as idle."""

_LATE: Final = 0.75
"""Part of what may be owed from which it is paid with the next round."""


class Rate:
    """A token bucket of which a part is here.

    Attributes:
        per_minute: The limit.
        capacity: What may be used at once.

    """

    __slots__ = (
        "_burst_s",
        "_demand",
        "_even_at_s",
        "_gateways",
        "_hand",
        "_is_known",
        "_is_local",
        "_level",
        "_level_at_s",
        "_noted_at_s",
        "_pace",
        "_per_s",
        "_short_until_s",
        "_size",
        "_waiting",
        "capacity",
        "per_minute",
    )

    def __init__(self, per_minute: int, burst_s: float, now_s: float, gateways: int) -> None:
        self._burst_s: Final = burst_s
        self.per_minute = 0
        self.capacity = self._per_s = 0.0
        self.resize(per_minute)
        self._hand = 0.0
        self._level = self.capacity
        self._level_at_s = now_s
        self._is_known = False
        self._is_local = False
        self._gateways = gateways
        self._even_at_s = now_s
        self._waiting: list[float] = []
        self._short_until_s = 0.0
        self._size = self._demand = self._pace = 0.0
        self._noted_at_s = now_s

    def resize(self, per_minute: int) -> None:
        """Change the limit."""
        self.per_minute = per_minute
        self._per_s = per_minute / 60
        self.capacity = max(1.0, self._per_s * self._burst_s) if per_minute > 0 else 0.0

    def is_settled(self, now_s: float) -> bool:
        """Tell whether nothing is in hand, owed, waited for or expected, nor would be refused for what is known."""
        is_short = self._is_known and self._shared(now_s) < self._size
        return not (self._hand or self._waiting or self._pace or self._demand or is_short)

    def fit(self, amount: float) -> float:
        """Return how much of an amount can ever be had at once."""
        return min(amount, self.capacity)

    def left(self, now_s: float) -> float:
        """Return how much could be spent now, as far as is known here; below 0 while it is owed."""
        return self._hand if self._is_local else self._hand + self._shared(now_s)

    def full_in_s(self, now_s: float) -> float:
        """Return the seconds until everything could be spent again."""
        capacity = self._local_capacity if self._is_local else self.capacity
        return max(0.0, capacity - self.left(now_s)) / self._pace_of_return if self._per_s else 0.0

    def take(self, amount: float, now_s: float) -> bool:
        """Spend it, if it is in hand or small enough to be owed."""
        self._demand += amount
        self._size = amount
        if self._is_local:
            return self._take_locally(amount, now_s)
        hand = self._hand - amount
        if hand < 0:
            if hand < -self._credit:
                return False
            if self._is_known and self._shared(now_s) < -hand:
                return False
        self._hand = hand
        return True

    def put_back(self, amount: float) -> None:
        """Take back what was not spent after all; below 0 it is what was spent beyond."""
        self._hand += amount

    def wait_s(self, amount: float, now_s: float) -> float:
        """Return in how many seconds that can be had, if nobody else takes it; 0 where asking may help at once."""
        if not self.capacity:
            return NEVER_S
        if self._is_local:
            return max(0.0, min(amount, self._local_capacity) - self._hand) / self._pace_of_return
        if not self._is_known:
            return 0.0
        missing = amount - self.left(now_s)
        if missing > 0:
            return missing / self._per_s
        return max(0.0, self._short_until_s - now_s)

    def begin_wait(self, amount: float) -> None:
        """Note that a request waits for an answer to a question that asks for this much for it."""
        self._demand -= amount
        self._waiting.append(amount)

    def end_wait(self, amount: float) -> None:
        """Note that it does not wait any more."""
        self._waiting.remove(amount)

    def note_time(self, now_s: float, gateways: int) -> None:
        """Learn from what was asked for since the last time; called a few times a second."""
        passed_s = now_s - self._noted_at_s
        if passed_s >= NOTED_S:
            pace = self._pace + _SMOOTHING * (self._demand / passed_s - self._pace)
            self._pace = pace if pace > _SLOWEST * max(1.0, self._size) else 0.0
            self._demand = 0.0
            self._noted_at_s = now_s
        self._gateways = gateways
        if not self._hand:
            self._even_at_s = now_s
        if self._is_local:
            self._fill_locally(now_s)

    def ask(self, now_s: float, *, is_last: bool = False) -> RateAsk:
        """Build the next question; what it returns or pays is not in hand from here on. The last one wants nothing."""
        hand, ahead = self._hand, self._ahead
        back = need = want = 0.0
        piece = 1.0
        if is_last:
            back = hand
        elif self._waiting:
            back, need, piece, want = hand, sum(self._waiting), self._waiting[0], ahead
        elif hand < 0:
            back, want = hand, ahead
        elif hand > 4 * ahead:
            back = hand - ahead
        else:
            want = max(0.0, ahead - hand)
        self._hand -= back
        self._even_at_s = now_s
        return RateAsk(per_s=self._per_s, capacity=self.capacity, back=back, need=need, piece=piece, want=want)

    def needs_asking(self, now_s: float) -> bool:
        """Tell whether there is something to pay, to return or to fetch that cannot wait."""
        hand, ahead = self._hand, self._ahead
        if self._waiting:
            return True
        if ahead:
            return hand < ahead / 2 or hand > 4 * ahead
        return abs(hand) > _LATE * self._credit or (hand != 0 and now_s - self._even_at_s >= BOOKED_S)

    @property
    def is_even(self) -> bool:
        """Whether a question has nothing to say of it."""
        return not (self._hand or self._waiting or self._ahead)

    def learn(self, asked: RateAsk, grant: RateGrant, now_s: float) -> None:
        """Take in the answer to a question."""
        self._hand += grant.granted
        self._level, self._level_at_s, self._is_known = grant.level, now_s, True
        if grant.granted < asked.need:
            self._short_until_s = now_s + SHORT_S

    def part(self, now_s: float) -> None:
        """Go on alone, with this gateway's share of the rate, because the store does not answer."""
        if not self._is_local:
            share = max(0.0, self._shared(now_s)) / self._gateways
            self._hand = min(self._local_capacity, self._hand + share)
            self._is_local = True

    def rejoin(self) -> None:
        """Go back to the shared level; what was used alone, and is not refilled yet, is owed."""
        if self._is_local:
            self._hand = min(0.0, self._hand - self._local_capacity)
            self._is_local = self._is_known = False

    @property
    def _ahead(self) -> float:
        """How much to have in hand: nothing where the others would feel it, or where what may be owed suffices."""
        if self._size > self._credit:
            return 0.0
        ahead = max(self._pace * AHEAD_S, self._demand)
        return float(math.ceil(ahead)) if ahead >= 2 * self._size else 0.0

    @property
    def _credit(self) -> float:
        return CREDIT * self.capacity / self._gateways

    @property
    def _local_capacity(self) -> float:
        return min(self.capacity, max(1.0, self.capacity / self._gateways))

    @property
    def _pace_of_return(self) -> float:
        return self._per_s / self._gateways if self._is_local else self._per_s

    def _shared(self, now_s: float) -> float:
        return min(self.capacity, self._level + (now_s - self._level_at_s) * self._per_s)

    def _take_locally(self, amount: float, now_s: float) -> bool:
        self._fill_locally(now_s)
        if not self.capacity or self._hand < min(amount, self._local_capacity):
            return False
        self._hand -= amount
        return True

    def _fill_locally(self, now_s: float) -> None:
        gained = (now_s - self._level_at_s) * self._pace_of_return
        self._level_at_s = now_s
        self._hand = max(self._hand, min(self._local_capacity, self._hand + gained))
