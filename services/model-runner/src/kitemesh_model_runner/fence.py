"""Which attempt a delivery works under, whether it is worked on at all, and whether that still holds.

A redelivered classic job has nobody to ask, so its number of deliveries counts. A redelivered stored job claims the
next attempt in the store, which notes the message and the delivery that did: an older delivery, or an older message of
a job that was published again, claims nothing over it, and the results of every earlier attempt are refused. It knows
nothing of models.
"""

from typing import Final, Literal, NamedTuple

from kitemesh_contracts.commands import Generate
from kitemesh_contracts.topology import WORKER_DELIVERIES_MAX
from kitemesh_runtime.bus import Delivery
from kitemesh_runtime.live_turns import Job, LiveTurn, LiveTurns

REMEMBERED_MAX: Final = 1024

Lost = Literal["over", "elsewhere"]
"""The message is of no use any more, or it is worked on `elsewhere` under a newer attempt."""

Standing = int | Lost
"""The attempt to work under, or why there is none."""


class _Known(NamedTuple):
    """What is known of a delivery's attempt.

    Attributes:
        is_spent: It is not to be worked under: it broke off, or the next one was asked for and no answer came.

    """

    number: int
    is_spent: bool = False


class Fence:
    """The attempts of one pool's deliveries.

    Args:
        pool: Names the pool in the claims.

    """

    def __init__(self, live_turns: LiveTurns, *, pool: str) -> None:
        self._live_turns: Final = live_turns
        self._pool: Final = pool
        self._known: dict[tuple[str, int, int], _Known] = {}

    async def attempt(self, job: Generate, delivery: Delivery) -> Standing:
        """Return the attempt to work under, or why the job is no longer this delivery's to have done.

        Asking again for the same delivery claims nothing more.

        Raises:
            Unavailable: The store does not answer. Ask again.

        """
        key = _key(delivery)
        known = self._known.get(key)
        if known is not None and not known.is_spent:
            return known.number
        if not job.stored or (delivery.deliveries == 1 and job.attempt == 1 and known is None):
            return job.attempt + delivery.deliveries - 1
        current = await self._outstanding(job.tenant, job.turn, job.step)
        if delivery.deliveries == 1 and known is None:
            # Of an attempt that was published again; one that a worker claimed has no message of its own.
            is_mine = current is not None and (current.attempt, current.message) == (job.attempt, 0)
            return job.attempt if is_mine else "over"
        if current is not None and known is not None and _is_by(current, delivery, known.number + 1):
            # The answer to our own claim was lost, and it stands.
            self._remember(key, _Known(current.attempt))
            return current.attempt
        if current is None or not _may_claim(current, job, delivery, known):
            self.forget(delivery)
            return _why(current, delivery)
        self._remember(key, _Known(current.attempt, is_spent=True))
        if not await self._live_turns.claim(job.tenant, job.turn, self._wanted(job.step, current.attempt, delivery)):
            # Before the store is asked again: a claim that was refused is not one whose answer was lost.
            self.forget(delivery)
            return _why(await self._outstanding(job.tenant, job.turn, job.step), delivery)
        self._remember(key, _Known(current.attempt + 1))
        return current.attempt + 1

    async def lost(self, tenant: str, turn: str, step: int, number: int, delivery: Delivery) -> Lost | None:
        """Return why a stored job's attempt that was begun no longer counts; `None` when it does.

        Raises:
            Unavailable: The store does not answer.

        """
        current = await self._outstanding(tenant, turn, step)
        return None if current is not None and current.attempt == number else _why(current, delivery)

    def spend(self, delivery: Delivery, number: int) -> None:
        """Note that a stored job's attempt broke off after its first frame, so that it is never told anew."""
        self._remember(_key(delivery), _Known(number, is_spent=True))

    def forget(self, delivery: Delivery) -> None:
        """Drop what is known of a delivery that is done with."""
        self._known.pop(_key(delivery), None)

    async def _outstanding(self, tenant: str, turn_id: str, step: int) -> Job | None:
        turn = await self._live_turns.get(tenant, turn_id)
        if not isinstance(turn, LiveTurn):
            return None
        return next((job for job in turn.jobs if (job.kind, job.step, job.index) == ("model", step, 0)), None)

    def _wanted(self, step: int, attempt: int, delivery: Delivery) -> Job:
        return Job(
            kind="model",
            step=step,
            attempt=attempt,
            pool=self._pool,
            message=delivery.sequence,
            deliveries=delivery.deliveries,
        )

    def _remember(self, key: tuple[str, int, int], known: _Known) -> None:
        # A delivery that was given back is never asked for again; others push it out.
        while len(self._known) >= REMEMBERED_MAX and key not in self._known:
            del self._known[next(iter(self._known))]
        self._known[key] = known


def _is_by(current: Job, delivery: Delivery, attempt: int) -> bool:
    """Tell whether a delivery claimed that attempt, and it is the current one."""
    return (current.attempt, current.message, current.deliveries) == (attempt, delivery.sequence, delivery.deliveries)


def _may_claim(current: Job, job: Generate, delivery: Delivery, known: _Known | None) -> bool:
    if known is not None:
        return current.attempt == known.number
    if current.message == delivery.sequence:
        return current.deliveries < delivery.deliveries
    # Nobody has claimed it, unless it was published again since: then it is under an attempt of another message.
    return current.attempt == job.attempt


def _why(current: Job | None, delivery: Delivery) -> Lost:
    if current is None or current.message != delivery.sequence:
        return "over"
    # Behind the last delivery there is no newer one, and a message that is left then is taken for one that kills.
    return "over" if delivery.deliveries >= WORKER_DELIVERIES_MAX else "elsewhere"


def _key(delivery: Delivery) -> tuple[str, int, int]:
    return delivery.subject, delivery.sequence, delivery.deliveries
