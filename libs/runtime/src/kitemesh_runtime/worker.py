"""The worker loop: pull while there are free slots, run a handler for each delivery, answer by its outcome.

It keeps what it holds alive with one heartbeat, stops pulling while a dependency is down, and hands back what it still
holds when told to stop. What waits to be retried has no slot: others are pulled meanwhile, up to a bound. Whose
delivery gets the next slot is decided in `slots`. It does not know what a message means, nor the store, nor NATS.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

import structlog
from msgspec import Struct

from kitemesh_contracts import topology
from kitemesh_contracts.beats import BEAT_EVERY_S, Queue
from kitemesh_contracts.errors import Bug, ContractViolation, KitemeshError, Unavailable
from kitemesh_contracts.subjects import last_token
from kitemesh_contracts.topology import Lane
from kitemesh_runtime.bus import Bus, Delivery, Pull
from kitemesh_runtime.slots import Slots

BACKOFF_S: Final = 0.1
BACKOFF_MAX_S: Final = 2.0
CRASHES_MAX: Final = 2
"""Unexpected exceptions that one delivery may cost before it is left to redelivery, where the server counts it."""
REDELIVER_S: Final = 1.0
REJECT_AGAIN_S: Final = 1.0
CANCEL_S: Final = 5.0
STANDSTILL_S: Final = topology.ORCHESTRATOR_ACK_WAIT_S
"""The shortest ack wait: what reached a process that stood still for so long may be another's by now."""

log = structlog.get_logger()


class Done(Struct, frozen=True):
    """The work is finished and what it led to is published and acknowledged: remove the message."""


class Retry(Struct, frozen=True):
    """Run the handler again in this process after `after_s`; the message is kept and no delivery is counted."""

    after_s: float
    reason: str


class Reject(Struct, frozen=True):
    """No attempt can succeed: give the message up to the dead letters. `reason` never quotes content."""

    reason: str


class Leave(Struct, frozen=True):
    """Another delivery of the message is in other hands: forget this one, and answer nothing.

    An acknowledgement, even a late one, would take the message from whoever has it.
    """


Outcome = Done | Retry | Reject | Leave
Handler = Callable[[Delivery], Awaitable[Outcome]]
Release = Callable[[Delivery], Awaitable[Leave | None]]
GiveUp = Callable[[Delivery, str], Awaitable[None]]
Take = Callable[[Delivery], None]
Observe = Callable[[str, float], None]
"""Takes `done`, `rejected`, `left`, `failed`, `released` or `unavailable`, and the seconds since the delivery."""


class Gate(Protocol):
    """What the handlers depend on."""

    async def wait_up(self) -> None:
        """Return once it is worth trying again."""


class _Held:
    """A delivery in this worker's hands."""

    __slots__ = ("delivery", "pull_index", "started_s", "task", "waiting")

    def __init__(self, delivery: Delivery, pull_index: int, started_s: float) -> None:
        self.delivery = delivery
        self.pull_index = pull_index
        self.started_s = started_s
        self.task: asyncio.Task[None] | None = None
        self.waiting = False


class Worker:
    """Runs one handler over the deliveries of some consumers of one stream."""

    def __init__(
        self,
        bus: Bus,
        stream: str,
        consumers: Sequence[str | Lane],
        slots: int,
        handler: Handler,
        *,
        name: str,
        pool: str = "",
        heartbeat_s: float = topology.WORKER_HEARTBEAT_S,
        gate: Gate | None = None,
        on_release: Release | None = None,
        on_reject: GiveUp | None = None,
        on_taken: Take | None = None,
        observe: Observe | None = None,
    ) -> None:
        """Take what to pull and what to run.

        Args:
            bus: Where deliveries come from.
            stream: Stream of all the consumers.
            consumers: Durable consumers; they share the slots.
            slots: Handlers that run at once, over all consumers.
            handler: Says how it went. `Unavailable` means that a dependency is down, `ContractViolation` is a `Reject`.
            name: For logs and task names.
            pool: Whose queues these are, for its signs of life.
            heartbeat_s: How often held messages are kept from redelivery; well below the consumers' ack wait.
            gate: Awaited before a handler that raised `Unavailable` is run again; backoff alone when `None`.
            on_release: Hands a message back (publishes that it was released); it is acknowledged once this returns,
                unless it says `Leave`. Without it, or when it raises, the message is given back by `nak`.
            on_reject: Tells whoever waits for a message, and why, before it is given up: the server keeps no copy.
                `Unavailable` lets this message wait, and no other.
            on_taken: Told of each delivery as it arrives; it must not block.
            observe: Told how each delivery ended.

        """
        self._bus = bus
        self._stream = stream
        self._lanes = [Lane(each) if isinstance(each, str) else each for each in consumers]
        self._slots = Slots(slots, self._lanes, asyncio.get_running_loop())
        self._pool = pool
        self._done = [0] * len(self._lanes)
        # Consumers of which something came since the last look.
        self._heard: set[int] = set()
        self._handler = handler
        self._name = name
        self._heartbeat_s = heartbeat_s
        self._gate = gate
        self._on_release = on_release
        self._on_reject = on_reject
        self._on_taken = on_taken
        self._observe = observe
        self._pulls: list[Pull] = []
        self._held: set[_Held] = set()
        self._paused = False
        self._beaten_s = time.monotonic()
        self._thawing = False
        self._group: asyncio.TaskGroup | None = None
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._ended = asyncio.Event()
        self._drain_s = 0.0

    @property
    def in_flight(self) -> int:
        """Deliveries in hand."""
        return len(self._held)

    @property
    def slots(self) -> int:
        """Handlers that run at once; 0 while nothing is taken up."""
        return 0 if self._paused or self._stopping.is_set() else self._slots.size

    def queues(self) -> list[Queue]:
        """Say what is known of its queues, priority by priority; nothing while nothing is taken up."""
        if not self.slots:
            return []
        # With a free slot, what waits is on its way.
        pending = self._slots.pending if self._slots.free <= 0 else (0,) * len(self._lanes)
        places: dict[str, list[int]] = {}
        for place, lane in enumerate(self._lanes):
            places.setdefault(lane.priority, []).append(place)
        return [
            Queue(
                stream=self._stream,
                pool=self._pool,
                priority=priority,
                waiting=sum(pending[place] for place in own),
                lanes=tuple(pending[place] for place in own) if len(own) > 1 else (),
                done=sum(self._done[place] for place in own),
            )
            for priority, own in places.items()
        ]

    @property
    def paused(self) -> bool:
        """Whether a dependency that is down keeps it from pulling."""
        return self._paused

    async def run(self) -> None:
        """Work until drained; raises when its own machinery fails, for a worker that only looks alive is worse."""
        if self._group is not None:
            raise Bug("a worker runs once")
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._beaten_s = time.monotonic()
                beat = group.create_task(self._beat(), name=f"{self._name}:heartbeat")
                look = group.create_task(self._look(), name=f"{self._name}:look")
                for index, lane in enumerate(self._lanes):
                    self._pulls.append(await self._bus.pull(self._stream, lane.consumer, self._receiver(index)))
                self._slots.fill(self._pulls)
                await self._stopping.wait()
                await self._stop()
                beat.cancel()
                look.cancel()
        finally:
            self._ended.set()
            for pull in self._pulls:
                await pull.stop()

    async def drain(self, timeout_s: float) -> None:
        """Pull no more, let handlers finish, hand back what is left; again is the same.

        Args:
            timeout_s: How long handlers may go on. What waits for a retry or a dependency is handed back at once.

        """
        if not self._stopping.is_set():
            self._drain_s = timeout_s
            self._stopping.set()
        if self._group is not None:
            await self._ended.wait()

    def stop_now(self) -> None:
        """Cancel the handlers and hand everything back at once, whether or not a drain is under way."""
        self._hurry.set()
        self._stopping.set()

    # One delivery

    def _receiver(self, index: int) -> Callable[[Delivery], None]:
        def receive(delivery: Delivery) -> None:
            now_s = time.monotonic()
            held = _Held(delivery, index, now_s)
            if self._thawing or now_s - self._beaten_s >= STANDSTILL_S:
                log.warning("delivery.left", reason="the process stood still", **self._ids(held))
                self._tell(held, "left")
                self._slots.pass_over(index, delivery.pending)
                return
            self._held.add(held)
            self._heard.add(index)
            if self._on_taken is not None:
                self._on_taken(delivery)
            if self._slots.take(index, delivery.pending):
                self._start(held)
            else:
                self._slots.wait(index, partial(self._start_late, held))

        return receive

    def _start(self, held: _Held) -> bool:
        # What comes, or comes to its turn, while stopping is only handed back.
        if self._stopping.is_set() or self._group is None:
            return False
        task_name = f"{self._name}:{last_token(held.delivery.subject)}"
        held.task = self._group.create_task(self._work(held), name=task_name)
        return True

    def _start_late(self, held: _Held) -> bool:
        """Start what waited for a slot, unless it may be another's by now."""
        if held in self._held and self._stands_still():
            self._let_go(held)
        return held in self._held and self._start(held)

    def _stands_still(self) -> bool:
        return time.monotonic() - self._beaten_s >= STANDSTILL_S

    def _let_go(self, held: _Held) -> None:
        log.warning("delivery.left", reason="the process stood still", **self._ids(held))
        self._held.discard(held)
        self._slots.forget(held.pull_index)
        self._tell(held, "left")

    async def _work(self, held: _Held) -> None:
        """Run the handler until it has an outcome; ends with the message still held when the worker stops before."""
        backoff_s = BACKOFF_S
        crashes = 0
        while True:
            held.waiting = False
            gate, paused = None, False
            try:
                outcome = await self._outcome(held)
                self._resume()
            except Unavailable as exc:
                self._pause(held, exc.message)
                paused = True
                gate, outcome = self._gate, Retry(backoff_s, "")
                backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)
            except Exception:
                crashes += 1
                log.exception("delivery.crashed", crashes=crashes, **self._ids(held))
                if crashes > CRASHES_MAX:
                    held.delivery.nak(REDELIVER_S)
                    self._finish(held, "failed")
                    return
                outcome = Retry(backoff_s, "an unexpected error")
                backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)
            if not isinstance(outcome, Retry):
                self._answer(held, outcome)
                return
            if outcome.reason:
                log.info("delivery.retried", reason=outcome.reason, after_s=outcome.after_s, **self._ids(held))
            if self._stopping.is_set():
                return
            held.waiting = True
            lent = not paused and self._slots.lend(held.pull_index)
            await asyncio.sleep(outcome.after_s)
            if gate is not None:
                await gate.wait_up()
            if lent:
                await self._slots.reclaim(held.pull_index)

    async def _outcome(self, held: _Held) -> Outcome:
        try:
            outcome = await self._handler(held.delivery)
        except ContractViolation as exc:
            outcome = Reject(exc.message)
        if isinstance(outcome, Reject) and self._on_reject is not None:
            try:
                await self._on_reject(held.delivery, outcome.reason)
            except Unavailable as exc:
                return Retry(REJECT_AGAIN_S, exc.message)
        return outcome

    def _answer(self, held: _Held, outcome: Done | Reject | Leave) -> None:
        match outcome:
            case Done():
                held.delivery.ack()
                self._finish(held, "done")
            case Reject(reason=reason):
                log.error("delivery.rejected", reason=reason, **self._ids(held))
                # The server deletes a terminated message, so its subject has to travel with the reason.
                held.delivery.term(f"{held.delivery.subject} {reason}")
                self._finish(held, "rejected")
            case Leave():
                self._finish(held, "left")

    def _finish(self, held: _Held, outcome: str) -> None:
        # A pause must not outlive what caused it, or nothing would be left to end it.
        self._resume()
        self._held.discard(held)
        self._done[held.pull_index] += 1
        self._tell(held, outcome)
        self._slots.leave(held.pull_index)

    def _pause(self, held: _Held, reason: str) -> None:
        self._tell(held, "unavailable")
        if not self._paused:
            self._paused = True
            log.warning("worker.paused", worker=self._name, reason=reason, held=len(self._held))
            for pull in self._pulls:
                pull.pause()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            log.info("worker.resumed", worker=self._name, held=len(self._held))
            for pull in self._pulls:
                pull.resume()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            stood_still = self._stands_still()
            if stood_still:
                for held in [each for each in self._held if each.task is None]:
                    self._let_go(held)
            for held in self._held:
                held.delivery.in_progress()
            self._beaten_s = time.monotonic()
            if stood_still:
                await self._thaw()

    async def _look(self) -> None:
        """Ask what waits in the queues of which, for want of slots, nothing is heard."""
        while True:
            await asyncio.sleep(BEAT_EVERY_S)
            heard, self._heard = self._heard, set()
            if self._slots.free > 0 or self._paused:
                continue
            for index, lane in enumerate(self._lanes):
                if index not in heard and self._slots.is_deaf(index):
                    with suppress(KitemeshError):
                        # The bus reports its own outages, and what it is denied; nothing here depends on the answer.
                        self._slots.learn(index, await self._bus.waiting(self._stream, lane.consumer))

    async def _thaw(self) -> None:
        """Leave what was sent while the process stood still: all that arrives before a message to itself."""
        self._thawing = True
        try:
            await self._bus.barrier()
        except Unavailable as exc:
            # Nothing of the old connection arrives on a new one.
            log.info("worker.thawed", worker=self._name, reason=exc.message)
        finally:
            self._thawing = False

    # Stopping

    async def _stop(self) -> None:
        """Let handlers finish within the time, cancel the others, hand back what is still held."""
        self._slots.close()
        await asyncio.gather(*(pull.stop() for pull in self._pulls))
        tasks = {held.task for held in self._held if held.task is not None}
        for held in self._held:
            if held.waiting and held.task is not None:
                held.task.cancel()
        if tasks:
            await self._wait_finished(tasks)
            for task in tasks:
                task.cancel()
            _, stuck = await asyncio.wait(tasks, timeout=CANCEL_S)
            for task in stuck:
                log.error("worker.handler_stuck", worker=self._name, task=task.get_name())
        await asyncio.gather(*(self._release(held) for held in tuple(self._held)))
        self._ended.set()

    async def _wait_finished(self, tasks: set[asyncio.Task[None]]) -> None:
        finished = asyncio.ensure_future(asyncio.wait(tasks))
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait({finished, hurry}, timeout=self._drain_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            finished.cancel()
            hurry.cancel()

    async def _release(self, held: _Held) -> None:
        try:
            if self._on_release is None:
                held.delivery.nak()
            elif not isinstance(await self._on_release(held.delivery), Leave):
                held.delivery.ack()
        except Exception:
            log.exception("delivery.release_failed", **self._ids(held))
            held.delivery.nak()
        self._held.discard(held)
        self._tell(held, "released")

    # Words

    def _tell(self, held: _Held, outcome: str) -> None:
        if self._observe is not None:
            self._observe(outcome, time.monotonic() - held.started_s)

    def _ids(self, held: _Held) -> dict[str, object]:
        return {
            "worker": self._name,
            "stream": self._stream,
            "consumer": self._lanes[held.pull_index].consumer,
            "subject": held.delivery.subject,
            "sequence": held.delivery.sequence,
            "deliveries": held.delivery.deliveries,
        }
