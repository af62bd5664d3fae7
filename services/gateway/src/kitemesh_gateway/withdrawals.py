"""Turns that are to stop: nobody waits for them any more, or somebody said so.

Their cancel is broadcast until their closing event is heard, or for a minute in which the bus was there. What somebody
asked for also holds for a turn that was stored meanwhile, so the store is to be told; who does that is not known here.
"""

import asyncio
from contextlib import suppress
from typing import Final, NamedTuple

from kitemesh_contracts import subjects
from kitemesh_contracts.codec import encode
from kitemesh_contracts.commands import CancelTurn, Parcel
from kitemesh_contracts.deltas import TurnEnded
from kitemesh_contracts.errors import Unavailable
from kitemesh_gateway.watches import Watched
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.clock import Clock

REPEAT_S: Final = 1.0
GIVE_UP_S: Final = 60.0
MAX_WITHDRAWN: Final = 10_000
UNMARKED_AT_ONCE: Final = 16


class _Withdrawn(NamedTuple):
    """A turn that is to stop.

    Attributes:
        held: It was heard to be held, so that the store has it.
        marked: The store knows that it is to stop.

    """

    order: CancelTurn
    payload: bytes
    until_s: float
    held: bool = False
    marked: bool = False


class Withdrawals:
    """The turns withdrawn by this gateway."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus: Final = bus
        self._clock: Final = clock
        self._turns: dict[str, _Withdrawn] = {}
        self._unmarked: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._repeat_at_s = 0.0
        bus.on_reconnect(self._begin_again)

    def __contains__(self, turn: str) -> bool:
        return turn in self._turns

    def add(self, turn: Watched, reason: str, *, disconnect: bool) -> None:
        """Have a turn stopped, and say so at once; `disconnect`: only because its client gets no answer any more."""
        until_s = self._clock.monotonic() + GIVE_UP_S
        known = self._turns.get(turn.turn)
        if known is not None and not known.order.disconnect:
            # A client that leaves takes nothing back of what somebody asked for.
            if not disconnect:
                self._turns[turn.turn] = known._replace(until_s=until_s)
            return
        order = CancelTurn(
            turn=turn.turn,
            tenant=turn.tenant,
            reason=reason,
            conversation=None if turn.fresh else turn.conversation,
            disconnect=disconnect,
        )
        withdrawn = _Withdrawn(order, encode(order), until_s)
        if known is None and len(self._turns) >= MAX_WITHDRAWN:
            del self._turns[next(iter(self._turns))]
        self._turns[turn.turn] = withdrawn
        self._publish(withdrawn)

    def settle(self, ended: TurnEnded | Parcel, turn: str) -> None:
        """Take note of the turn's closing event: nothing is repeated any more, unless the turn can go on behind it.

        One that is held goes on without its client, but not against the word of who cancelled it. A parcel may say so.
        """
        known = self._turns.get(turn)
        if known is None:
            return
        held = isinstance(ended, TurnEnded) and ended.outcome == "held"
        if known.order.disconnect or not (held or isinstance(ended, Parcel)):
            del self._turns[turn]
            return
        self._turns[turn] = known = known._replace(held=known.held or held)
        self._queue(known)

    async def unmarked(self) -> list[CancelTurn]:
        """Wait for turns that somebody cancelled and that may be stored by now, and return them."""
        batch: list[CancelTurn] = []
        while not batch or (len(batch) < UNMARKED_AT_ONCE and not self._unmarked.empty()):
            turn = await self._unmarked.get()
            self._queued.discard(turn)
            known = self._turns.get(turn)
            if known is not None and not known.marked:
                batch.append(known.order)
        return batch

    def note(self, turn: str, *, live: bool, ended: bool) -> None:
        """Take note of what the store said of a turn when it was told: it was live and is marked now, or had ended."""
        known = self._turns.get(turn)
        if known is None:
            return
        if ended or (known.held and not live):
            del self._turns[turn]
        elif live:
            self._turns[turn] = known._replace(marked=True)

    def tick(self, now_s: float) -> None:
        """Repeat what is due."""
        if now_s < self._repeat_at_s:
            return
        self._repeat_at_s = now_s + REPEAT_S
        for turn, withdrawn in list(self._turns.items()):
            if now_s >= withdrawn.until_s and (withdrawn.marked or not withdrawn.held):
                del self._turns[turn]
            else:
                self._publish(withdrawn)
                # Its closing event may be lost, or the store was away when it was told.
                self._queue(withdrawn)

    def _queue(self, withdrawn: _Withdrawn) -> None:
        turn = withdrawn.order.turn
        if not (withdrawn.order.disconnect or withdrawn.marked or turn in self._queued):
            self._queued.add(turn)
            self._unmarked.put_nowait(turn)

    def _begin_again(self) -> None:
        # What was said while the bus was away was said to nobody.
        until_s = self._clock.monotonic() + GIVE_UP_S
        self._turns = {turn: withdrawn._replace(until_s=until_s) for turn, withdrawn in self._turns.items()}

    def _publish(self, withdrawn: _Withdrawn) -> None:
        # Lost while disconnected; the repetition makes up for it.
        with suppress(Unavailable):
            self._bus.publish(subjects.cancel(withdrawn.order.turn), withdrawn.payload)
