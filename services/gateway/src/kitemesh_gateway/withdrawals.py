"""Turns that nobody waits for any more.

Their cancel is broadcast until their closing event is heard, or for a minute in which the bus was there.
"""

from contextlib import suppress
from typing import Final, NamedTuple

from kitemesh_contracts import subjects
from kitemesh_contracts.codec import encode
from kitemesh_contracts.commands import CancelTurn, StartTurn
from kitemesh_contracts.errors import Unavailable
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.clock import Clock

REPEAT_S: Final = 1.0
GIVE_UP_S: Final = 60.0
MAX_WITHDRAWN: Final = 10_000


class _Withdrawn(NamedTuple):
    payload: bytes
    until_s: float


class Withdrawals:
    """The turns withdrawn by this gateway."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus: Final = bus
        self._clock: Final = clock
        self._turns: dict[str, _Withdrawn] = {}
        self._repeat_at_s = 0.0
        bus.on_reconnect(self._begin_again)

    def __contains__(self, turn: str) -> bool:
        return turn in self._turns

    def add(self, start: StartTurn, reason: str) -> None:
        """Withdraw a turn, and say so at once."""
        cancel = CancelTurn(
            turn=start.turn,
            tenant=start.tenant,
            reason=reason,
            conversation=None if start.fresh else start.conversation,
        )
        withdrawn = _Withdrawn(encode(cancel), self._clock.monotonic() + GIVE_UP_S)
        if len(self._turns) >= MAX_WITHDRAWN:
            del self._turns[next(iter(self._turns))]
        self._turns[start.turn] = withdrawn
        self._publish(start.turn, withdrawn)

    def settle(self, turn: str) -> None:
        """Stop repeating: the turn's closing event was heard."""
        self._turns.pop(turn, None)

    def tick(self, now_s: float) -> None:
        """Repeat what is due."""
        if now_s < self._repeat_at_s:
            return
        self._repeat_at_s = now_s + REPEAT_S
        for turn, withdrawn in list(self._turns.items()):
            if now_s >= withdrawn.until_s:
                del self._turns[turn]
            else:
                self._publish(turn, withdrawn)

    def _begin_again(self) -> None:
        # What was said while the bus was away was said to nobody.
        until_s = self._clock.monotonic() + GIVE_UP_S
        self._turns = {turn: withdrawn._replace(until_s=until_s) for turn, withdrawn in self._turns.items()}

    def _publish(self, turn: str, withdrawn: _Withdrawn) -> None:
        # Lost while disconnected; the repetition makes up for it.
        with suppress(Unavailable):
            self._bus.publish(subjects.cancel(turn), withdrawn.payload)
