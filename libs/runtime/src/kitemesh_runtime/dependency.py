"""Whether something that a service needs is up, by the last real operation on it.

Health shows it, the gateway refuses by it, workers wait on it. It knows nothing of what the dependency is.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from kitemesh_contracts.errors import KitemeshError
from kitemesh_runtime.clock import Clock, SystemClock

PROBE_EVERY_S: Final = 1.0
PROBE_TIMEOUT_S: Final = 1.5

log = structlog.get_logger()


class Dependency:
    """Up or down, why, and for how long. Down until something shows otherwise."""

    def __init__(self, name: str, *, clock: Clock | None = None) -> None:
        self.name = name
        self.reason = "not tried yet"
        self._clock = clock or SystemClock()
        self._changed_at_s = self._clock.monotonic()
        self._answered_at_s = float("-inf")
        self._up = asyncio.Event()

    @property
    def is_up(self) -> bool:
        """Whether the last operation on it succeeded."""
        return self._up.is_set()

    @property
    def since_s(self) -> float:
        """Seconds that it has been as it is now."""
        return self._clock.monotonic() - self._changed_at_s

    def now_s(self) -> float:
        """Return the monotonic time by which it tells before from after."""
        return self._clock.monotonic()

    def mark_up(self) -> None:
        """Note a success; cheap enough for every operation."""
        self._answered_at_s = self._clock.monotonic()
        if self._up.is_set():
            return
        log.info("dependency.restored", dependency=self.name, after_s=round(self.since_s, 3))
        self.reason = ""
        self._changed_at_s = self._clock.monotonic()
        self._up.set()

    def mark_down(self, reason: str, *, began_s: float | None = None) -> None:
        """Note a failure that only the dependency can explain.

        Args:
            reason: For the operator.
            began_s: When what failed was begun, monotonic: it says nothing when something succeeded since.

        """
        if self._up.is_set():
            if began_s is not None and began_s < self._answered_at_s:
                # What was asked before an outage too short to be noticed fails after what was asked behind it succeeds.
                return
            log.warning("dependency.lost", dependency=self.name, reason=reason, after_s=round(self.since_s, 3))
            self._changed_at_s = self._clock.monotonic()
            self._up.clear()
        self.reason = reason

    async def wait_up(self) -> None:
        """Return once it is up."""
        await self._up.wait()


async def probe(dependency: Dependency, ping: Callable[[], Awaitable[None]], *, timeout_s: float) -> None:
    """Try the dependency once and note the outcome; it never raises what the ping raised."""
    began_s = dependency.now_s()
    try:
        async with asyncio.timeout(timeout_s):
            await ping()
    except TimeoutError:
        dependency.mark_down(f"no answer within {timeout_s:g} s", began_s=began_s)
    except KitemeshError as exc:
        dependency.mark_down(exc.message, began_s=began_s)
    except Exception as exc:  # noqa: BLE001  a driver's error not yet translated is a failure all the same
        dependency.mark_down(type(exc).__name__, began_s=began_s)
    else:
        dependency.mark_up()


async def watch(
    dependency: Dependency,
    ping: Callable[[], Awaitable[None]],
    *,
    every_s: float = PROBE_EVERY_S,
    timeout_s: float = PROBE_TIMEOUT_S,
) -> None:
    """Probe for ever, so that a loss or a return is known within `every_s + timeout_s` even when idle."""
    while True:
        await probe(dependency, ping, timeout_s=timeout_s)
        await asyncio.sleep(every_s)
