"""The heart of the engine: load, decide, save, publish, over a turn store that is carried or kept.

A save that lost its race loads and decides again. What a saved state leads to may be published any number of times.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeGuard

import structlog
from msgspec.structs import replace

from kitemesh_contracts.commands import Generate, RunCalls
from kitemesh_contracts.errors import Bug, Conflict, ErrorCode, Unavailable
from kitemesh_contracts.events import StepTimings
from kitemesh_orchestrator import stored
from kitemesh_orchestrator.endings import Endings
from kitemesh_orchestrator.happenings import (
    Command,
    Event,
    Finish,
    OpenHold,
    Pause,
    Publish,
    TurnCancelled,
    TurnRefused,
    TurnSeated,
    WorkLost,
)
from kitemesh_orchestrator.holding import Holding
from kitemesh_orchestrator.jobs import Jobs
from kitemesh_orchestrator.judging import Terms
from kitemesh_orchestrator.states import Calling, Generating, Running, State, is_durable
from kitemesh_orchestrator.turn import decide, pending
from kitemesh_runtime.failpoints import reach
from kitemesh_runtime.ledger import GIVEN_UP
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.turns import TurnRecord

MAX_RACES: Final = 50
"""Each lost race means that another event of the turn won: far more than a turn has at once."""

log: Final = structlog.get_logger()


class Loaded(NamedTuple):
    """A turn as it was found.

    Attributes:
        version: Of the document; 0 when the state was carried.
        cancelled: Why it is being cancelled.
        queued: It was accepted as durable, and nobody has noted that it runs.
        claimed: The jobs, by kind and number, whose newest attempt a worker claimed for a message that it has.
        live: The document; `None` when the state was carried.

    """

    state: State
    version: int = 0
    cancelled: str | None = None
    queued: bool = False
    claimed: frozenset[tuple[str, int]] = frozenset()
    live: LiveTurn | None = None


class Drive:
    """Applies events to turns; any replica may apply any event, again as well."""

    def __init__(self, stores: Stores, jobs: Jobs, endings: Endings, holding: Holding) -> None:
        self._stores: Final = stores
        self._jobs: Final = jobs
        self._endings: Final = endings
        self._holding: Final = holding

    async def load(self, tenant: str, turn: str) -> Loaded | TurnRecord | None:
        """Return a turn of the store, live or ended."""
        found = await self._stores.live_turns.get(tenant, turn)
        if not isinstance(found, LiveTurn):
            return found
        why = (found.cancelled or "on request") if found.status == "cancelling" else None
        claimed = frozenset((job.kind, job.index) for job in found.jobs if job.message)
        return Loaded(stored.from_live(found), found.version, why, found.status == "queued", claimed, found)

    async def discard(self, tenant: str, turn: str) -> None:
        """End a stored turn that is being cancelled by its document alone.

        Raises:
            Conflict: It has changed meanwhile (`store.stale`).

        """
        found = await self._stores.live_turns.get(tenant, turn)
        if isinstance(found, LiveTurn) and found.status == "cancelling":
            if found.hold is not None:
                await self._stores.holds.cancel(tenant, found.hold, found.cancelled or "on request")
            await self._jobs.stop_document(found)
            await self._endings.end_document(found)

    async def begin(
        self,
        accepted: Loaded,
        event: TurnSeated | TurnRefused,
        history: Sequence[TurnRecord],
        *,
        timed: Callable[[], StepTimings],
        attempt: int = 1,
    ) -> None:
        """Begin a turn that was given a seat, or refuse it.

        Args:
            accepted: The turn.
            event: What came of asking for a seat.
            history: Earlier turns of its conversation.
            timed: Says what was spent so far.
            attempt: The newest one of the first job, should it have been published before.

        Raises:
            Unavailable: The bus does not answer; again it does what is left.

        """
        decided, commands = decide(accepted.state, event)
        await reach("orch.after_decide")
        if isinstance(decided, Generating):
            decided = replace(decided, attempt=attempt)
            prompt = await self._jobs.prompt(decided, history)
            await reach("orch.after_save")
            await self._jobs.publish_first(decided, prompt, timed())
            await reach("orch.after_publish")
            return
        for command in commands:
            assert isinstance(command, Finish)  # noqa: S101  what does not begin is over
            await self._endings.end(accepted.state, command, version=accepted.version)

    async def apply(
        self,
        loaded: Loaded | TurnRecord,
        event: Event,
        *,
        terms: Terms | None = None,
        handed_back: Generate | RunCalls | None = None,
    ) -> None:
        """Apply an event to a turn.

        Args:
            loaded: The turn.
            event: What happened.
            terms: How the step's calls are held, if any are.
            handed_back: The job that a `JobReleased` is about, to be sent as it was.

        Raises:
            Unavailable: The store or the bus does not answer; applied again it does what is left.

        """
        for _ in range(MAX_RACES):
            if isinstance(loaded, TurnRecord):
                await self._endings.repeat(loaded)
                return
            try:
                await self._apply_once(loaded, event, terms, handed_back)
            except Conflict:
                start = loaded.state.start
                again = await self.load(start.tenant, start.turn)
                if again is None:
                    log.warning("turn.gone", turn=start.turn)
                    return
                loaded = again
            else:
                return
        raise Bug("a turn changed under every one of many tries")

    async def _apply_once(
        self, loaded: Loaded, event: Event, terms: Terms | None, handed_back: Generate | RunCalls | None
    ) -> None:
        state = loaded.state
        if loaded.cancelled is not None:
            event = TurnCancelled(reason=loaded.cancelled)
        decided, commands = decide(state, event)
        await reach("orch.after_decide")
        finish = next((command for command in commands if isinstance(command, Finish)), None)
        if finish is not None:
            await self._finish(loaded, finish, is_given_up=isinstance(event, WorkLost))
        elif decided is not state:
            assert isinstance(decided, Generating | Calling)  # noqa: S101  whatever goes on is one of them
            if is_durable(decided):
                decided = await self._save(loaded, decided, commands, terms)
            await reach("orch.after_save")
            await self._publish(decided, commands, handed_back)
            await self._holding.follow(decided)
        elif isinstance(state, Generating | Calling) and state.durable:
            # What follows may have been lost with the process that saved it. Not so an attempt that was claimed: it was
            # never published, and a message of it would be worked on beside the one that it was claimed for.
            unclaimed = [
                command
                for command in pending(state)
                if not isinstance(command, Publish) or (command.job.kind, command.job.index) not in loaded.claimed
            ]
            await self._publish(state, unclaimed, None)
            await self._holding.follow(state)
        await reach("orch.after_publish")

    async def _save(
        self, loaded: Loaded, state: Running, commands: tuple[Command, ...], terms: Terms | None
    ) -> Running:
        start = state.start
        if any(isinstance(command, OpenHold) for command in commands):
            assert isinstance(state, Calling)  # noqa: S101  only calls are held
            assert terms is not None  # noqa: S101  whoever judged them said how
            state = await self._holding.open(state, terms)
            await reach("orch.after_hold_save")
        elif loaded.version and _was_repeated(loaded.state) and not _asks_again(loaded.state, state):
            await self._holding.close(loaded.state, None)
        live = stored.to_live(state, loaded.version + 1)
        if loaded.version:
            await self._stores.live_turns.save(start.tenant, live)
        elif not await self._stores.live_turns.insert(start.tenant, live):
            raise Conflict(ErrorCode.STALE, "the turn was stored before")
        return state

    async def _publish(
        self, state: Running, commands: Sequence[Command], handed_back: Generate | RunCalls | None
    ) -> None:
        for command in commands:
            if isinstance(command, Publish):
                if handed_back is None:
                    await self._jobs.publish(state, command.job)
                else:
                    await self._jobs.publish_again(state, command.job, handed_back)
            elif isinstance(command, Pause):
                assert isinstance(state, Calling)  # noqa: S101  only calls are held
                await self._endings.pause(state)

    async def _finish(self, loaded: Loaded, finish: Finish, *, is_given_up: bool) -> None:
        state, failed = loaded.state, finish.outcome != "completed"
        if not loaded.version:
            await self._finish_carried(state, finish)
            return
        if isinstance(state, Generating | Calling):
            if failed or _was_repeated(state):
                await self._holding.close(state, finish.error)
            if failed:
                await self._jobs.stop(state, by=GIVEN_UP if is_given_up else "")
        await self._endings.end(state, finish, version=loaded.version, before=loaded.live if is_given_up else None)

    async def _finish_carried(self, state: State, finish: Finish) -> None:
        """End a carried turn, if it has not been stored meanwhile; nothing here waits for the store."""
        look = finish.outcome != "completed" and isinstance(state, Generating | Calling) and bool(state.shown)
        if look and state.start.conversation is None and await self._is_stored(state):
            raise Conflict(ErrorCode.STALE, "the turn was stored before")
        await self._endings.end(state, finish)
        if look:
            assert isinstance(state, Generating | Calling)  # noqa: S101  it was looked at above
            try:
                await self._holding.close(state, finish.error)
            except Unavailable as exc:
                # The hold of an answer that was never saved: it runs out.
                log.warning("hold.kept", turn=state.start.turn, reason=exc.message)

    async def _is_stored(self, state: State) -> bool:
        try:
            return isinstance(await self._stores.live_turns.get(state.start.tenant, state.start.turn), LiveTurn)
        except Unavailable:
            return False


def _was_repeated(state: State) -> TypeGuard[Generating]:
    """Tell whether a model was asked again for the current step: an earlier answer may have left a hold."""
    return isinstance(state, Generating) and state.attempt > 1


def _asks_again(before: Generating, after: State) -> bool:
    return isinstance(after, Generating) and after.step == before.step
