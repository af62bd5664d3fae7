"""The memory twin of `Claims`."""

from dataclasses import dataclass
from typing import Final

from kitemesh_runtime.claims import KEY_CLAIMS, Claim
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.live_turns import LiveTurns

CLAIM_S: Final = 30.0
KEY_CLAIM_S: Final = 4.0


@dataclass
class _Kept:
    turn: str
    until_s: float
    fingerprint: str
    settled: bool = False


class MemoryClaims:
    """The `Claims` port in memory.

    Args:
        clock: When claims run out.
        turns: Tells whether the turn of a claim that ran out is stored, live or ended, or was erased: its claim stays.

    """

    def __init__(self, clock: Clock, turns: LiveTurns) -> None:
        self._clock = clock
        self._turns = turns
        self._kept: dict[tuple[str, str, str], _Kept] = {}

    async def claim(self, tenant: str, kind: str, value: str, turn: str, *, fingerprint: str = "") -> Claim:
        """Insert the claim, or say whose it is; a claim that ran out and whose turn is not stored is taken over."""
        kept = self._kept.setdefault((tenant, kind, value), _Kept(turn, self._ahead_s(kind), fingerprint))
        if kept.turn == turn:
            return Claim(won=True, turn=turn, fingerprint=kept.fingerprint)
        if self._ran_out(kept) and await self._turns.knows(tenant, kept.turn):
            kept.settled = True
        won = self._ran_out(kept)
        if won:
            kept.until_s = self._ahead_s(kind)
        return Claim(won=won, turn=kept.turn, fingerprint=kept.fingerprint)

    async def renew(self, tenant: str, kind: str, value: str, turn: str) -> bool:
        """Put the claim's end 30 s ahead; tell whether it is still the turn's."""
        kept = self._find(tenant, kind, value, turn)
        if kept is None:
            return False
        kept.until_s = self._ahead_s(kind)
        return True

    async def settle(self, tenant: str, kind: str, value: str, turn: str) -> None:
        """Mark the turn as stored: the claim stays valid until retention ends it."""
        kept = self._find(tenant, kind, value, turn)
        if kept is not None:
            kept.settled = True

    async def drop(self, tenant: str, kind: str, value: str, turn: str, *, settled: bool = False) -> None:
        """Remove the claim of a turn that certainly never began, also a `settled` one if that is asked for."""
        kept = self._find(tenant, kind, value, turn)
        if kept is not None and (settled or not kept.settled):
            del self._kept[(tenant, kind, value)]

    def _ran_out(self, kept: _Kept) -> bool:
        return not kept.settled and kept.until_s < self._clock.now_ms() / 1000

    def _find(self, tenant: str, kind: str, value: str, turn: str) -> _Kept | None:
        kept = self._kept.get((tenant, kind, value))
        return kept if kept is not None and kept.turn == turn else None

    def _ahead_s(self, kind: str) -> float:
        return self._clock.now_ms() / 1000 + (KEY_CLAIM_S if kind.startswith(KEY_CLAIMS) else CLAIM_S)
