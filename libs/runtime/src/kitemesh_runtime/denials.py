"""What the server's permissions do not allow: counted, logged now and then, and told to whoever waits for an answer.

Such errors arrive on their own, after what they are about; they name the subject and nothing else.
"""

import re
import time
from collections.abc import Callable
from typing import Final

import structlog

LOGGED_EVERY_S: Final = 10.0
_DENIAL: Final = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE)
_FAMILY_TOKENS: Final = 3

log: Final = structlog.get_logger()


class Denials:
    """The denials of one connection."""

    def __init__(self) -> None:
        self._listeners: Final[list[Callable[[bytes], None]]] = []
        self._logged_s: Final[dict[tuple[str, str], float]] = {}

    def listen(self, callback: Callable[[bytes], None]) -> None:
        """Call back with the subject of each publication that was denied."""
        self._listeners.append(callback)

    def take(self, error: str) -> None:
        """Take note of the server's error; it is logged for each kind of subject every few seconds at the most."""
        found = _DENIAL.search(error)
        what, subject = (found[1].lower(), found[2]) if found else ("", error)
        family = what, ".".join(subject.split(".")[:_FAMILY_TOKENS])
        now_s = time.monotonic()
        if now_s >= self._logged_s.get(family, now_s):
            self._logged_s[family] = now_s + LOGGED_EVERY_S
            log.error("bus.denied", what=what, subject=subject)
        if what == "publish":
            for callback in self._listeners:
                callback(subject.encode())
