"""The queues of a cluster, what waits in them and who takes from them, as its signs of life have it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from kitemesh_contracts.topology import CONTROL, EVENT, MODEL, PRIORITIES, TOOL, TURN, Pool
from kitemesh_runtime.fleet import Backlog, Seen, wait_s

QueueName = tuple[str, str, str]
"""Stream, pool and priority."""

SINGLE: Final = (TURN, CONTROL, EVENT)
"""Streams without pools."""


class QueueView(NamedTuple):
    """One queue and who takes from it.

    Attributes:
        waiting: `None` when nobody knows.
        lanes: The same, lane by lane; empty where there is one.
        rate: How many all workers finish a second.
        predicted_s: How long what comes now will wait; `None` when nobody knows.
        workers: Replicas that take from it.
        slots: Of them all, which they share out over all their queues.

    """

    stream: str
    pool: str
    priority: str
    waiting: int | None
    lanes: tuple[int, ...]
    rate: float
    predicted_s: float | None
    workers: int
    slots: int

    @property
    def name(self) -> QueueName:
        """Which queue it is."""
        return self.stream, self.pool, self.priority

    @property
    def is_unattended(self) -> bool:
        """Whether nobody takes from it."""
        return self.workers == 0


def queue_names(model: Iterable[Pool], tool: Iterable[Pool]) -> list[QueueName]:
    """List the queues that a catalog's pools call for."""
    pooled = [(stream, pool.name) for stream, pools in ((MODEL, model), (TOOL, tool)) for pool in pools]
    return [
        *((stream, "", "") for stream in SINGLE),
        *((stream, pool, priority) for stream, pool in pooled for priority in PRIORITIES),
    ]


def queue_views(
    names: Sequence[QueueName],
    backlogs: Mapping[tuple[str, str], dict[str, Backlog]],
    seen: Iterable[Seen],
) -> list[QueueView]:
    """Say how each queue stands.

    Args:
        names: Those that there should be; others that somebody takes from come behind them.
        backlogs: By stream and pool, then by priority.
        seen: Every replica that is alive.

    """
    workers: dict[QueueName, int] = {}
    slots: dict[QueueName, int] = {}
    for beat, _, _ in seen:
        for name in {(queue.stream, queue.pool, queue.priority) for queue in beat.queues}:
            workers[name] = workers.get(name, 0) + 1
            slots[name] = slots.get(name, 0) + beat.slots
    found = []
    for name in (*names, *sorted(workers.keys() - set(names))):
        stream, pool, priority = name
        of_pool = backlogs.get((stream, pool), {})
        backlog = of_pool.get(priority)
        found.append(
            QueueView(
                *name,
                waiting=None if backlog is None else backlog.waiting,
                lanes=() if backlog is None else backlog.lanes,
                rate=0.0 if backlog is None else backlog.rate,
                predicted_s=wait_s(of_pool, priority, None),
                workers=workers.get(name, 0),
                slots=slots.get(name, 0),
            )
        )
    return found
