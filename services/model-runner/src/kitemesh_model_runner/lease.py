"""Whether an attempt that is under way still counts, asked where this process may have lost its job.

A job whose worker stood still for longer than its lease is redelivered, and the frames of whoever thaws would come
between another's. What an attempt does is not known here.
"""

import math
from typing import Final

from kitemesh_contracts.commands import Generate
from kitemesh_contracts.topology import WORKER_ACK_WAIT_S, WORKER_HEARTBEAT_S
from kitemesh_model_runner.fence import Fence, Lost
from kitemesh_runtime.bus import Delivery
from kitemesh_runtime.clock import Clock

PAUSE_S: Final = WORKER_ACK_WAIT_S - WORKER_HEARTBEAT_S
"""The shortest standstill after which a job may be another's: its last sign of life may have been a heartbeat old."""


class Standstill:
    """Notices that this process stood still, from when it is looked at; somebody has to look every second."""

    def __init__(self, clock: Clock) -> None:
        self._clock: Final = clock
        self._seen_s = clock.monotonic()
        self._thawed_s = -math.inf

    def look(self) -> float:
        """Note that the process runs, and return the time."""
        now_s = self._clock.monotonic()
        if now_s - self._seen_s > PAUSE_S:
            self._thawed_s = now_s
        self._seen_s = now_s
        return now_s

    def since(self, moment_s: float) -> bool:
        """Tell whether the process stood still since a moment."""
        self.look()
        return self._thawed_s > moment_s


class Outdated(Exception):
    """The attempt is not to go on."""

    def __init__(self, standing: Lost) -> None:
        super().__init__(standing)
        self.standing: Final = standing


class Lease:
    """What one attempt knows of its job.

    Args:
        sure_s: When the job was its own.

    """

    def __init__(
        self,
        standstill: Standstill,
        fence: Fence,
        job: Generate,
        number: int,
        delivery: Delivery,
        *,
        sure_s: float,
    ) -> None:
        self._standstill: Final = standstill
        self._fence: Final = fence
        self._job: Final = job
        self._number: Final = number
        self._delivery: Final = delivery
        self._sure_s = sure_s

    def is_doubtful(self) -> bool:
        """Tell whether the process stood still since the job was last known to be its own."""
        return self._standstill.since(self._sure_s)

    async def renew(self) -> None:
        """Return if the attempt counts.

        Raises:
            Outdated: It does not.
            Unavailable: The store does not answer.

        """
        job, asked_s = self._job, self._standstill.look()
        lost = await self._fence.lost(job.tenant, job.turn, job.step, self._number, self._delivery)
        if lost is not None:
            raise Outdated(lost)
        self._sure_s = asked_s
