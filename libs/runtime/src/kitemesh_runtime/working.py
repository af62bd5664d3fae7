"""How a service's workers live: they run until the process is told to stop, then drain, then hand back.

The one place that turns deliveries into metrics.
"""

import asyncio
from collections.abc import Callable, Sequence

from kitemesh_runtime.beats import Signs
from kitemesh_runtime.bus import Delivery
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.lifecycle import Life
from kitemesh_runtime.metrics import DELIVERIES, DELIVERY_DURATION, QUEUE_WAIT, REDELIVERIES, SLOTS_USED
from kitemesh_runtime.worker import Worker


def observer(queue: str) -> Callable[[str, float], None]:
    """Return what counts a worker's deliveries, by the name of its queue."""
    duration = DELIVERY_DURATION.labels(queue)
    outcomes = {
        outcome: DELIVERIES.labels(queue, outcome)
        for outcome in ("done", "rejected", "left", "failed", "released", "unavailable")
    }

    def observe(outcome: str, held_s: float) -> None:
        outcomes[outcome].inc()
        duration.observe(held_s)

    return observe


def taker(queue: str, clock: Clock) -> Callable[[Delivery], None]:
    """Return what measures how long a queue's messages waited, and counts those that had been delivered before."""
    waited, again = QUEUE_WAIT.labels(queue), REDELIVERIES.labels(queue)

    def take(delivery: Delivery) -> None:
        waited.observe(max(0.0, clock.now_ms() / 1000 - delivery.published_at_s))
        if delivery.deliveries > 1:
            again.inc()

    return take


def signs_of(workers: Sequence[Worker]) -> Signs:
    """Say how a service is that has workers."""
    return Signs(
        load=sum(worker.in_flight for worker in workers),
        slots=sum(worker.slots for worker in workers),
        queues=tuple(queue for worker in workers for queue in worker.queues()),
    )


async def work_until_stopped(life: Life, workers: Sequence[Worker], *, drain_s: float) -> None:
    """Run workers, say that the service is ready, and drain them when it is asked to stop.

    Args:
        life: The process.
        workers: All of them run at once.
        drain_s: Seconds that running work may take; a second signal ends it at once.

    """
    SLOTS_USED.set_function(lambda: sum(worker.in_flight for worker in workers))
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.run(), name="worker")
        life.ready()
        await life.stopping.wait()
        draining = group.create_task(_drain(workers, drain_s), name="drain")
        now = group.create_task(life.stopping_now.wait(), name="stop-now")
        await asyncio.wait({draining, now}, return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            for worker in workers:
                worker.stop_now()
        now.cancel()


async def _drain(workers: Sequence[Worker], drain_s: float) -> None:
    await asyncio.gather(*(worker.drain(drain_s) for worker in workers))
