"""The sweep: every few seconds, by compare-and-set and without a leader, drive on what nobody drives any more.

Conversations whose holder is gone, what is left of deleted ones, holds that ran out or were decided and not applied,
and stored turns whose work is neither in a queue nor done. Waiting in a queue is not death.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import structlog

from kitemesh_contracts import subjects
from kitemesh_contracts.commands import ApplyHold, CancelTurn
from kitemesh_contracts.errors import ErrorCode, KitemeshError, Unavailable
from kitemesh_contracts.headers import start_msg_id
from kitemesh_orchestrator import stored
from kitemesh_orchestrator.endings import Endings
from kitemesh_orchestrator.engine import Engine
from kitemesh_orchestrator.happenings import JobReleased
from kitemesh_orchestrator.whereabouts import Whereabouts
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.clearing import Clearing
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.failpoints import reach
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.metrics import HOLDS_OLDEST, HOLDS_OPEN, TURNS_REDRIVEN
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.stores import Stores

AGAIN_S: Final = 1.0
SETTLE_S: Final = 12.0
"""Longer than the holders of locks take to renew them."""
PAGE: Final = 32
IDLE_S: Final = 4.0
"""A stored turn that was not written for so long is looked at: its jobs may be lost."""

log: Final = structlog.get_logger()


class Sweeper:
    """One replica's sweep; any number of them share the work."""

    def __init__(
        self,
        *,
        bus: Bus,
        stores: Stores,
        parcels: Parcels,
        whereabouts: Whereabouts,
        engine: Engine,
        endings: Endings,
        clearing: Clearing,
        clock: Clock,
    ) -> None:
        self._bus: Final = bus
        self._stores: Final = stores
        self._parcels: Final = parcels
        self._whereabouts: Final = whereabouts
        self._clock: Final = clock
        self._engine: Final = engine
        self._endings: Final = endings
        self._clearing: Final = clearing

    async def sweep(self) -> None:
        """Sweep once.

        Raises:
            KitemeshError: The store or the bus does not answer; what is left is due at the next sweep.

        """
        promoted = await self._stores.conversations.sweep()
        await reach("sweep.mid")
        for each in promoted:
            await self._endings.promote(each)
        if promoted:
            log.info("sweep.promoted", turns=len(promoted))
        for tenant, name in await self._stores.conversations.buried():
            await self._one("conversation", name, self._clearing.clear(tenant, name))
        for hold in await self._stores.holds.due():
            await self._one("hold", hold.id, self._engine.apply_hold(_apply(hold.turn, hold.tenant, hold.id)))
        is_unheard = False
        while True:
            due = await self._stores.live_turns.due(idle_s=IDLE_S, limit=PAGE)
            outcomes = await asyncio.gather(*(self._one("turn", live.id, self._look_after(live)) for live in due))
            for live, outcome in zip(due, outcomes, strict=True):
                is_unheard = is_unheard or outcome == "unheard"
                if outcome == "broke" or (outcome == "unheard" and len(due) == PAGE):
                    # Looked at again at once, it would keep the sweep from ending and from those behind it.
                    await self._stores.live_turns.touch(live.tenant, live.id, version=live.version)
            if len(due) < PAGE:
                break
        HOLDS_OPEN.set(await self._stores.holds.count_open())
        HOLDS_OLDEST.set(await self._stores.holds.oldest_open_s())
        if is_unheard:
            raise Unavailable(ErrorCode.BUS_DOWN, "the bus did not answer every question")

    async def _look_after(self, live: LiveTurn) -> None:
        if live.status == "cancelling":
            await self._engine.end_cancelled(CancelTurn(turn=live.id, tenant=live.tenant, reason=""))
            return
        if live.status == "held" and live.hold is not None:
            await self._engine.apply_hold(_apply(live.id, live.tenant, live.hold))
        elif live.conversation is not None:
            await self._stores.conversations.renew(live.tenant, live.conversation, live.id)
        unstarted = live.status == "queued" and await self._whereabouts.has_no_start(live)
        lost = [
            job
            for job in live.jobs
            if (unstarted or live.status != "queued") and await self._whereabouts.is_lost(live.id, job)
        ]
        now = await self._stores.live_turns.get(live.tenant, live.id) if lost else None
        if isinstance(now, LiveTurn) and (now.version, now.status) == (live.version, live.status):
            if unstarted:
                await self._start_again(live)
            for job in () if unstarted else lost:
                log.warning("turn.redriven", turn=live.id, kind=job.kind, step=job.step, attempt=job.attempt)
                TURNS_REDRIVEN.inc()
                released = JobReleased(kind=job.kind, step=job.step, index=job.index, attempt=job.attempt)
                await self._engine.redrive(live.tenant, live.id, released)
        if unstarted and not lost and (live.ordinal or live.conversation is None):
            # Its job is out, and whoever published it has not lived to note it.
            await self._stores.live_turns.begin(live.tenant, live.id, ordinal=live.ordinal)
        await self._stores.live_turns.touch(live.tenant, live.id, version=live.version)

    async def _start_again(self, live: LiveTurn) -> None:
        log.warning("turn.redriven", turn=live.id, kind="start", step=0, attempt=0)
        TURNS_REDRIVEN.inc()
        payload = await self._parcels.pack(live.tenant, stored.start_of(live))
        # A number that was not used before: the sweeps of one second, and only they, are one message.
        msg_id = start_msg_id(live.id, self._clock.now_ms() // 1000)
        await self._bus.send(subjects.control_start(live.id), payload, msg_id=msg_id)

    async def _one(self, kind: str, name: str, work: Awaitable[object]) -> Literal["done", "broke", "unheard"]:
        """Do one thing and tell what came of it; what fails by itself must not keep the others from being done."""
        try:
            await work
        except KitemeshError as exc:
            log.warning("sweep.skipped", kind=kind, id=name, code=exc.code)
            return "unheard" if exc.code is ErrorCode.BUS_DOWN else "broke"
        except Exception:
            # One turn that breaks this program must not end it, on every replica, for all others.
            log.exception("sweep.broke", kind=kind, id=name)
            return "broke"
        return "done"


async def sweep_forever(sweep: Callable[[], Awaitable[None]], store_state: Dependency, *, every_s: float) -> None:
    """Sweep until cancelled; every pause is jittered, so that replicas spread out."""
    jitter = random.Random()  # noqa: S311  spreads load, guards nothing
    pause_s = every_s
    while True:
        await asyncio.sleep(pause_s * jitter.uniform(0.8, 1.2))
        pause_s = every_s
        try:
            await sweep()
        except KitemeshError as exc:
            log.warning("sweep.failed", code=exc.code)
            if store_state.is_up:
                # A question was not answered, or the bus was away: what is due has waited for long enough.
                pause_s = AGAIN_S
                continue
            # While the store was away no lock was renewed: those who still hold one come first.
            await store_state.wait_up()
            await asyncio.sleep(SETTLE_S)


def _apply(turn: str, tenant: str, hold: str) -> ApplyHold:
    return ApplyHold(turn=turn, tenant=tenant, hold=hold)
