"""The streams that a server keeps in memory, made again after it was restarted.

A server that stands alone loses them with its process, definition included; the streams on disk stay, and say how the
installation was bootstrapped. Where those are gone as well nothing is made: that is `kitemesh bootstrap`'s to do.
"""

import asyncio
from typing import Final

import structlog

from kitemesh_contracts.errors import KitemeshError
from kitemesh_contracts.topology import OUT_MAX_BYTES, TURN, StreamSpec, topology
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.topology_nats import apply, replicas_of

AGAIN_S: Final = 1.0

log: Final = structlog.get_logger()


def in_memory(out_max_bytes: int = OUT_MAX_BYTES) -> tuple[StreamSpec, ...]:
    """List the streams that are kept in memory; they have no consumers."""
    return tuple(spec for spec in topology(out_max_bytes=out_max_bytes) if spec.storage == "memory")


async def restore(bus: Bus, out_max_bytes: int = OUT_MAX_BYTES) -> bool:
    """Make those that are missing; tell whether the installation is bootstrapped at all. Again is the same.

    Raises:
        KitemeshError: The server does not answer, or would not do it.

    """
    replicas = await replicas_of(bus, TURN)
    if replicas is None:
        return False
    missing = [spec for spec in in_memory(out_max_bytes) if await replicas_of(bus, spec.name) is None]
    if missing:
        await apply(bus, missing, replicas=replicas)
        log.warning("streams.restored", streams=[spec.name for spec in missing])
    return True


async def restore_forever(bus: Bus, out_max_bytes: int) -> None:
    """Restore them now and after every reconnect, until it worked, for ever."""
    lost = asyncio.Event()
    bus.on_reconnect(lost.set)
    while True:
        lost.clear()
        try:
            await restore(bus, out_max_bytes)
        except KitemeshError as exc:
            log.warning("streams.not_restored", code=exc.code, reason=exc.message)
            await asyncio.sleep(AGAIN_S)
        else:
            await lost.wait()
