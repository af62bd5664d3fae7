"""The sweep: every few seconds, by compare-and-set and without a leader, free what a dead holder left locked."""

import asyncio
import random
from typing import Final

import structlog

from kitemesh_contracts.errors import KitemeshError
from kitemesh_orchestrator.endings import Endings
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.failpoints import reach
from kitemesh_runtime.stores import Conversations

SETTLE_S: Final = 12.0
"""Longer than the holders of locks take to renew them."""

log: Final = structlog.get_logger()


async def sweep_forever(
    conversations: Conversations, endings: Endings, store_state: Dependency, *, every_s: float
) -> None:
    """Sweep until cancelled; every pause is jittered, so that replicas spread out."""
    jitter = random.Random()  # noqa: S311  spreads load, guards nothing
    while True:
        await asyncio.sleep(every_s * jitter.uniform(0.8, 1.2))
        await reach("sweep.mid")
        try:
            promoted = await conversations.sweep()
        except KitemeshError as exc:
            log.warning("sweep.failed", code=exc.code)
            # While the store was away no lock was renewed: those who still hold one come first.
            await store_state.wait_up()
            await asyncio.sleep(SETTLE_S)
            continue
        for each in promoted:
            await endings.promote(each)
        if promoted:
            log.info("sweep.promoted", turns=len(promoted))
