"""Whether an upstream is to be asked at all: closed, open after failures, half open to see whether it is back. Pure.

Time comes in, as seconds that never go back. It knows neither what a failure is nor what an upstream is.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, Literal

State = Literal["closed", "half_open", "open"]

IN_A_ROW: Final = 5
"""Failures without a success between them that open it."""

WINDOW: Final = 20
WINDOW_S: Final = 30.0
LEAST_ENDED: Final = 10
"""Of the last `WINDOW` calls that ended within `WINDOW_S`, half or more failures open it if they are at least these."""

OPEN_S: Final = 5.0
LONGEST_OPEN_S: Final = 60.0
SPREAD: Final = 0.2
"""An open time is longer by up to this share, so that several processes do not come back together."""

PROBE_S: Final = 10.0
"""How long the one probe keeps the next one away; a long answer may still go on then."""

_DOUBLINGS_MAX: Final = 10


class Breaker:
    """The state of one upstream.

    A call that began before the last change of state says nothing about the state after it and is not counted.

    Args:
        chance: Uniform in [0, 1).

    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance: Final = chance
        self._ticket = 0
        self._stale = 0
        self._open_until_s: float | None = None
        self._probing_until_s = 0.0
        self._openings = 0
        self._closed_s: float | None = None
        self._in_a_row = 0
        self._ended: Final[deque[tuple[float, bool]]] = deque(maxlen=WINDOW)

    def state(self, now_s: float) -> State:
        """Return what it is."""
        if self._open_until_s is None:
            return "closed"
        return "open" if now_s < self._open_until_s else "half_open"

    def wait_s(self, now_s: float) -> float:
        """Return for how long no call may begin; 0 when one may."""
        if self._open_until_s is None:
            return 0.0
        return max(0.0, self._open_until_s - now_s, self._probing_until_s - now_s)

    def enter(self, now_s: float) -> int | None:
        """Begin a call: return the ticket that its end is told with, or `None` when it may not begin."""
        if self.wait_s(now_s):
            return None
        if self._open_until_s is not None:
            self._probing_until_s = now_s + PROBE_S
        self._ticket += 1
        return self._ticket

    def succeed(self, ticket: int, now_s: float) -> None:
        """Count a call that ended well."""
        if ticket <= self._stale:
            return
        if self._open_until_s is None:
            self._in_a_row = 0
            self._ended.append((now_s, False))
        else:
            self._close(now_s)

    def fail(self, ticket: int, now_s: float) -> None:
        """Count a call that failed."""
        if ticket <= self._stale:
            return
        if self._open_until_s is None:
            self._in_a_row += 1
            self._ended.append((now_s, True))
            if not self._is_enough(now_s):
                return
        self._open(now_s)

    def drop(self, ticket: int) -> None:
        """Forget a call that says nothing; a probe makes room for the next."""
        if ticket == self._ticket and ticket > self._stale:
            self._probing_until_s = 0.0

    def _is_enough(self, now_s: float) -> bool:
        while self._ended[0][0] <= now_s - WINDOW_S:
            self._ended.popleft()
        failures = sum(failed for _, failed in self._ended)
        return self._in_a_row >= IN_A_ROW or (len(self._ended) >= LEAST_ENDED and 2 * failures >= len(self._ended))

    def _open(self, now_s: float) -> None:
        if self._closed_s is not None and now_s - self._closed_s >= WINDOW_S:
            # It was well for a while: this is another outage.
            self._openings = 0
        self._closed_s = None
        full_s = min(OPEN_S * 2.0 ** min(self._openings, _DOUBLINGS_MAX), LONGEST_OPEN_S)
        self._openings += 1
        self._open_until_s = now_s + full_s * (1 + SPREAD * self._chance())
        self._change()

    def _close(self, now_s: float) -> None:
        self._open_until_s = None
        self._closed_s = now_s
        self._change()

    def _change(self) -> None:
        self._stale = self._ticket
        self._probing_until_s = 0.0
        self._in_a_row = 0
        self._ended.clear()
