"""One upstream, a model of a provider, as all jobs of this process see it: whether it may be asked, and if not, why.

It adds to the breaker what failures mean, and the rest that an upstream asked for. Pure; time comes in.
"""

from collections.abc import Callable
from math import inf
from typing import Final, Literal, NamedTuple

from kitemesh_contracts.errors import ErrorCode, ProviderFailed
from kitemesh_model_runner.breaker import Breaker, State

Reason = Literal["open", "cooling"]

FAILURES: Final = frozenset(
    {
        ErrorCode.UPSTREAM_UNREACHABLE,
        ErrorCode.UPSTREAM_FAILED,
        ErrorCode.UPSTREAM_TIMEOUT,
        ErrorCode.UPSTREAM_CUT,
    }
)
"""What speaks against an upstream. What it refuses, or has too much of, does not."""

LONGEST_REST_S: Final = 300.0
"""Who asks for a longer rest is asked again after this; clients are told the time that it asked for."""


class Obstacle(NamedTuple):
    """Why an upstream is not asked.

    Attributes:
        code: What a client is told.
        wait_s: For how long it lasts, as far as that is known.

    """

    reason: Reason
    code: ErrorCode
    wait_s: float


class Circuit:
    """The upstream.

    Args:
        provider: Its name in the catalog.
        model: The provider's own name for it.
        chance: Uniform in [0, 1); `None` for one inside this process, which is asked whatever comes of it.

    """

    def __init__(self, provider: str, model: str, chance: Callable[[], float] | None) -> None:
        self.provider: Final = provider
        self.model: Final = model
        self._breaker: Final = None if chance is None else Breaker(chance)
        self._rests_until_s = -inf
        self._asked_until_s = -inf
        self._rest_code = ErrorCode.UPSTREAM_LIMITED

    def state(self, now_s: float) -> State:
        """Return the breaker's state."""
        return "closed" if self._breaker is None else self._breaker.state(now_s)

    def obstacle(self, now_s: float) -> Obstacle | None:
        """Return why it is not to be asked now; `None` when it may be."""
        if self._breaker is None:
            return None
        open_s = self._breaker.wait_s(now_s)
        if now_s < self._rests_until_s:
            return Obstacle("cooling", self._rest_code, max(open_s, self._asked_until_s - now_s))
        return Obstacle("open", ErrorCode.UPSTREAM_UNREACHABLE, open_s) if open_s else None

    def enter(self, now_s: float, *, rested: bool = False) -> int | None:
        """Begin a call: return the ticket that its end is told with, or `None` when it may not begin.

        Args:
            now_s: The time.
            rested: The call begins only when the upstream's rest is over.

        """
        if self._breaker is None:
            return 0
        return None if now_s < self._rests_until_s and not rested else self._breaker.enter(now_s)

    def leave(self, ticket: int, now_s: float, failure: ProviderFailed | None) -> None:
        """Count a call that ended, by its failure if there is one; a stream is judged by its end."""
        if self._breaker is None:
            return
        if failure is None:
            self._breaker.succeed(ticket, now_s)
            return
        if failure.code in FAILURES:
            self._breaker.fail(ticket, now_s)
        else:
            self._breaker.drop(ticket)
        if failure.retry_after_s is not None:
            self._rest(failure.retry_after_s, now_s, is_limit=failure.code == ErrorCode.UPSTREAM_LIMITED)

    def drop(self, ticket: int) -> None:
        """Forget a call that ended without a word on the upstream."""
        if self._breaker is not None:
            self._breaker.drop(ticket)

    def _rest(self, asked_s: float, now_s: float, *, is_limit: bool) -> None:
        until_s = now_s + asked_s
        if now_s < self._rests_until_s and until_s <= self._asked_until_s:
            # Calls that began together are refused together, and the longest rest counts.
            return
        self._asked_until_s = until_s
        self._rests_until_s = now_s + min(asked_s, LONGEST_REST_S)
        self._rest_code = ErrorCode.UPSTREAM_LIMITED if is_limit else ErrorCode.UPSTREAM_UNREACHABLE
