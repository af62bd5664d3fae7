"""Whether a turn is worth taking in, by how long it would wait for a model.

One that would wait for longer than it may is refused at once, while it has cost nothing, and told when to come again.
What is not known refuses nobody.
"""

from typing import Final

from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.errors import Busy, ErrorCode
from kitemesh_contracts.topology import MODEL, lane_of
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.fleet import RETRY_LEAST_S, RETRY_MOST_S, Fleet

BUSY: Final = "The queue is longer than the request may wait"


class Pressure:
    """Compares what waits with what may wait.

    Args:
        fleet: Knows what waits.
        catalog: Knows the pools' lanes.
        max_wait_s: How long any turn may wait.

    """

    def __init__(self, fleet: Fleet, catalog: CatalogHandle, *, max_wait_s: float) -> None:
        self._fleet: Final = fleet
        self._catalog: Final = catalog
        self._max_wait_s: Final = max_wait_s

    def check(self, start: StartTurn) -> None:
        """Refuse a turn that would wait for too long.

        Raises:
            Busy: It would (`queue.full`).

        """
        pool = self._catalog.current.pools.model.get(start.route.pool)
        lane = lane_of(start.tenant, pool.lanes) if pool is not None else None
        predicted_s = self._fleet.predicted_wait_s(MODEL, start.route.pool, priority=start.priority, lane=lane)
        check_wait(predicted_s, max_wait_s=start.max_wait_s, bound_s=self._max_wait_s)


def check_wait(predicted_s: float | None, *, max_wait_s: float | None, bound_s: float) -> None:
    """Compare a predicted wait with its bounds. Pure.

    Args:
        predicted_s: How long it would be; `None` when nobody knows.
        max_wait_s: How long the sender would wait; `None` when it did not say.
        bound_s: How long anything may wait.

    Raises:
        Busy: It is longer (`queue.full`), with the time after which the queue should have shrunk enough.

    """
    may_wait_s = bound_s if max_wait_s is None else min(max_wait_s, bound_s)
    if predicted_s is None or predicted_s <= may_wait_s:
        return
    retry_s = min(RETRY_MOST_S, max(RETRY_LEAST_S, predicted_s - may_wait_s))
    raise Busy(ErrorCode.QUEUE_FULL, BUSY, retry_after_s=round(retry_s, 3))
