"""Subscriptions to single turns that other gateways may be told of, shared by all who watch the same turn here."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from kitemesh_contracts import subjects
from kitemesh_runtime.bus import Bus, Listener


class _Shared:
    """One turn's subscriptions and how many need them."""

    def __init__(self) -> None:
        self.users = 0
        self.stack: Final = AsyncExitStack()


class Interest:
    """The turns that this gateway listens to besides its own."""

    def __init__(self, bus: Bus, on_live: Listener, on_out: Listener) -> None:
        self._bus: Final = bus
        self._on_live: Final = on_live
        self._on_out: Final = on_out
        self._turns: dict[str, _Shared] = {}

    @asynccontextmanager
    async def in_turn(self, turn: str) -> AsyncIterator[None]:
        """Listen to a turn while inside, from the first word that is said after entering."""
        shared = self._turns.get(turn)
        if shared is None:
            shared = self._turns[turn] = _Shared()
        shared.users += 1
        try:
            if shared.users == 1:
                for subject, listener in (
                    (subjects.live_turn(turn), self._on_live),
                    (subjects.out_turn(turn), self._on_out),
                ):
                    shared.stack.push_async_callback((await self._bus.subscribe(subject, listener)).stop)
            await self._bus.barrier()
            yield
        finally:
            shared.users -= 1
            if not shared.users:
                del self._turns[turn]
                await shared.stack.aclose()
