"""Calls of stores and bus that run and then say that they timed out: what a network does, seeded, for tests.

Off unless `KITEMESH_AMBIGUITY=seed:percent` is set; nothing is wrapped then. So many calls of a hundred are told as
`Unavailable` after they ran, reads as well as writes, and so many posts are sent again later, as if unacknowledged.
Each process draws from its seed and its replica's name. It does not know what the calls mean.
"""

import asyncio
import os
import random
from typing import Any, Final, NamedTuple, cast

import structlog

from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.stores import Stores

VARIABLE: Final = "KITEMESH_AMBIGUITY"
BUS_CALLS: Final = frozenset({"send", "schedule", "holds", "last_of", "since"})
"""Requests on core NATS are left alone: who asks takes silence for an answer already."""
AGAIN_S: Final = 1.0
"""A post is repeated within this time."""

DOUBTED: Final = "call.doubted"
"""Logged for each call that is told as failed, so that they can be counted."""

log: Final = structlog.get_logger()


class Odds(NamedTuple):
    """How often, and by which seed."""

    seed: int
    share: float


def parse(text: str) -> Odds | None:
    """Read the variable's value; `None` when it is empty.

    Raises:
        ValueError: It is not `seed:percent`.

    """
    if not text:
        return None
    seed, _, percent = text.partition(":")
    if not (seed.isdecimal() and percent.isdecimal() and int(percent) <= 100):  # noqa: PLR2004  percent
        raise ValueError(f"ambiguity {text!r} is not seed:percent")
    return Odds(int(seed), int(percent) / 100)


class Doubt:
    """Says which calls go wrong.

    Args:
        odds: How often.
        name: Of the process.

    """

    def __init__(self, odds: Odds, name: str) -> None:
        self._random = random.Random(f"{odds.seed}/{name}")  # noqa: S311  guards nothing
        self._share = odds.share

    def strikes(self) -> bool:
        """Draw once."""
        return self._random.random() < self._share

    def later_s(self) -> float:
        """Draw when a post goes out again."""
        return self._random.uniform(0, AGAIN_S)


class _Doubtful:
    """Something whose calls may run and tell that they did not; what is not a call of its own is passed through."""

    def __init__(self, inner: object, doubt: Doubt, code: ErrorCode, calls: frozenset[str] | None = None) -> None:
        self._inner = inner
        self._doubt = doubt
        self._code = code
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._calls if self._calls is not None else name.startswith("_"):
            return found

        async def call(*given: Any, **named: Any) -> Any:
            result = await found(*given, **named)
            if self._doubt.strikes():
                log.info(DOUBTED, call=name)
                raise Unavailable(self._code, f"ambiguous: {name} ran, then timed out", retry_after_s=1.0)
            return result

        setattr(self, name, call)
        return call


class _DoubtfulBus(_Doubtful):
    def post(self, subject: str, payload: bytes) -> None:
        """Post, and maybe again."""
        bus = cast("Bus", self._inner)
        bus.post(subject, payload)
        if self._doubt.strikes():
            log.info(DOUBTED, call="post")
            asyncio.get_running_loop().call_later(self._doubt.later_s(), self._post_again, subject, payload)

    def _post_again(self, subject: str, payload: bytes) -> None:
        bus = cast("Bus", self._inner)
        if bus.connected:
            bus.post(subject, payload)


def doubtful_bus(bus: Bus, doubt: Doubt) -> Bus:
    """Return a bus whose publications and reads may tell that they failed."""
    return cast("Bus", _DoubtfulBus(bus, doubt, ErrorCode.BUS_DOWN, BUS_CALLS))


def doubtful_stores(stores: Stores, doubt: Doubt) -> Stores:
    """Return stores each of whose calls may tell that it failed."""
    return Stores(*(cast("Any", _Doubtful(store, doubt, ErrorCode.STORE_DOWN)) for store in stores))


def doubt_of(name: str) -> Doubt | None:
    """Return what the environment asks for; `None` when it does not."""
    if _ODDS is None:
        return None
    log.warning("ambiguity.armed", seed=_ODDS.seed, share=_ODDS.share)
    return Doubt(_ODDS, name)


_ODDS: Final = parse(os.environ.get(VARIABLE, ""))
