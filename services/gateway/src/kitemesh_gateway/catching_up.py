"""Reading again what a client of a durable turn has not been shown: captured frames, and stored steps for the rest.

The same for a client that came back, or came late, and for a gap in a stream. What arrives meanwhile waits. History
goes out in slices, no faster than the client takes it. It knows nothing of HTTP.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import structlog

from kitemesh_contracts import subjects, topology
from kitemesh_contracts.codec import RELAYED, decode
from kitemesh_contracts.content import CallResult, Step
from kitemesh_contracts.deltas import CallDelta, Frame
from kitemesh_contracts.errors import ContractViolation, ErrorCode, ErrorInfo, KitemeshError, Unavailable
from kitemesh_gateway.attempts import ANSWERED
from kitemesh_gateway.finding import Finding
from kitemesh_gateway.following import ALL, Followed, Piece, Pieces
from kitemesh_gateway.watches import Watch, gap
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.metrics import STREAM_REPAIRS, STREAM_RESUMES

READS_AT_ONCE: Final = 16
PAUSES_S: Final = (0.05, 0.25, 0.7, 2.0)
"""Before reading again what was not there: it may be on its way, or be sent once more."""
FAILED_AGAIN_S: Final = (0.5, 1.0, 2.0, 5.0)
"""Before asking again who did not answer; the last one over and over."""
SLICE_PIECES: Final = 128
SLICE_CHARS: Final = 16 * 1024

CRASHED: Final = ErrorInfo(code=ErrorCode.INTERNAL, message="The answer could not be relayed")

_REPAIRED: Final = {outcome: STREAM_REPAIRS.labels(outcome).inc for outcome in ("repaired", "lost", "diverged")}
_RESUMED: Final = {outcome: STREAM_RESUMES.labels(outcome).inc for outcome in ("replayed", "resumed", "gap")}

log: Final = structlog.get_logger()


class Ends(NamedTuple):
    """How a watch is ended.

    Attributes:
        settle: With its closing event.
        fail: With an error.

    """

    settle: Callable[[Watch], None]
    fail: Callable[[Watch, ErrorInfo], None]


class CatchingUp:
    """The catch-ups of this gateway."""

    def __init__(self, bus: Bus, finding: Finding, ends: Ends) -> None:
        self._bus: Final = bus
        self._finding: Final = finding
        self._ends: Final = ends
        self._slots: Final = asyncio.Semaphore(READS_AT_ONCE)
        self._tasks: dict[Watch, asyncio.Task[None]] = {}

    async def replay(self, watch: Watch) -> None:
        """Show what was said before the watch was opened; returns when the rest follows by itself.

        Raises:
            KitemeshError: It is known already that the answer does not go on where the client is (`stream.gap`).

        """
        await self._begin(watch, is_replay=True).ready

    def repair(self, watch: Watch) -> None:
        """Read again what was lost on the way."""
        self._begin(watch, is_replay=False)

    def stop(self, watch: Watch) -> None:
        """Read nothing more for a watch."""
        task = self._tasks.pop(watch, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def _begin(self, watch: Watch, *, is_replay: bool) -> "_CatchUp":
        run = _CatchUp(self._bus, self._finding, self._slots, self._ends, watch, is_replay=is_replay)
        task = self._tasks[watch] = asyncio.create_task(run.run(), name="catch_up")
        task.add_done_callback(lambda done: self._forget(watch, done))
        return run

    def _forget(self, watch: Watch, task: asyncio.Task[None]) -> None:
        if self._tasks.get(watch) is task:
            del self._tasks[watch]


class _CatchUp:
    """One catch-up.

    Attributes:
        ready: Done when the client can be sent to, or nothing is to be read any more.

    """

    def __init__(
        self,
        bus: Bus,
        finding: Finding,
        slots: asyncio.Semaphore,
        ends: Ends,
        watch: Watch,
        *,
        is_replay: bool,
    ) -> None:
        assert isinstance(watch.shown, Followed)  # noqa: S101  only durable streams are read again
        assert watch.backlog is not None  # noqa: S101  what arrives has to wait
        self.ready: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()
        self._bus: Final = bus
        self._finding: Final = finding
        self._slots: Final = slots
        self._ends: Final = ends
        self._watch: Final = watch
        self._followed: Final = watch.shown
        self._backlog: Final = watch.backlog
        self._is_replay: Final = is_replay
        self._had_position: Final = watch.shown.seeks is not None
        self._slice: list[Piece] = []
        self._chars = 0

    async def run(self) -> None:
        """Catch up, however long it takes, and end the watch if its turn has ended or cannot be followed."""
        try:
            await self._run()
        except Exception:
            log.exception("turn.crashed", turn=self._watch.turn.turn)
            self._ends.fail(self._watch, CRASHED)
        finally:
            self._be_ready()

    async def _run(self) -> None:
        watch = self._watch
        lost = await self._catch_up()
        self._count(lost=lost)
        # From here on nothing waits any more: what arrives is shown as it comes.
        watch.backlog = None
        ended = watch.ended
        if self._followed.diverged and (ended is None or ended.outcome in ANSWERED):
            log.warning("stream.gap", turn=watch.turn.turn)
            self._refuse(gap(watch.turn.turn))
        elif watch.next() == "settle":
            self._ends.settle(watch)

    async def _catch_up(self) -> bool:
        """Read until nothing is missing; tell whether something had to be given up."""
        followed, watch = self._followed, self._watch
        # Most gaps are within an attempt that was heard of, and the store is not needed for those.
        needs_store = self._is_replay
        tries = failures = 0
        while not followed.diverged:
            try:
                await (self._read_stored() if needs_store else self._read_heard())
                await self._send()
                if not await self._flush():
                    return False
            except Unavailable as exc:
                # It counts as shown already.
                await self._send()
                log.warning("stream.not_read", turn=watch.turn.turn, code=exc.code)
                if watch.ended is not None:
                    # It has the whole answer.
                    break
                self._be_ready()
                await asyncio.sleep(FAILED_AGAIN_S[min(failures, len(FAILED_AGAIN_S) - 1)])
                failures += 1
                continue
            if not needs_store:
                needs_store = True
            elif tries == len(PAUSES_S) or (tries and watch.ended is not None):
                break
            else:
                self._be_ready()
                await asyncio.sleep(PAUSES_S[tries])
                tries += 1
        followed.lose(*self._backlog.newest)
        return not followed.diverged

    async def _read_heard(self) -> None:
        """Show what is captured of the attempts that were heard of."""
        newest, followed = self._backlog.newest, self._followed
        if followed.attempt:
            await self._read(followed.step, followed.attempt)
        if newest > (followed.step, followed.attempt):
            await self._read(*newest)

    async def _read_stored(self) -> None:
        """Show the stored steps, and what is captured of the one under way."""
        watch, followed = self._watch, self._followed
        async with self._slots:
            turn = watch.turn
            found = await self._finding.find(turn.tenant, turn.turn, after_step=watch.after_step, decided=turn.decided)
        steps, under_way = (found.steps, found.under_way) if found is not None else ((), None)
        results: Sequence[CallResult] = ()
        for step in steps:
            await self._show_step(step, results)
            results = step.results
        if found is not None and found.ended is not None and watch.ended is None:
            watch.on_found(found.ended)
        sought = followed.seeks
        if sought is not None and (under_way is None or under_way[0] < sought.step):
            followed.diverged = True
        elif under_way is not None:
            newest_step, newest_attempt = self._backlog.newest
            step_number, attempt = under_way
            await self._read(step_number, max(attempt, newest_attempt) if newest_step == step_number else attempt)

    async def _show_step(self, step: Step, results: Sequence[CallResult]) -> None:
        """Show what is missing of a step that has its whole text: as it was told, as far as that is captured.

        Args:
            step: The step.
            results: Of the calls of the step before.

        """
        followed = self._followed
        if followed.has(step.step):
            return
        sought = followed.seeks
        if step.attempt and step.last and (sought is None or sought.step <= step.step):
            await self._read(step.step, step.attempt, up_to=step.last)
        await self._show(followed.complete(step, results))

    async def _read(self, step: int, attempt: int, *, up_to: int | None = None) -> None:
        """Show what is captured of an attempt, as far as nothing is missing.

        Args:
            step: Its step.
            attempt: Its number.
            up_to: Its last frame; `None` while it is under way: then what is behind a gap waits in the backlog.

        """
        followed = self._followed
        begun = (step, attempt) == (followed.step, followed.attempt)
        block = followed.last // subjects.OUT_BLOCK if begun else 0
        while True:
            frames = await self._captured(step, attempt, block)
            for index, frame in enumerate(frames):
                pieces = followed.take(step, attempt, frame)
                if pieces is None:
                    for later in frames[index:] if up_to is None else ():
                        self._backlog.add(step, attempt, later)
                    return
                await self._show(pieces)
            block += 1
            if len(frames) < subjects.OUT_BLOCK or (up_to is not None and up_to <= block * subjects.OUT_BLOCK):
                return

    async def _captured(self, step: int, attempt: int, block: int) -> list[Frame]:
        subject = subjects.out_block(self._watch.turn.turn, step, attempt, block)
        async with self._slots:
            stored = await self._bus.last_of(topology.OUT, subject)
        frames = []
        for _, _, payload in stored:
            try:
                frame = decode(RELAYED, payload)
            except ContractViolation as exc:
                log.warning("frame.refused", reason=exc.message)
            else:
                if isinstance(frame, Frame):
                    frames.append(frame)
        # One that was sent again stands behind those that were sent after it.
        frames.sort(key=_number)
        return frames

    async def _flush(self) -> bool:
        """Show what arrived meanwhile; tell whether something before it is missing."""
        while arrived := self._backlog.take():
            for index, (step, attempt, _, frame) in enumerate(arrived):
                pieces = self._followed.take(step, attempt, frame)
                if pieces is None:
                    self._backlog.put_back(arrived[index:])
                    await self._send()
                    return True
                await self._show(pieces)
            await self._send()
        return False

    async def _show(self, pieces: Pieces) -> None:
        for piece in pieces:
            self._slice.append(piece)
            for item in piece.items:
                self._chars += len(item.arguments) if isinstance(item, CallDelta) else len(item.text)
        if len(self._slice) >= SLICE_PIECES or self._chars >= SLICE_CHARS:
            await self._send()

    async def _send(self) -> None:
        """Hand the slice over, and wait until the client has taken most of what it was sent."""
        pieces, self._slice, self._chars = self._slice, [], 0
        if not pieces:
            return
        self._watch.sink.show_all(pieces)
        if pieces[-1].seen < ALL:
            self._be_ready()
            await self._watch.sink.room()

    def _be_ready(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def _refuse(self, error: ErrorInfo) -> None:
        """Say that the stream cannot go on: before anything was sent to whoever asked for it, else in the stream."""
        if self._is_replay and not self.ready.done():
            self.ready.set_exception(KitemeshError(error.code, error.message))
        else:
            self._ends.fail(self._watch, error)

    def _count(self, *, lost: bool) -> None:
        diverged = self._followed.diverged
        if not self._is_replay:
            _REPAIRED["diverged" if diverged else "lost" if lost else "repaired"]()
        else:
            _RESUMED["gap" if diverged else "resumed" if self._had_position else "replayed"]()


def _number(frame: Frame) -> int:
    return frame.n
