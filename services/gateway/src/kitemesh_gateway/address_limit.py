"""How many keys that nobody knows an address may try: what stands before the store when somebody guesses.

A bucket for each address, in a bounded table; local to this gateway. Keys that exist cost nothing.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from kitemesh_contracts.errors import Busy, ErrorCode
from kitemesh_gateway.peers import Peer, origin_of
from kitemesh_runtime.clock import Clock

BURST_S: Final = 5.0
ADDRESSES_MAX: Final = 10_000


def from_nowhere() -> Peer:
    """Return the peer of a request of which none is known."""
    return Peer()


class AddressLimit:
    """Refuses addresses that ask for too many unknown keys.

    Args:
        per_s: How many in a second, in the long run; 0 refuses none.
        proxies: How many proxies stand in front.
        clock: Time.

    """

    def __init__(self, per_s: float, proxies: int, clock: Clock) -> None:
        self._per_s: Final = per_s
        self._most: Final = max(1.0, per_s * BURST_S)
        self._proxies: Final = proxies
        self._clock: Final = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, peer: Callable[[], Peer]) -> str:
        """Count a lookup and return for whom, as `give_back` takes it.

        Raises:
            Busy: There were too many (`limit.rate`).

        """
        if not self._per_s:
            return ""
        origin = origin_of(peer(), self._proxies)
        now_s = self._clock.monotonic()
        level, at_s = self._levels.pop(origin, (self._most, now_s))
        level = min(self._most, level + (now_s - at_s) * self._per_s)
        is_allowed = level >= 1
        if len(self._levels) >= ADDRESSES_MAX:
            self._levels.popitem(last=False)
        self._levels[origin] = (level - is_allowed, now_s)
        if not is_allowed:
            message = "Too many unknown keys were sent from this address; wait, and send a key that exists"
            raise Busy(ErrorCode.RATE_LIMITED, message, retry_after_s=(1 - level) / self._per_s)
        return origin

    def give_back(self, origin: str) -> None:
        """Take back what was counted: the key exists, or nobody could say."""
        found = self._levels.get(origin)
        if found is not None:
            level, at_s = found
            self._levels[origin] = (min(self._most, level + 1), at_s)
