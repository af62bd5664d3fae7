"""The memory twin of `Budgets`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kitemesh_runtime.budgets import FORGOTTEN_S, SEAT_S, Ask, Grant, RateAsk, RateGrant, SlotsAsk, SlotsGrant
from kitemesh_runtime.clock import Clock


@dataclass
class _Level:
    level: float
    at_s: float


@dataclass
class _Seat:
    seq: int
    grant: Grant
    at_s: float
    held: int = 0
    until_s: float = 0.0


@dataclass
class _Subject:
    rates: dict[str, _Level] = field(default_factory=dict)
    seats: dict[str, _Seat] = field(default_factory=dict)


class MemoryBudgets:
    """The `Budgets` port in memory.

    Args:
        clock: Fills the levels.

    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._subjects: dict[str, _Subject] = {}

    async def exchange(self, gateway: str, asks: Sequence[Ask]) -> Mapping[str, Grant]:
        """Answer questions, each subject's atomically, and return the grants by subject."""
        now_s = self._clock.now_ms() / 1000
        answers = {ask.subject: self._answer(gateway, ask, now_s) for ask in asks}
        return {subject: grant for subject, grant in answers.items() if grant is not None}

    def _answer(self, gateway: str, ask: Ask, now_s: float) -> Grant | None:
        kept = self._subjects.setdefault(ask.subject, _Subject())
        before = kept.seats.get(gateway)
        if before is not None and before.seq >= ask.seq:
            return before.grant if before.seq == ask.seq else None
        grant = Grant(
            requests=_give(kept.rates, "requests", ask.requests, ask.gateways, now_s),
            tokens=_give(kept.rates, "tokens", ask.tokens, ask.gateways, now_s),
            slots=_seat(kept.seats, gateway, ask.slots, now_s),
        )
        kept.seats = {name: seat for name, seat in kept.seats.items() if seat.at_s > now_s - FORGOTTEN_S}
        seat = _Seat(ask.seq, grant, now_s)
        if grant.slots is not None:
            seat.held, seat.until_s = grant.slots.held, now_s + SEAT_S
        elif before is not None:
            seat.held, seat.until_s = before.held, before.until_s
        kept.seats[gateway] = seat
        return grant


def _give(rates: dict[str, _Level], name: str, ask: RateAsk | None, gateways: int, now_s: float) -> RateGrant | None:
    if ask is None:
        return None
    kept = rates.setdefault(name, _Level(ask.capacity, now_s))
    filled = min(ask.capacity, kept.level + max(0.0, now_s - kept.at_s) * ask.per_s)
    level = min(ask.capacity, filled + ask.back)
    pieces = max(0, math.floor(level / ask.piece))
    needed = ask.need if level >= ask.need else pieces * ask.piece
    share = max(0, math.floor((level - needed) / gateways))
    granted = needed + min(ask.want, share)
    kept.level, kept.at_s = level - granted, now_s
    return RateGrant(granted=granted, level=kept.level)


def _seat(seats: Mapping[str, _Seat], gateway: str, ask: SlotsAsk | None, now_s: float) -> SlotsGrant | None:
    if ask is None:
        return None
    others = sum(seat.held for name, seat in seats.items() if name != gateway and seat.until_s > now_s)
    return SlotsGrant(held=max(ask.used, min(ask.want, ask.limit - others)), others=others)
