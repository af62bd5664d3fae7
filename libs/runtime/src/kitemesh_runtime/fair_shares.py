"""Whose turn it is, and how much each queue may send ahead: deficit round robin over priorities, and over their lanes.

Pure and without a clock: it knows neither messages nor how many there are of them, only which queues have some.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from kitemesh_contracts.topology import Lane

AHEAD_MAX: Final = 32
"""Messages of one queue that may come unasked while there are free slots: they save a question for each."""


class _Priority:
    """The lanes of one priority, which take turns."""

    __slots__ = ("deficit", "lanes", "next", "weight")

    def __init__(self, weight: int) -> None:
        self.weight = weight
        self.lanes: list[int] = []
        self.deficit = 0
        self.next = 0

    def choose(self, wanting: AbstractSet[int]) -> int | None:
        """Return whose turn it is of those that want, and leave it at that."""
        lanes, count = self.lanes, len(self.lanes)
        for place in range(self.next, self.next + count):
            lane = lanes[place % count]
            if lane in wanting:
                return lane
        return None

    def serve(self, lane: int) -> None:
        self.deficit -= 1
        self.next = (self.lanes.index(lane) + 1) % len(self.lanes)


class FairShares:
    """Deficit round robin.

    A priority gets its weight of all turns while others want them too, whatever the number of its lanes, and its lanes
    get as many each. Nothing is saved up: who did not want its turns has lost them.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        """Take the lanes; they are named by their places from then on."""
        priorities: dict[str, _Priority] = {}
        for place, lane in enumerate(lanes):
            priorities.setdefault(lane.priority, _Priority(lane.weight)).lanes.append(place)
        self._priorities: Final = list(priorities.values())
        self._current = 0
        self._priorities[0].deficit = self._priorities[0].weight

    def pick(self, wanting: AbstractSet[int]) -> int | None:
        """Give the next turn to one of those that want it; `None` when nobody does."""
        if not wanting:
            return None
        # The current one's turns may be used up, so that it is asked twice.
        for _ in range(len(self._priorities) + 1):
            priority = self._priorities[self._current]
            if priority.deficit > 0:
                lane = priority.choose(wanting)
                if lane is not None:
                    priority.serve(lane)
                    return lane
            priority.deficit = 0
            self._current = (self._current + 1) % len(self._priorities)
            following = self._priorities[self._current]
            following.deficit = following.weight
        return None


def credits_of(
    free: int, reserved: Sequence[int], held: Sequence[int], wanting: AbstractSet[int] = frozenset(), *, passed: bool
) -> list[int]:
    """Say how many messages may come from each queue.

    Args:
        free: Slots that are neither used nor reserved; not positive when there is none.
        reserved: Of each queue, slots that wait for messages which are known to be there.
        held: Of each queue, messages that this worker has.
        wanting: Queues that are known to have more, so that nothing need be learnt of them.
        passed: A slot has just gone to one of those.

    Returns:
        What is reserved and, of each queue, one more, by which it is learnt that there is something again. Without a
        free slot that one has to wait here, while another worker may have one: then only a queue of which nothing is
        held has it, and the others as often as a slot is given away without asking them. A queue in use may send ahead
        into half of the slots that are free.

    """
    if free > 0:
        ahead = max(1, min(AHEAD_MAX, free // (2 * max(1, sum(own > 0 for own in held)))))
        return [kept + (ahead if own else 1) for kept, own in zip(reserved, held, strict=True)]
    return [
        kept + (place not in wanting and not kept and (passed or not own))
        for place, (kept, own) in enumerate(zip(reserved, held, strict=True))
    ]
