"""One gateway's part of a bound on open turns: the slots that it has, those in use, when to ask for more. Pure."""

from typing import Final

from kitemesh_gateway.limiter_rates import CREDIT, NOTED_S, SHORT_S
from kitemesh_runtime.budgets import SEAT_S, SlotsAsk, SlotsGrant

RENEW_S: Final = 5.0
SPARE_RENEW_S: Final = 1.0
"""Whoever keeps a free slot looks this often whether another gateway may need it."""

TIGHT: Final = 1 / 3
"""Part of the limit from which no free slot is kept here for the next turn."""

WAIT_MIN_S: Final = 1.0
WAIT_MAX_S: Final = 30.0

_SMOOTHING: Final = 0.3
_SLOWEST: Final = 0.1
"""Turns a second below which nothing is expected."""

_BRISK: Final = 2.0
"""Turns a second from which slots are fetched ahead."""


class Slots:
    """Slots for turns.

    Attributes:
        limit: Of all gateways together.
        used: Turns that are open here.

    """

    __slots__ = (
        "_gateways",
        "_held",
        "_held_until_s",
        "_is_known",
        "_is_local",
        "_known_at_s",
        "_noted_at_s",
        "_others",
        "_owed_since_s",
        "_pace",
        "_started",
        "_turn_s",
        "_waiting",
        "limit",
        "used",
    )

    def __init__(self, limit: int, now_s: float, gateways: int) -> None:
        self.limit = limit
        self.used = 0
        self._held = 0
        self._held_until_s = 0.0
        self._others = 0
        self._is_known = False
        self._is_local = False
        self._known_at_s = 0.0
        self._gateways = gateways
        self._waiting = 0
        self._started = 0
        self._pace = 0.0
        self._turn_s = 0.0
        self._noted_at_s = self._owed_since_s = now_s

    def is_settled(self, _: float) -> bool:
        """Tell whether none is used, kept, waited for or expected."""
        return not (self.used or self._held or self._waiting or self._pace or self._started)

    @property
    def is_tight(self) -> bool:
        """Whether another gateway may wait for a slot that becomes free here."""
        return self._gateways > 1 and self._others + self._held >= TIGHT * self.limit

    def take(self, _: float, now_s: float) -> bool:
        """Use a slot, if one is here, or so few are owed that it does not matter."""
        if self._is_local:
            is_free = self.used < self.limit // self._gateways or (not self.used and self.limit > 0)
        else:
            # Whoever slept for too long finds its slots given to others.
            owed = self.used + 1 - (self._held if now_s < self._held_until_s else 0)
            is_full = self._is_known and self._others + self.used >= self.limit
            is_free = owed <= 0 or (owed <= self._credit and not is_full)
        if is_free:
            self.used += 1
            self._started += 1
        return is_free

    def put_back(self, _: float, turn_s: float | None = None) -> None:
        """Free a slot that was used, if it was by a turn, for so long."""
        self.used -= 1
        if turn_s is not None:
            self._turn_s += _SMOOTHING * (turn_s - self._turn_s)

    def wait_s(self, _: float, now_s: float) -> float:
        """Return in how many seconds a slot may be free; 0 where asking may help at once."""
        if not self._is_local and self.limit > 0:
            is_recent = self._is_known and now_s - self._known_at_s < SHORT_S
            if not is_recent or self._others + max(self._held, self.used) < self.limit:
                return 0.0
        return min(WAIT_MAX_S, max(WAIT_MIN_S, self._turn_s / max(1, self.limit)))

    def begin_wait(self, _: float) -> None:
        """Note that a turn waits for an answer."""
        self._waiting += 1

    def end_wait(self, _: float) -> None:
        """Note that it does not wait any more."""
        self._waiting -= 1

    def note_time(self, now_s: float, gateways: int) -> None:
        """Learn from what began since the last time; called a few times a second."""
        passed_s = now_s - self._noted_at_s
        if passed_s >= NOTED_S:
            pace = self._pace + _SMOOTHING * (self._started / passed_s - self._pace)
            self._pace = pace if pace > _SLOWEST else 0.0
            self._started = 0
            self._noted_at_s = now_s
        self._gateways = gateways
        if self.used <= self._held:
            self._owed_since_s = now_s

    def needs_asking(self, now_s: float) -> bool:
        """Tell whether slots are to be fetched, given back or renewed, and that cannot wait."""
        free, spare = self._held - self.used, self._spare
        if self._waiting or free < -self._credit or (spare and free < (spare + 1) // 2):
            return True
        if free < 0:
            return now_s - self._owed_since_s >= RENEW_S
        if free > 2 * spare and self.is_tight:
            return True
        return bool(self._held) and now_s - self._held_until_s + SEAT_S >= (SPARE_RENEW_S if free else RENEW_S)

    @property
    def is_even(self) -> bool:
        """Whether a question has nothing to say of it."""
        return not (self._held or self.used or self._waiting)

    def ask(self) -> SlotsAsk:
        """Build the next question; what it gives back is not here from now on."""
        want = self.used + self._waiting + self._spare
        self._held = min(self._held, want)
        return SlotsAsk(limit=self.limit, used=self.used, want=want)

    def learn(self, grant: SlotsGrant, asked_at_s: float, now_s: float) -> None:
        """Take in the answer to a question."""
        self._held, self._others = grant.held, grant.others
        self._held_until_s = asked_at_s + SEAT_S
        self._known_at_s, self._is_known = now_s, True

    def forget(self) -> None:
        """Trust nothing that was ever answered."""
        self._held, self._is_known = 0, False

    def part(self) -> None:
        """Go on alone, with this gateway's share of the slots."""
        self._is_local = True

    def rejoin(self) -> None:
        """Go back to the shared slots; those in use are booked with the next question."""
        self._is_local = self._is_known = False

    @property
    def _credit(self) -> int:
        return int(CREDIT * self.limit / self._gateways)

    @property
    def _spare(self) -> int:
        """How many to keep for the turns of the next second: none where another gateway would feel it."""
        if self.is_tight or self._pace < _BRISK:
            return 0
        return max(0, min(int(self._pace), (self.limit - self._others - self.used) // (2 * self._gateways)))
