"""The memory twin of `LiveTurns`."""

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from kitemesh_contracts.errors import Bug, Conflict, ErrorCode
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.live_turns import GivenUp, Job, LiveTurn
from kitemesh_runtime.turns import TurnRecord
from kitemesh_runtime.turns_memory import Kept, Tombstone
from kitemesh_runtime.usage import Note, bill_of


class MemoryLiveTurns:
    """The `LiveTurns` port in memory.

    Args:
        clock: Dates each write.
        kept: Where the turns are, by id; shared with `MemoryTurns`.
        note: Takes note of what those that have ended cost.

    """

    def __init__(self, clock: Clock, kept: Kept, note: Note) -> None:
        self._clock = clock
        self._kept = kept
        self._note = note
        self._touched_ms: dict[str, float] = {}
        self._before: dict[str, LiveTurn] = {}

    async def insert(self, tenant: str, turn: LiveTurn) -> bool:
        """Store a turn, version 1; `False` when the id exists, live, ended or erased."""
        if turn.version != 1:
            raise Bug("a turn was to be inserted as another version than its first")
        _check(tenant, turn)
        found = self._kept.get(turn.id)
        if found is not None and found.tenant != tenant:
            raise Conflict(ErrorCode.DUPLICATE, "it exists already")
        if found is None:
            self._put(turn)
        return found is None

    async def begin(self, tenant: str, turn: str, *, ordinal: int) -> None:
        """Note that a `queued` turn runs, as its conversation's `ordinal`-th; no new version."""
        live = self._live(tenant, turn)
        if live is not None and live.status == "queued":
            self._put(replace(live, status="running", ordinal=ordinal))

    async def discard(self, tenant: str, turn: str) -> bool:
        """Remove a turn that is `queued` still at version 1; `True` when it is not there, now or already."""
        live = self._live(tenant, turn)
        if live is not None and live.status == "queued" and live.version == 1:
            del self._kept[turn], self._touched_ms[turn]
        return await self.get(tenant, turn) is None

    async def get(self, tenant: str, turn: str) -> LiveTurn | TurnRecord | None:
        """Return the turn, live or ended; `None` also for one that was erased."""
        found = self._kept.get(turn)
        return found if isinstance(found, LiveTurn | TurnRecord) and found.tenant == tenant else None

    async def knows(self, tenant: str, turn: str) -> bool:
        """Tell whether the turn is stored, or was and has been erased."""
        found = self._kept.get(turn)
        return found is not None and found.tenant == tenant

    async def spoken(
        self, tenant: str, conversation: str, *, up_to: int | None, limit: int
    ) -> list[LiveTurn | TurnRecord]:
        """Return turns that have, or had, their place in a conversation, live and ended, the latest first."""
        seated = [
            turn
            for turn in self._stored()
            if (turn.tenant, turn.conversation) == (tenant, conversation)
            and turn.ordinal > 0
            and (up_to is None or turn.ordinal <= up_to)
        ]
        return sorted(seated, key=lambda turn: turn.ordinal, reverse=True)[: max(limit, 0)]

    async def page(
        self,
        tenant: str,
        *,
        statuses: Sequence[str] = (),
        conversation: str | None = None,
        before: str | None = None,
        limit: int,
    ) -> list[LiveTurn | TurnRecord]:
        """Return turns, live and ended, by id, newest first."""
        found = [
            turn
            for turn in self._stored()
            if turn.tenant == tenant
            and (not statuses or turn.status in statuses)
            and (conversation is None or turn.conversation == conversation)
            and (before is None or turn.id < before)
        ]
        return sorted(found, key=lambda turn: turn.id, reverse=True)[: max(limit, 0)]

    async def save(self, tenant: str, turn: LiveTurn) -> None:
        """Replace the version before `turn.version`."""
        _check(tenant, turn)
        self._expect(tenant, turn.id, turn.version - 1)
        self._put(turn)

    async def finish(self, tenant: str, record: TurnRecord, *, version: int, before: LiveTurn | None = None) -> None:
        """Replace the live turn of that version by the record of its end."""
        _check(tenant, record)
        self._expect(tenant, record.id, version)
        self._kept[record.id] = record
        self._note(bill_of(record))
        self._touched_ms.pop(record.id, None)
        if before is not None:
            self._before[record.id] = before

    async def given_up(self, turns: Sequence[str], *, is_whole: bool = True) -> dict[str, GivenUp]:  # noqa: ARG002  it costs nothing here
        """Return turns of whatever tenant, by id, with what they were."""
        found = ((turn, self._kept.get(turn)) for turn in turns)
        return {
            name: GivenUp(turn, self._before.get(name) if isinstance(turn, TurnRecord) else None)
            for name, turn in found
            if isinstance(turn, LiveTurn | TurnRecord)
        }

    async def revive(self, tenant: str, turn: LiveTurn) -> None:
        """Replace the end of a turn that was given up at the version before `turn.version`."""
        _check(tenant, turn)
        found, before = self._kept.get(turn.id), self._before.get(turn.id)
        is_given_up = isinstance(found, TurnRecord) and before is not None and before.version == turn.version - 1
        if not is_given_up or before is None or before.tenant != tenant:
            raise Conflict(ErrorCode.STALE, "it is not as it was expected to be")
        del self._before[turn.id]
        self._put(turn)
        self._touched_ms[turn.id] = 0.0

    async def claim(self, tenant: str, turn: str, job: Job) -> bool:
        """Raise a job's attempt by one, if it is still outstanding at `job.attempt`; counts as a version."""
        live = self._live(tenant, turn)
        if live is None or not any(_is(job, other) and other.attempt == job.attempt for other in live.jobs):
            return False
        claimed = {"attempt": job.attempt + 1, "message": job.message, "deliveries": job.deliveries}
        raised = tuple(replace(other, **claimed) if _is(job, other) else other for other in live.jobs)
        self._put(replace(live, jobs=raised, version=live.version + 1))
        return True

    async def cancel(self, tenant: str, turn: str, reason: str) -> LiveTurn | TurnRecord | None:
        """Mark a live turn as being cancelled and return it as it is then; again is the same. Counts as a version."""
        live = self._live(tenant, turn)
        if live is not None and live.status != "cancelling":
            reason = reason if live.cancelled is None else live.cancelled
            self._put(replace(live, status="cancelling", cancelled=reason, version=live.version + 1))
        return await self.get(tenant, turn)

    async def due(self, *, idle_s: float, limit: int = 100) -> list[LiveTurn]:
        """Return live turns whose last write or `touch`, or time to be looked at, is older, oldest first."""
        before_ms = self._clock.now_ms() - idle_s * 1000
        oldest = sorted(self._touched_ms.items(), key=lambda entry: entry[1])
        # One that was erased has left its time behind.
        found = [self._kept[turn] for turn, touched_ms in oldest if touched_ms < before_ms]
        return [turn for turn in found if isinstance(turn, LiveTurn)][:limit]

    async def touch(self, tenant: str, turn: str, *, version: int) -> bool:
        """Put off the next time that the turn is due, if it has that version still; no new version."""
        live = self._live(tenant, turn)
        if live is None or live.version != version:
            return False
        self._touch(live)
        return True

    def _stored(self) -> Iterator[LiveTurn | TurnRecord]:
        return (turn for turn in self._kept.values() if not isinstance(turn, Tombstone))

    def _live(self, tenant: str, turn: str) -> LiveTurn | None:
        found = self._kept.get(turn)
        return found if isinstance(found, LiveTurn) and found.tenant == tenant else None

    def _expect(self, tenant: str, turn: str, version: int) -> None:
        live = self._live(tenant, turn)
        if live is None or live.version != version:
            raise Conflict(ErrorCode.STALE, "it is not as it was expected to be")

    def _put(self, turn: LiveTurn) -> None:
        now_ms = self._clock.now_ms()
        self._kept[turn.id] = replace(turn, updated_at_s=now_ms / 1000)
        self._touch(turn)

    def _touch(self, turn: LiveTurn) -> None:
        touched_ms: float = self._clock.now_ms()
        if turn.status == "held":
            self._touched_ms.pop(turn.id, None)
            if turn.look_at_s is None:
                return
            touched_ms = max(touched_ms, turn.look_at_s * 1000)
        self._touched_ms[turn.id] = touched_ms


def _check(tenant: str, turn: LiveTurn | TurnRecord) -> None:
    if turn.tenant != tenant:
        raise Bug("a turn was to be stored for another tenant than its own")


def _is(job: Job, other: Job) -> bool:
    return (job.kind, job.step, job.index) == (other.kind, other.step, other.index)
