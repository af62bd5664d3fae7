"""Sending signs of life, and noticing whose stopped."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from types import MappingProxyType
from typing import Final, NamedTuple

from kitemesh_contracts import subjects
from kitemesh_contracts.beats import BEAT_EVERY_S, Beat, Health, Queue
from kitemesh_contracts.codec import encode
from kitemesh_contracts.errors import Unavailable
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.clock import Clock


class Signs(NamedTuple):
    """What a replica says of itself; see `Beat`."""

    load: int
    slots: int = 0
    queues: tuple[Queue, ...] = ()
    health: Mapping[str, Health] = MappingProxyType({})


async def beat(bus: Bus, service: str, replica: str, signs: Callable[[], Signs], clock: Clock) -> None:
    """Say for ever that this replica lives, and how it is."""
    release = version("kitemesh-runtime")
    subject = subjects.beat(service, replica)
    began_s = clock.monotonic()
    while True:
        now = signs()
        said = Beat(
            service=service,
            replica=replica,
            version=release,
            load=now.load,
            slots=now.slots,
            queues=now.queues,
            health=dict(now.health),
            up_s=round(clock.monotonic() - began_s, 1),
            now_ms=clock.now_ms(),
        )
        # The bus reports its own outages; the next beat tries again.
        with suppress(Unavailable):
            bus.publish(subject, encode(said))
        await asyncio.sleep(BEAT_EVERY_S)


class Pulse:
    """When each replica of a service was last heard.

    A replica that was never heard counts from the moment it was first asked about, so that a worker which has just
    started gives every gateway its full time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock: Final = clock
        self._heard: dict[str, float] = {}

    async def listen(self, bus: Bus, service: str) -> None:
        """Follow a service's signs of life."""
        await bus.subscribe(subjects.beats_of(service), self._on_beat)
        # While we were cut off nobody could be heard.
        bus.on_reconnect(self.forget)

    def silent_s(self, replica: str) -> float:
        """Return for how long a replica has not been heard."""
        now = self._clock.monotonic()
        return now - self._heard.setdefault(replica, now)

    def _on_beat(self, subject: str, _: bytes) -> None:
        self._heard[subjects.last_token(subject)] = self._clock.monotonic()

    def forget(self) -> None:
        """Give every replica its full time again."""
        self._heard.clear()
