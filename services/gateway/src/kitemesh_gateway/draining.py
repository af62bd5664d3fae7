"""A gateway that stops sends its durable streams elsewhere, a few at a time, so that they do not all come back at once.

Classic streams cannot go anywhere: they finish, as long as they may.
"""

import asyncio
from typing import Final

import structlog

from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_gateway.relay import Relay

SPREAD_MAX_S: Final = 4.0
TICK_S: Final = 0.1
RETRY_MS: Final = 250

MOVED: Final = ErrorInfo(
    code=ErrorCode.DRAINING,
    message="This server stops; the answer goes on, and another server shows the rest from the last event id on",
    retry_after_s=RETRY_MS / 1000,
)

log: Final = structlog.get_logger()


async def send_streams_away(relay: Relay, drain_s: float) -> None:
    """Have the clients of durable streams reconnect, spread over half of `drain_s`, and over 4 s at the most.

    A turn whose answer is not streamed is left to its end: its client could not be shown what it has missed.
    """
    ticks = max(1, round(min(SPREAD_MAX_S, drain_s / 2) / TICK_S))
    sent = 0
    for left in range(ticks, 0, -1):
        streams = [watch for watch in relay.watches() if watch.turn.durable and watch.turn.stream]
        for watch in streams[: -(-len(streams) // left)]:
            relay.send_away(watch, MOVED, retry_ms=RETRY_MS)
            sent += 1
        await asyncio.sleep(TICK_S)
    log.info("streams.sent_away", streams=sent)
