"""What the leaders of queues say of them: how much waits, how much is in hand, how old the oldest is.

Leaders alone know it, so that whoever asks is told the same; an age is the difference of two times of one clock. It
keeps nothing, and does not know what is made of it.
"""

from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_contracts.topology import ADVISORY_ALL, DEAD, pool_of
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.jetstream_nats import ask

ASK_S: Final = 2.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Level(NamedTuple):
    """What the queues of a stream and pool hold.

    Attributes:
        depth: Messages that were not delivered to anybody.
        in_flight: Delivered, and not acknowledged yet.
        redelivered: Those of them that were delivered more than once.

    """

    depth: int = 0
    in_flight: int = 0
    redelivered: int = 0


class _Consumer(Struct, frozen=True, kw_only=True):
    name: str
    num_pending: int = 0
    num_ack_pending: int = 0
    num_redelivered: int = 0


class _Consumers(Struct, frozen=True, kw_only=True):
    total: int = 0
    consumers: list[_Consumer] | None = None
    missing: list[str] | None = None


class _State(Struct, frozen=True, kw_only=True):
    messages: int = 0
    first_ts: datetime = _EPOCH
    subjects: dict[str, int] | None = None


class _Stream(Struct, frozen=True, kw_only=True):
    state: _State
    ts: datetime = _EPOCH


_CONSUMERS: Final = msgspec.json.Decoder(_Consumers)
_STREAM: Final = msgspec.json.Decoder(_Stream)


async def levels(bus: Bus, stream: str) -> dict[str, Level]:
    """Return what a stream's queues hold, by pool; the pool is empty for a stream without pools.

    Raises:
        Refused: There is no such stream.
        Unavailable: Some leader did not answer.

    """
    found: dict[str, Level] = {}
    seen = 0
    while True:
        page = await ask(bus, f"CONSUMER.LIST.{stream}", {"offset": seen}, _CONSUMERS, timeout_s=ASK_S)
        if page.missing:
            # In part it would look like less than there is.
            raise Unavailable(ErrorCode.BUS_DOWN, f"Nobody answers for {', '.join(page.missing)} of {stream}.")
        for each in page.consumers or ():
            pool = pool_of(stream, each.name)
            if pool is not None:
                before = found.get(pool, Level())
                found[pool] = Level(
                    before.depth + each.num_pending,
                    before.in_flight + each.num_ack_pending,
                    before.redelivered + each.num_redelivered,
                )
        seen += len(page.consumers or ())
        if not page.consumers or seen >= page.total:
            return found


async def oldest_s(bus: Bus, stream: str) -> float:
    """Return the age of a stream's oldest message in seconds; 0 when it has none. Raises as `levels` does."""
    found = await ask(bus, f"STREAM.INFO.{stream}", {}, _STREAM, timeout_s=ASK_S)
    if not found.state.messages:
        return 0.0
    return max(0.0, (found.ts - found.state.first_ts).total_seconds())


async def dead_letters(bus: Bus) -> int:
    """Return how many messages were given up and are still kept. Raises as `levels` does."""
    # Each letter has a subject of its own, of which there may be a hundred thousand; advisories have a few in all.
    found = await ask(bus, f"STREAM.INFO.{DEAD}", {"subjects_filter": ADVISORY_ALL}, _STREAM, timeout_s=ASK_S)
    return max(0, found.state.messages - sum((found.state.subjects or {}).values()))
