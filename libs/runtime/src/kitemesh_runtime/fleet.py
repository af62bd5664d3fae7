"""Who is there, and how much waits for them: read from everybody's signs of life, and therefore a few seconds old.

It measures by its own clock what others count, so that no two clocks are compared. Whoever hears nothing at all is
likely cut off: then it keeps who was there, and claims to know nothing of what waits.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import structlog

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.beats import BEAT_EVERY_S, Beat, Health
from kitemesh_contracts.errors import ContractViolation
from kitemesh_contracts.topology import PRIORITIES, WEIGHTS
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.metrics import DRAIN_RATE, PREDICTED_WAIT, QUEUE_WAITING

SILENCE_S: Final = 3 * BEAT_EVERY_S
MISSED_S: Final = 60.0
"""How long a replica that fell silent is still told of; whether it stopped or died cannot be heard."""
WINDOW_S: Final = 10.0
RETRY_LEAST_S: Final = 1.0
RETRY_MOST_S: Final = 60.0
_SAMPLES: Final = int(WINDOW_S / BEAT_EVERY_S) + 1
_LOOK_S: Final = 0.5

log: Final = structlog.get_logger()

_Name = tuple[str, str, str]
"""Stream, pool and priority."""


class _Replica:
    """What a replica said last, and how its counts grew."""

    __slots__ = ("beat", "done", "heard_s", "skew_ms")

    def __init__(self, beat: Beat) -> None:
        self.beat = beat
        self.heard_s = 0.0
        self.skew_ms: int | None = None
        self.done: dict[_Name, deque[tuple[float, int]]] = {}

    def hear(self, beat: Beat, now_s: float) -> None:
        was_idle = self.beat.load < self.beat.slots and not any(queue.waiting for queue in self.beat.queues)
        self.beat, self.heard_s = beat, now_s
        for queue in beat.queues:
            samples = self.done.setdefault((queue.stream, queue.pool, queue.priority), deque(maxlen=_SAMPLES))
            if samples and samples[-1][1] > queue.done:
                # It was started again under its old name.
                samples.clear()
            while was_idle and len(samples) > 1:
                # How much it did when there was less to do says nothing of how much it can.
                samples.popleft()
            samples.append((now_s, queue.done))

    @property
    def free(self) -> int:
        """How much it would take up at once of what comes to its only stream."""
        is_only = len({queue.stream for queue in self.beat.queues}) == 1
        return max(0, self.beat.slots - self.beat.load) if is_only else 0


class Seen(NamedTuple):
    """A replica as it was heard last.

    Attributes:
        silent_s: For how long it has not been heard.
        skew_ms: How far its clock is ahead of this one, less what its word took to come; `None` if it did not say.

    """

    beat: Beat
    silent_s: float
    skew_ms: int | None


class Backlog(NamedTuple):
    """What waits in one queue.

    Attributes:
        waiting: As whoever spoke last knows it.
        lanes: The same, lane by lane; empty where there is one.
        rate: How many all replicas finish a second.
        watched_s: For how long that was measured.
        free: Free slots of all replicas. While much waits there are some, too, between one job and the next.

    """

    waiting: int
    lanes: tuple[int, ...]
    rate: float
    watched_s: float
    free: int


class _Figures(NamedTuple):
    waiting: float
    predicted_s: float
    rate: float


_UNKNOWN: Final = _Figures(math.nan, math.nan, math.nan)
_NOTHING: Final = Backlog(0, (), 0.0, 0.0, free=0)


def wait_s(backlogs: dict[str, Backlog], priority: str, lane: int | None) -> float | None:
    """Predict how long a job will wait in a pool. Pure.

    Nothing that has waited longer goes before it but its own lane's, for lanes take turns; and no priority gets more
    than its weight of what is done, as far as others want theirs.

    Args:
        backlogs: The pool's queues by priority.
        priority: The job's.
        lane: Its lane; `None` for the pool's average.

    Returns:
        Seconds; `None` when nobody knows it.

    """
    own = backlogs.get(priority)
    if own is None:
        return None
    waiting = own.waiting
    if lane is not None and own.lanes:
        busy = sum(each > 0 for each in own.lanes)
        waiting = min(waiting, own.lanes[lane] * busy) if lane < len(own.lanes) else 0
    waiting -= own.free
    if waiting <= 0:
        return 0.0
    wanting = [name for name, each in backlogs.items() if name == priority or each.waiting]
    share = WEIGHTS.get(priority, 1) / sum(WEIGHTS.get(name, 1) for name in wanting)
    # A priority that began to wait just now has not been served yet as it will be.
    rate = max(own.rate, share * sum(each.rate for each in backlogs.values()))
    if rate > 0:
        return waiting / rate
    # It is known only that not one was done in all that time.
    return waiting * own.watched_s if own.watched_s >= WINDOW_S else None


class Fleet:
    """Everybody who gives signs of life."""

    def __init__(self, clock: Clock) -> None:
        self._clock: Final = clock
        self._replicas: dict[str, _Replica] = {}
        self._missed: dict[str, _Replica] = {}
        self._heard_s = clock.monotonic()
        self._backlogs: dict[tuple[str, str], dict[str, Backlog]] = {}
        self._looked_s = -_LOOK_S
        self._is_news = False
        self._figures: dict[tuple[str, str], _Figures] = {}
        self._shown: set[tuple[str, str]] = set()

    async def listen(self, bus: Bus) -> None:
        """Follow the signs of life; the answers are known from then on, at most two seconds later."""
        await bus.subscribe(subjects.BEAT_ALL, self.hear)

    def replicas(self, service: str) -> int:
        """Return how many replicas of a service there are; 0 when none was ever heard."""
        return sum(each.beat.service == service for each in self._replicas.values())

    def members(self) -> Sequence[Beat]:
        """Return what each replica said last."""
        return [each.beat for each in self._replicas.values()]

    def seen(self) -> list[Seen]:
        """Return every replica, also those that fell silent within the last minute, by service and name."""
        now_s = self._clock.monotonic()
        self._look()
        self._forget(now_s)
        found = (*self._replicas.values(), *self._missed.values())
        return sorted(
            (Seen(each.beat, max(0.0, now_s - each.heard_s), each.skew_ms) for each in found),
            key=lambda each: (each.beat.service, each.beat.replica),
        )

    def backlogs(self) -> dict[tuple[str, str], dict[str, Backlog]]:
        """Return what waits, by stream and pool and then by priority; nothing when nobody was heard of late."""
        return {} if self._clock.monotonic() - self._heard_s > SILENCE_S else self._look()

    def predicted_wait_s(
        self, stream: str, pool: str = "", *, priority: str = "interactive", lane: int | None = None
    ) -> float | None:
        """Return how long what is published now will wait; `None` when nobody knows."""
        if self._clock.monotonic() - self._heard_s > SILENCE_S:
            return None
        backlogs = self._look().get((stream, pool))
        if backlogs is None:
            return None
        return wait_s(backlogs, priority if priority in backlogs else "", lane)

    def retry_after_s(
        self,
        stream: str,
        pool: str = "",
        default: float = RETRY_LEAST_S,
        *,
        priority: str = "interactive",
        lane: int | None = None,
    ) -> float:
        """Return when to come again, 1 to 60 s ahead; `default` when nobody knows."""
        predicted_s = self.predicted_wait_s(stream, pool, priority=priority, lane=lane)
        return min(RETRY_MOST_S, max(RETRY_LEAST_S, default if predicted_s is None else predicted_s))

    def health(self, model: str, *, pool: str | None = None) -> Health | None:
        """Return how a model's upstream looks: `down` when every runner, of the pool, says so; `None` when well."""
        said = [
            each.beat.health.get(model)
            for each in self._replicas.values()
            if each.beat.service == "model-runner"
            and (pool is None or any(queue.pool == pool for queue in each.beat.queues))
        ]
        if not any(said):
            return None
        return "down" if all(each == "down" for each in said) else "degraded"

    def hear(self, _subject: str, payload: bytes) -> None:
        """Take note of a sign of life."""
        try:
            beat = codec.decode(codec.BEAT, payload)
        except ContractViolation as exc:
            log.warning("beat.unread", reason=exc.message)
            return
        now_s = self._clock.monotonic()
        if now_s - self._heard_s > SILENCE_S:
            # While we were cut off nobody could be heard: who was there gets its full time again.
            for each in self._replicas.values():
                each.heard_s = now_s
        self._heard_s = now_s
        self._missed.pop(beat.replica, None)
        replica = self._replicas.setdefault(beat.replica, _Replica(beat))
        replica.hear(beat, now_s)
        replica.skew_ms = beat.now_ms - self._clock.now_ms() if beat.now_ms else None
        self._is_news = True
        self._look()

    def _forget(self, now_s: float) -> None:
        self._missed = {name: each for name, each in self._missed.items() if now_s - each.heard_s <= MISSED_S}

    def _look(self) -> dict[tuple[str, str], dict[str, Backlog]]:
        """Return what waits where, reckoned again when there is news, though not for each."""
        now_s = self._clock.monotonic()
        if self._is_news and now_s - self._looked_s >= _LOOK_S:
            self._is_news, self._looked_s = False, now_s
            for name, replica in tuple(self._replicas.items()):
                if self._heard_s - replica.heard_s > SILENCE_S:
                    self._missed[name] = self._replicas.pop(name)
                    # Not only when somebody asks: names of replicas come and go for as long as this process runs.
                    self._forget(now_s)
            self._backlogs = _backlogs(self._replicas.values())
            self._show()
        return self._backlogs

    def _show(self) -> None:
        self._figures = {name: _figures(of_pool) for name, of_pool in self._backlogs.items()}
        for name in self._figures.keys() - self._shown:
            self._shown.add(name)
            self._show_one(*name)

    def _show_one(self, stream: str, pool: str) -> None:
        def figures() -> _Figures:
            # When the gauges are read: nobody comes to change them once nobody is heard any more.
            is_cut_off = self._clock.monotonic() - self._heard_s > SILENCE_S
            return _UNKNOWN if is_cut_off else self._figures.get((stream, pool), _UNKNOWN)

        QUEUE_WAITING.labels(stream, pool).set_function(lambda: figures().waiting)
        PREDICTED_WAIT.labels(stream, pool).set_function(lambda: figures().predicted_s)
        DRAIN_RATE.labels(stream, pool).set_function(lambda: figures().rate)


def _backlogs(replicas: Iterable[_Replica]) -> dict[tuple[str, str], dict[str, Backlog]]:
    """Put together what the replicas said, those that spoke last last."""
    found: dict[tuple[str, str], dict[str, Backlog]] = {}
    for replica in sorted(replicas, key=lambda each: each.heard_s):
        free = replica.free
        for queue in replica.beat.queues:
            samples = replica.done[queue.stream, queue.pool, queue.priority]
            # No replica speaks more often: signs that were read late, together, were not given together.
            span_s = max(samples[-1][0] - samples[0][0], (len(samples) - 1) * BEAT_EVERY_S)
            of_pool = found.setdefault((queue.stream, queue.pool), {})
            before = of_pool.get(queue.priority, _NOTHING)
            rate = before.rate + ((samples[-1][1] - samples[0][1]) / span_s if span_s else 0.0)
            of_pool[queue.priority] = Backlog(
                queue.waiting, queue.lanes, rate, max(before.watched_s, span_s), free + before.free
            )
    return found


def _figures(of_pool: dict[str, Backlog]) -> _Figures:
    # Batch work takes what is left over: that it waits is no reason to wake anybody.
    priority = next((each for each in PRIORITIES if each in of_pool), "")
    predicted_s = wait_s(of_pool, priority, None) or 0.0
    parts = of_pool.values()
    return _Figures(sum(each.waiting for each in parts), predicted_s, sum(each.rate for each in parts))
