"""Counts the connections that NATS cut because they did not read.

Whoever is cut sees no more than the end of its connection: the server counts it, and tells nobody unless asked. Every
server counts its own; the nearest answers first, so that replicas on different servers see all of them.
"""

import asyncio
from typing import Final, NoReturn

import msgspec
import structlog
from msgspec import Struct

from kitemesh_contracts.errors import KitemeshError
from kitemesh_contracts.topology import ACCOUNT_STATISTICS
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.metrics import SLOW_CONSUMERS

EVERY_S: Final = 5.0
ASK_S: Final = 2.5

log: Final = structlog.get_logger()


class _Account(Struct, frozen=True, kw_only=True):
    slow_consumers: int = 0


class _Statistics(Struct, frozen=True, kw_only=True):
    server_id: str = ""
    account_statz: tuple[_Account, ...] = ()


class _Answer(Struct, frozen=True, kw_only=True):
    data: _Statistics = _Statistics()


_ANSWER: Final = msgspec.json.Decoder(_Answer)


class SlowConsumers:
    """What one replica has heard of them."""

    def __init__(self, bus: Bus) -> None:
        self._bus: Final = bus
        self._counts: Final[dict[str, int]] = {}
        self._answers = True

    async def look(self) -> None:
        """Ask once, and count what came since the same server was asked before.

        Raises:
            KitemeshError: No server answers.

        """
        found = _ANSWER.decode(await self._bus.request(ACCOUNT_STATISTICS, b"", timeout_s=ASK_S)).data
        count = sum(account.slow_consumers for account in found.account_statz)
        # A server that was started again is another one.
        SLOW_CONSUMERS.inc(max(0, count - self._counts.get(found.server_id, count)))
        self._counts[found.server_id] = count

    async def run(self) -> NoReturn:
        """Look for ever; what is not answered is logged when it begins."""
        while True:
            try:
                await self.look()
            except (KitemeshError, msgspec.DecodeError) as exc:
                if self._answers:
                    log.warning("slow_consumers.not_seen", reason=str(exc))
                self._answers = False
            else:
                self._answers = True
            await asyncio.sleep(EVERY_S)
