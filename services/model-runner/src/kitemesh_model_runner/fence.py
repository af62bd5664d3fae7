"""Which attempt a delivery is worked on under, and whether it is worked on at all.

A redelivered classic job has nobody to ask, so its number of deliveries counts. A redelivered stored job claims the
next attempt in the store, and from then on the results of every earlier one are refused. That it is the newest delivery
cannot be told from the store: the worker leaves what reached a process that stood still. It knows nothing of models.
"""

from typing import Final, Literal

import msgspec

from kitemesh_contracts.commands import Generate
from kitemesh_contracts.topology import WORKER_DELIVERIES_MAX
from kitemesh_runtime.bus import Delivery
from kitemesh_runtime.execution_stores import Job, LiveTurn, LiveTurns

REMEMBERED_MAX: Final = 1024
_SECOND: Final = 2

Standing = int | Literal["over", "elsewhere"]
"""The attempt to work under; else the step is `over`, or `elsewhere` the message is worked on under a newer attempt."""


class Fence:
    """The attempts of one pool's deliveries.

    Args:
        pool: Names the pool in the claims.

    """

    def __init__(self, live_turns: LiveTurns, *, pool: str) -> None:
        self._live_turns: Final = live_turns
        self._pool: Final = pool
        # None: asked, and no answer came, so the claim may stand.
        self._claims: dict[tuple[str, int, int], int | None] = {}

    async def attempt(self, job: Generate, delivery: Delivery) -> Standing:
        """Return the attempt to work under, or why the job is no longer this delivery's to have done.

        Asking again for the same delivery claims nothing more.

        Raises:
            Unavailable: The store does not answer. Ask again.

        """
        if not job.stored or delivery.deliveries == 1:
            return job.attempt + delivery.deliveries - 1
        key = _key(delivery)
        number = self._claims.get(key)
        if number is not None:
            return number
        wanted: Job | None = Job(kind="model", step=job.step, attempt=job.attempt, pool=self._pool)
        if delivery.deliveries > _SECOND or key in self._claims:
            # An earlier redelivery, or our own question, may have raised the attempt.
            wanted = await self._outstanding(job.tenant, job.turn, job.step)
        if wanted is None:
            self.forget(delivery)
            return "over"
        self._remember(key, None)
        if not await self._live_turns.claim(job.tenant, job.turn, wanted):
            # Before the store is asked again: a claim that was refused is not one whose answer was lost.
            self.forget(delivery)
            behind = await self.is_behind(job.tenant, job.turn, job.step, wanted.attempt, delivery)
            return "elsewhere" if behind else "over"
        self._remember(key, wanted.attempt + 1)
        return wanted.attempt + 1

    async def is_behind(self, tenant: str, turn: str, step: int, attempt: int, delivery: Delivery) -> bool:
        """Tell whether a newer delivery of a stored job can be in other hands: a newer attempt is outstanding.

        Raises:
            Unavailable: The store does not answer.

        """
        if delivery.deliveries >= WORKER_DELIVERIES_MAX:
            # There is no newer one, and a message that is left after its last is taken for one that kills workers.
            return False
        known = await self._outstanding(tenant, turn, step)
        return known is not None and known.attempt > attempt

    def forget(self, delivery: Delivery) -> None:
        """Drop what is known of a delivery that is done with."""
        self._claims.pop(_key(delivery), None)

    async def _outstanding(self, tenant: str, turn_id: str, step: int) -> Job | None:
        turn = await self._live_turns.get(tenant, turn_id)
        if not isinstance(turn, LiveTurn):
            return None
        for known in turn.jobs:
            if (known.kind, known.step, known.index) == ("model", step, 0):
                return msgspec.structs.replace(known, pool=self._pool)
        return None

    def _remember(self, key: tuple[str, int, int], number: int | None) -> None:
        # A delivery that was given back is never asked for again; others push it out.
        while len(self._claims) >= REMEMBERED_MAX and key not in self._claims:
            del self._claims[next(iter(self._claims))]
        self._claims[key] = number


def _key(delivery: Delivery) -> tuple[str, int, int]:
    return delivery.subject, delivery.sequence, delivery.deliveries
