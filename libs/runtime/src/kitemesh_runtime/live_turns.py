"""Turns that are stored while they go on.

A save is one compare-and-set on `version`; whoever lost it loads and decides again. What holds for every store is
said in `stores`.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from msgspec import Struct

from kitemesh_contracts.commands import Mode
from kitemesh_contracts.content import Message, Step, Usage
from kitemesh_runtime.turns import TurnRecord

LiveStatus = Literal["queued", "running", "held", "cancelling"]


class Job(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Work of a turn that has no result yet, as much as is needed to publish it again.

    Attributes:
        index: The job's number within its step.
        attempt: The newest one; what a model said under an earlier one is refused.
        calls: The execution ids of a tool job.
        message: Where the message stands in its stream whose redelivery claimed the attempt; 0 when none did.
        deliveries: Which delivery of it that was.

    """

    kind: Literal["model", "tool"]
    step: int
    index: int = 0
    attempt: int = 1
    pool: str
    calls: tuple[str, ...] = ()
    message: int = 0
    deliveries: int = 0


class LiveTurn(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A durable turn that has not ended.

    Attributes:
        version: Counts its writes, from 1.
        jobs: What was published, or is to be, and has no result.
        hold: The hold that its step waits for.
        look_at_s: When a sweep is to look at the turn although it is held, epoch seconds of the database's clock;
            `None` never.
        cancelled: Why it is being cancelled.
        steps: What was said and done so far, for people; the state has no second copy.
        state: The orchestrator's, which alone reads it; of version 1 of a turn that was accepted as durable, the bytes
            of its start (`StartTurn`).
        dialect: As `StartTurn` has it, and so `include_usage`, `message`, `row` and `details`.
        input: What the request brought, where a conversation is kept: it is shown before the turn has ended.
        spared: Attempts of its current step that do not count, and whose time does not: the turn was given up with
            them, and requeued. 0 once that is in its state.
        billed: The part of `usage` that was counted when the turn was given up.
        updated_at_s: Of the last write, epoch seconds of the database's clock; set by the store.

    """

    id: str
    tenant: str
    version: int
    status: LiveStatus
    mode: Mode
    model: str
    state: bytes
    jobs: tuple[Job, ...] = ()
    conversation: str | None = None
    ordinal: int = 0
    key: str = ""
    agent: str | None = None
    gateway: str = ""
    request: str | None = None
    hold: str | None = None
    cancelled: str | None = None
    steps: tuple[Step, ...] = ()
    usage: Usage = Usage()
    accepted_at_ms: int = 0
    updated_at_s: float = 0.0
    look_at_s: float | None = None
    dialect: str = ""
    include_usage: bool = False
    message: str = ""
    row: int = 0
    details: str = ""
    input: tuple[Message, ...] = ()
    spared: int = 0
    billed: Usage = Usage()


class GivenUp(NamedTuple):
    """A turn as an operator sees it.

    Attributes:
        turn: As it is stored.
        before: What it was when it was given up; `None` when it was not, or goes on since.

    """

    turn: LiveTurn | TurnRecord
    before: LiveTurn | None = None


class LiveTurns(Protocol):
    """Durable turns from their first save to their end, in the place where the ended ones are."""

    async def insert(self, tenant: str, turn: LiveTurn) -> bool:
        """Store a turn, version 1; `False` when the id exists, live, ended or erased. Grouped.

        Raises:
            Conflict: The id is another tenant's (`store.duplicate`).
            BadRequest: It is too large, or holds text that cannot be stored; so do `save` and `finish`.

        """

    async def begin(self, tenant: str, turn: str, *, ordinal: int) -> None:
        """Note that a `queued` turn runs, as its conversation's `ordinal`-th; no new version, grouped.

        Nothing happens to one that is not queued.
        """

    async def discard(self, tenant: str, turn: str) -> bool:
        """Remove a turn that is `queued` still at version 1: its client was refused. Tell whether it is gone."""

    async def get(self, tenant: str, turn: str) -> LiveTurn | TurnRecord | None:
        """Return the turn, live or ended; `None` also for one that was erased."""

    async def knows(self, tenant: str, turn: str) -> bool:
        """Tell whether the turn is stored, or was and has been erased within the hour."""

    async def spoken(
        self, tenant: str, conversation: str, *, up_to: int | None, limit: int
    ) -> list[LiveTurn | TurnRecord]:
        """Return turns that have, or had, their place in a conversation, live and ended, the latest first.

        Args:
            tenant: Whose they are.
            conversation: Whose turns.
            up_to: The ordinal to begin with; `None`: the newest.
            limit: How many.

        """

    async def page(
        self,
        tenant: str,
        *,
        statuses: Sequence[str] = (),
        conversation: str | None = None,
        before: str | None = None,
        limit: int,
    ) -> list[LiveTurn | TurnRecord]:
        """Return turns, live and ended, by id, newest first.

        Args:
            tenant: Whose they are.
            statuses: As they are stored (`LiveStatus`, `TurnOutcome`); none for all.
            conversation: Only its turns.
            before: The id of the last one seen.
            limit: How many.

        """

    async def save(self, tenant: str, turn: LiveTurn) -> None:
        """Replace the version before `turn.version`; grouped.

        Raises:
            Conflict: The stored version is another, or the turn has ended (`store.stale`).

        """

    async def finish(self, tenant: str, record: TurnRecord, *, version: int, before: LiveTurn | None = None) -> None:
        """Replace the live turn of that version by the record of its end; grouped.

        Args:
            tenant: Whose it is.
            record: Its end.
            version: That it has.
            before: The turn as it was, kept with its end for `revive`; not if both are too large for one document.

        Raises:
            Conflict: The stored version is another, or the turn has ended (`store.stale`).

        """

    async def given_up(self, turns: Sequence[str], *, is_whole: bool = True) -> dict[str, GivenUp]:
        """Return turns of whatever tenant, by id, with what they were; for an operator.

        Args:
            turns: Their ids.
            is_whole: `False`: what they said and did may be left out, for a list of many.

        """

    async def revive(self, tenant: str, turn: LiveTurn) -> None:
        """Replace the end of a turn that was given up at the version before `turn.version`; due at the next sweep.

        Raises:
            Conflict: It is live again, or was never given up so (`store.stale`).

        """

    async def claim(self, tenant: str, turn: str, job: Job) -> bool:
        """Raise a job's attempt by one, if it is still outstanding at `job.attempt`; counts as a version.

        Who claimed it, `message` and `deliveries`, is noted.
        """

    async def cancel(self, tenant: str, turn: str, reason: str) -> LiveTurn | TurnRecord | None:
        """Mark a live turn as being cancelled and return it as it is then; again is the same. Counts as a version."""

    async def due(self, *, idle_s: float, limit: int = 100) -> list[LiveTurn]:
        """Return live turns whose last write or `touch` is older, of all tenants, oldest first.

        A held one has to be past its `look_at_s` for so long too. What cannot be read is left out, logged, and not
        looked at again for a minute.
        """

    async def touch(self, tenant: str, turn: str, *, version: int) -> bool:
        """Put off the next time that the turn is due, if it has that version still; no new version."""
